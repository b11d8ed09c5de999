"""What may be said on the command line, and what it means as budgets, folders and fields."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpcontrol.cli import trial
from dpcontrol.results import UsageError


class _Parser(argparse.ArgumentParser):
    """argparse, with its complaints in one sentence."""

    def error(self, message: str) -> Any:
        raise UsageError(f"{message}; see `{self.prog} --help`.")


def parser() -> argparse.ArgumentParser:
    """The commands and their options; ``command`` is the name of the one that was asked for."""
    parser = _Parser(
        prog="dpcontrol",
        description="Optimal control, inference and learned corrections through differentiable simulators.",
    )
    commands = parser.add_subparsers(metavar="command", required=True, parser_class=_Parser)

    listing = commands.add_parser("list", help="the problems and strategies that can be named")
    listing.set_defaults(command="list")

    solving = commands.add_parser("solve", help="solve a problem with one strategy")
    _problem_options(solving)
    _run_options(solving)
    solving.add_argument("--strategy", help="its name (default: the problem's own, else lbfgs)")
    solving.add_argument(
        "--seed", type=int, default=0, help="of everything random in the strategy (default: 0)"
    )
    solving.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of the strategy"
    )
    solving.set_defaults(command="solve")

    comparing = commands.add_parser(
        "compare",
        help="compare strategies on equal budgets, with a report",
        epilog="Several limits (--simulated-steps and --seconds, say) are several budgets, each with its own ranking.",
    )
    _problem_options(comparing)
    _run_options(comparing)
    comparing.add_argument(
        "--strategies", help="names, separated by commas (default: the problem's own list)"
    )
    comparing.add_argument(
        "--seeds", type=int, default=3, help="how many seeds for stochastic strategies (default: 3)"
    )
    comparing.add_argument("--workers", type=int, help="processes (default: one per core)")
    comparing.add_argument(
        "--tuned",
        metavar="FOLDERS",
        help="folders of `dpcontrol tune`, separated by commas: strategies with those options",
    )
    comparing.set_defaults(command="compare")

    tuning = commands.add_parser(
        "tune", help="search for a strategy's options by a counted number of trials, on scenes of their own"
    )
    _problem_options(tuning)
    _run_options(tuning)
    tuning.add_argument("--strategy", required=True, help="its name")
    tuning.add_argument(
        "--trials", type=int, default=16, help="sets of options, the defaults first (default: 16)"
    )
    tuning.add_argument("--seeds", type=int, default=1, help="runs of each trial (default: 1)")
    tuning.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="FIELD=LOW:HIGH",
        help="where a field lies, or FIELD=A,B,C (default: known ranges)",
    )
    tuning.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field that all trials share"
    )
    tuning.add_argument("--workers", type=int, help="processes (default: one per core)")
    tuning.set_defaults(command="tune")

    calibrating = commands.add_parser(
        "calibrate", help="simulation-based calibration: does a strategy sample this posterior?"
    )
    _problem_options(calibrating)
    calibrating.add_argument("--strategy", default="nuts", help="its name (default: nuts, in short chains)")
    calibrating.add_argument("--simulations", type=int, default=100, help="how many (default: 100)")
    calibrating.add_argument(
        "--ranked", type=int, default=63, help="draws of each posterior that are ranked (default: 63)"
    )
    calibrating.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    calibrating.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of the strategy"
    )
    calibrating.add_argument("--workers", type=int, help="processes (default: one per core)")
    calibrating.add_argument(
        "--output", metavar="FOLDER", help="where everything is stored (default: a new one in runs/)"
    )
    calibrating.add_argument("--quiet", action="store_true", help="show no progress")
    calibrating.add_argument("--json", action="store_true", help="print a record as JSON")
    calibrating.set_defaults(command="calibrate")

    checking = commands.add_parser(
        "check", help="Taylor test of a problem's gradient, stress test of its prior"
    )
    _problem_options(checking)
    checking.add_argument("--seed", type=int, default=0, help="of the point and the directions (default: 0)")
    checking.add_argument(
        "--draws", type=int, default=100, help="of the prior, for the stress test; 0 for none (default: 100)"
    )
    checking.add_argument("--json", action="store_true", help="print the result as JSON")
    checking.add_argument("--quiet", action="store_true", help="print nothing; the exit code is the verdict")
    checking.set_defaults(command="check")

    trial.add_options(commands)

    resuming = commands.add_parser("resume", help="go on with an interrupted run, comparison or calibration")
    resuming.add_argument("folder", help="the folder that it wrote")
    resuming.add_argument("--json", action="store_true", help="print records as JSON")
    resuming.add_argument("--quiet", action="store_true", help="show no progress")
    resuming.add_argument(
        "--workers", type=int, help="processes, but for a single run (default: one per core)"
    )
    resuming.set_defaults(command="resume")

    reporting = commands.add_parser("report", help="make the report of a comparison again")
    reporting.add_argument("folder", help="the folder of a comparison")
    reporting.set_defaults(command="report")
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


def budgets(options: argparse.Namespace, defaults: dict[str, Any]) -> list[Any]:
    """A budget for each limit that was given; a target loss belongs to all of them."""
    from dpcontrol.meter import Budget

    given = {name: getattr(options, name) for name in ("simulated_steps", "gradients", "seconds")}
    limits = {name: value for name, value in given.items() if value is not None}
    if len(limits) < 2:
        return [budget(options, defaults)]
    return [Budget(**{name: value}, target_loss=options.target_loss) for name, value in limits.items()]


def budget(options: argparse.Namespace, defaults: dict[str, Any]) -> Any:
    """The limits that were given, else those that the problem suggests, else a minute."""
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


@contextmanager
def folder_for(wanted: str | None, title: str) -> Iterator[Path]:
    """The folder to store in, made at once so that nothing is computed that cannot be stored.

    Where what is done with it fails before anything was stored, the folders that were made are taken away again.
    """
    folder = _new_folder(title) if wanted is None else Path(wanted)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise UsageError(
            f"the folder {folder} cannot be written to ({error.strerror}); name another with --output FOLDER."
        ) from error
    try:
        yield folder
    finally:
        for place in made:
            if not place.is_dir() or any(place.iterdir()):
                break
            place.rmdir()


def _new_folder(title: str) -> Path:
    number = 1
    while Path("runs", f"{title}-{number}").exists():
        number += 1
    return Path("runs", f"{title}-{number}")


def fields(pairs: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs as fields of a strategy; values are Python literals or plain words."""
    fields = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set takes NAME=VALUE, such as --set learning_rate=0.1; found {pair!r}.")
        fields[name] = literal(text)
    return fields


def literal(text: str) -> Any:
    """A Python literal, or a plain word, such as the name of an optimizer."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
