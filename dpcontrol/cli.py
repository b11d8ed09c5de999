"""``dpcontrol list | solve | compare | check | resume | report``."""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpcontrol.results import UsageError

FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 the run failed, 2 a wrong call, 130 interrupted."""
    try:
        options = _parser().parse_args(arguments)
        return int(options.command(options))
    except UsageError as error:
        print(f"dpcontrol: {error}", file=sys.stderr)
        return WRONG_CALL
    except KeyboardInterrupt:
        print("dpcontrol: interrupted before anything was stored.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, `dpcontrol list | head` say
        sys.stderr.close()
        return 0


class _Parser(argparse.ArgumentParser):
    """argparse, with its complaints in one sentence."""

    def error(self, message: str) -> Any:
        raise UsageError(f"{message}; see `{self.prog} --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dpcontrol",
        description="Optimal control, inference and learned corrections through differentiable simulators.",
    )
    commands = parser.add_subparsers(metavar="command", required=True, parser_class=_Parser)

    listing = commands.add_parser("list", help="the problems and strategies that can be named")
    listing.set_defaults(command=_list)

    solving = commands.add_parser("solve", help="solve a problem with one strategy")
    _problem_options(solving)
    _run_options(solving)
    solving.add_argument("--strategy", default="lbfgs", help="its name (default: lbfgs)")
    solving.add_argument(
        "--seed", type=int, default=0, help="of everything random in the strategy (default: 0)"
    )
    solving.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of the strategy"
    )
    solving.set_defaults(command=_solve)

    comparing = commands.add_parser("compare", help="compare strategies on equal budgets, with a report")
    _problem_options(comparing)
    _run_options(comparing)
    comparing.add_argument(
        "--strategies", help="names, separated by commas (default: the problem's own list)"
    )
    comparing.add_argument(
        "--seeds", type=int, default=3, help="how many seeds for stochastic strategies (default: 3)"
    )
    comparing.add_argument("--workers", type=int, help="processes (default: one per core)")
    comparing.set_defaults(command=_compare)

    checking = commands.add_parser("check", help="Taylor test of a problem's gradient")
    _problem_options(checking)
    checking.add_argument("--seed", type=int, default=0, help="of the point and the directions (default: 0)")
    checking.add_argument("--json", action="store_true", help="print the result as JSON")
    checking.add_argument("--quiet", action="store_true", help="print nothing; the exit code is the verdict")
    checking.set_defaults(command=_check)

    resuming = commands.add_parser("resume", help="go on with an interrupted run or comparison")
    resuming.add_argument("folder", help="the folder that it wrote")
    resuming.add_argument("--json", action="store_true", help="print records as JSON")
    resuming.add_argument("--quiet", action="store_true", help="show no progress")
    resuming.add_argument("--workers", type=int, help="processes, for a comparison (default: one per core)")
    resuming.set_defaults(command=_resume)

    reporting = commands.add_parser("report", help="make the report of a comparison again")
    reporting.add_argument("folder", help="the folder of a comparison")
    reporting.set_defaults(command=_report)
    return parser


def _problem_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problem", help="a name from `dpcontrol list`, or the path of a problem file")
    parser.add_argument("--size", default="full", choices=("full", "small"), help="(default: full)")
    parser.add_argument(
        "--problem-seed", type=int, default=0, metavar="N", help="draws the scenes (default: 0)"
    )


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, help="budget of each run in wall time")
    parser.add_argument(
        "--simulated-steps", type=int, help="budget of each run in scenario-steps, gradients charged"
    )
    parser.add_argument("--gradients", type=int, help="budget of each run in gradients of one scenario")
    parser.add_argument("--target-loss", type=float, help="end a run when its mean loss is this low")
    parser.add_argument(
        "--output", metavar="FOLDER", help="where everything is stored (default: a new one in runs/)"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print records as JSON")


def _list(options: argparse.Namespace) -> int:
    from dpcontrol import catalogue
    from dpcontrol.strategies.names import named

    print("problems")
    for name in catalogue.names():
        print(f"  {name:<26}{catalogue.find(name).headline}")
    print("\nstrategies")
    for name, strategy in named().items():
        print(f"  {name:<26}{(type(strategy).__doc__ or '').strip().splitlines()[0]}")
    return 0


def _solve(options: argparse.Namespace) -> int:
    from dpcontrol import catalogue
    from dpcontrol.solving import solve

    entry = catalogue.find(options.problem)
    problem = entry.build(size=options.size, seed=options.problem_seed)
    defaults = entry.defaults(options.size)
    folder = _folder(options.output, f"{problem.name}-{options.strategy}")
    solution = solve(
        problem,
        options.strategy,
        budget=_budget(options, defaults),
        seed=options.seed,
        progress=False if options.quiet else None,
        folder=folder,
        **_fields(options.set),
    )
    return _show(solution, folder, as_json=options.json)


def _show(solution: Any, folder: Path, *, as_json: bool) -> int:
    pictures = _draw(solution, folder)
    if as_json:
        print(json.dumps(_strict(solution.record()), indent=1))
    else:
        print(f"{solution.name} by {solution.strategy}: {solution.status.sentence}")
        print(f"  {'loss':<22}{solution.loss:.8g}")
        for name, value in solution.metrics.items():
            print(f"  {name:<22}{value:.6g}")
        counts = solution.counts
        spent = f"{counts.simulated_steps} simulated steps, {counts.gradients} gradients, {solution.seconds:.1f} s"
        print(f"  {'cost':<22}{spent}")
        print(f"  {'stored in':<22}{folder}")
        print(f"  {'pictures':<22}{', '.join(pictures)}")
    return _exit_code(solution.status.kind, solution.status.failed)


def _draw(solution: Any, folder: Path) -> list[str]:
    """Draw ``solution.png`` and the problem's own figures; the names of the files."""
    from dpcontrol.plot import write

    try:
        figures = {"solution": solution.plot(), **solution.own_figures()}
        names = []
        for name, figure in figures.items():
            names.append(f"{re.sub(r'[^0-9A-Za-z]+', '_', name).strip('_')}.png")
            write(figure, folder / names[-1])
        return names
    except (
        Exception
    ) as error:  # the numbers are stored; a picture of extreme ones is not worth losing the exit code
        print(
            f"dpcontrol: the picture could not be drawn ({type(error).__name__}: {error}).", file=sys.stderr
        )
        return ["none"]


def _exit_code(kind: str, failed: bool) -> int:
    return INTERRUPTED if kind == "interrupted" else FAILED if failed else 0


def _compare(options: argparse.Namespace) -> int:
    from dpcontrol import catalogue
    from dpcontrol.comparison import compare

    entry = catalogue.find(options.problem)
    problem = entry.build(size=options.size, seed=options.problem_seed)
    defaults = entry.defaults(options.size)
    names = (
        options.strategies.split(",")
        if options.strategies
        else defaults.get("strategies", ["adjoint", "lbfgs", "cmaes"])
    )
    folder = _folder(options.output, f"{problem.name}-compare")
    comparison = compare(
        problem,
        [name.strip() for name in names],
        seeds=options.seeds,
        budget=_budget(options, defaults),
        folder=folder,
        workers=options.workers,
        progress=False if options.quiet else None,
    )
    return _show_comparison(comparison, folder, as_json=options.json)


def _show_comparison(comparison: Any, folder: Path, *, as_json: bool) -> int:
    report = comparison.report(folder / "report.html")
    if as_json:
        print(json.dumps(_strict(comparison.records), indent=1))
    else:
        print(comparison.table())
        print(f"\nreport: {report}")
    return INTERRUPTED if comparison.interrupted else 0


def _check(options: argparse.Namespace) -> int:
    from dpcontrol import catalogue
    from dpcontrol.checking import check_gradient

    problem = catalogue.find(options.problem).build(size=options.size, seed=options.problem_seed)
    found = check_gradient(problem, seed=options.seed)
    if options.json:
        rows = [
            {
                "unknown": row.slot,
                "rate": row.rate,
                "verdict": row.verdict,
                "hessian_rate": row.hessian_rate,
                "hessian": row.hessian,
            }
            for row in found.rows
        ]
        print(json.dumps(_strict({"problem": found.problem, "passed": found.passed, "rows": rows}), indent=1))
    elif not options.quiet:
        print(found)
    return 0 if found.passed else FAILED


def _resume(options: argparse.Namespace) -> int:
    from dpcontrol import catalogue, store
    from dpcontrol.comparison import Comparison, compare
    from dpcontrol.meter import Budget
    from dpcontrol.solving import solve

    folder = Path(options.folder)
    progress = False if options.quiet else None
    if Comparison.stored_in(folder):
        asked = Comparison.question(folder)
        problem = catalogue.find(asked["problem"]).build(size=asked["size"], seed=asked["problem_seed"])
        comparison = compare(
            problem,
            asked["strategies"],
            seeds=asked["seeds"],
            budget=Budget(**asked["budget"]),
            folder=folder,
            workers=options.workers,
            progress=progress,
            resume=True,
        )
        return _show_comparison(comparison, folder, as_json=options.json)
    if not (folder / "run.json").is_file():
        raise UsageError(
            f"{folder} holds no run and no comparison; name a folder that solve or compare wrote."
        )
    asked = store.read_json(folder / "run.json")
    keys = ("problem", "size", "problem_seed", "strategy", "options", "budget", "seed")
    missing = [key for key in keys if key not in asked]
    if missing:
        raise UsageError(f"{folder / 'run.json'} was not written by solve: it lacks {', '.join(missing)}.")
    if asked["size"] is None:
        raise UsageError(
            f"the run in {folder} was posed in Python; resume it there with solve(..., resume=True)."
        )
    problem = catalogue.find(asked["problem"]).build(size=asked["size"], seed=asked["problem_seed"])
    solution = solve(
        problem,
        asked["strategy"],
        budget=Budget(**asked["budget"]),
        seed=asked["seed"],
        progress=progress,
        folder=folder,
        resume=True,
        **asked["options"],
    )
    return _show(solution, folder, as_json=options.json)


def _report(options: argparse.Namespace) -> int:
    from dpcontrol.comparison import Comparison

    folder = Path(options.folder)
    comparison = Comparison.load(folder)
    print(comparison.table())
    print(f"\nreport: {comparison.report(folder / 'report.html')}")
    return 0


def _budget(options: argparse.Namespace, defaults: dict[str, Any]) -> Any:
    from dpcontrol.meter import Budget

    given = {
        name: getattr(options, name) for name in ("seconds", "simulated_steps", "gradients", "target_loss")
    }
    limits = {name: value for name, value in given.items() if value is not None}
    if not {"seconds", "simulated_steps", "gradients"} & set(limits):
        limits.update(
            {name: defaults[name] for name in ("simulated_steps", "gradients", "seconds") if name in defaults}
        )
    if not {"seconds", "simulated_steps", "gradients"} & set(limits):
        limits["seconds"] = 60.0
    return Budget(**limits)


def _folder(wanted: str | None, title: str) -> Path:
    """The folder to store in, made now so that nothing is computed that cannot be stored."""
    if wanted is not None:
        folder = Path(wanted)
    else:
        number = 1
        while Path("runs", f"{title}-{number}").exists():
            number += 1
        folder = Path("runs", f"{title}-{number}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise UsageError(
            f"the folder {folder} cannot be written to ({error.strerror}); name another with --output FOLDER."
        ) from error
    return folder


def _fields(pairs: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs as fields of a strategy; values are Python literals or plain words."""
    fields = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set takes NAME=VALUE, such as --set learning_rate=0.1; found {pair!r}.")
        try:
            fields[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):  # a plain word, such as the name of an optimizer
            fields[name] = text
    return fields


def _strict(value: Any) -> Any:
    """Numbers that JSON cannot say become null."""
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
