"""``dpcontrol trial``: stored solutions as controllers in worlds that they were not made for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpcontrol.cli.display import strict
from dpcontrol.results import UsageError

MANY_PARAMETERS = 3  # of more than so many, none is mistaken unless it is asked for
ASKED = ("problem", "size", "problem_seed", "strategy", "options")


def add_options(commands: Any) -> None:
    """The options of ``dpcontrol trial``."""
    trying = commands.add_parser(
        "trial", help="try stored solutions as controllers: noise, delay, pushes, another plant, fresh scenes"
    )
    trying.add_argument(
        "folders", nargs="+", metavar="folder", help="folders that solve wrote, of one problem"
    )
    trying.add_argument("--noise", type=float, metavar="SHARE", help="sensor noise, in sizes of the state")
    trying.add_argument("--lost", type=float, metavar="SHARE", help="share of measurements that are lost")
    trying.add_argument("--late", type=int, metavar="STEPS", help="commands arrive so many steps late")
    trying.add_argument("--pushes", type=float, metavar="SIZE", help="white pushes, in sizes of the state")
    trying.add_argument(
        "--mistake",
        action="append",
        default=[],
        metavar="NAME=FACTOR",
        help="a parameter of the plant, times so much",
    )
    trying.add_argument(
        "--fresh", type=int, metavar="COUNT", help="so many fresh scenes from the distribution"
    )
    trying.add_argument(
        "--seeds", type=int, default=3, help="how often a random trial is played (default: 3)"
    )
    trying.add_argument("--output", metavar="FOLDER", help="where trials.json and trials.png are stored")
    trying.add_argument("--json", action="store_true", help="print the record as JSON")
    trying.set_defaults(command="trial")


def try_folders(options: argparse.Namespace) -> int:
    """Play what folders hold in every trial that was asked for, or in all that fit."""
    from dpcontrol.trials import robustness

    problem, controllers = _loaded([Path(folder) for folder in options.folders])
    found = robustness(problem, controllers, _trials(options, problem), seeds=options.seeds)
    if options.output is not None:
        folder = Path(options.output)
        folder.mkdir(parents=True, exist_ok=True)
        found.save(folder / "trials.json")
        found.plot(folder / "trials.png")
    print(json.dumps(strict(found.record()), indent=1) if options.json else found)
    return 0


def _loaded(folders: Sequence[Path]) -> tuple[Any, dict[str, list[Any]]]:
    """The problem that all folders are about, and label -> what each of its folders holds."""
    from dpcontrol import catalogue, store
    from dpcontrol.solution import STORED, Solution
    from dpcontrol.strategies.names import resolve

    asked = []
    for folder in folders:
        if not (folder / "run.json").is_file() or not (folder / STORED).is_file():
            raise UsageError(f"{folder} holds no finished run; name folders that dpcontrol solve wrote.")
        asked.append(store.read_json(folder / "run.json"))
        if any(key not in asked[-1] for key in ASKED) or asked[-1]["size"] is None:
            raise UsageError(
                f"the run in {folder} was posed in Python; try it there, robustness(problem, {{'mine': solution}})."
            )
    first = asked[0]
    for folder, other in zip(folders, asked, strict=True):
        if any(other[key] != first[key] for key in ASKED[:3]):
            raise UsageError(
                f"{folders[0]} is about {first['problem']} ({first['size']}, seed {first['problem_seed']}), {folder} "
                f"about {other['problem']} ({other['size']}, seed {other['problem_seed']}): try them one by one."
            )
    problem = catalogue.find(first["problem"]).build(size=first["size"], seed=first["problem_seed"])
    alike = {each["strategy"]: {other["configuration"] for other in asked if other["strategy"] == each["strategy"]}
             for each in asked}  # fmt: skip
    found: dict[str, list[Any]] = {}
    for folder, each in zip(folders, asked, strict=True):
        strategy = resolve(each["strategy"], each["options"])
        solution = Solution.load(folder, strategy.pose(problem))
        several = len(alike[each["strategy"]]) > 1
        label = f"{solution.strategy} {solution.configuration}".strip() if several else solution.strategy
        # who decides while the episode runs is more than the controls that it once played
        found.setdefault(label, []).append(strategy if strategy.replans else solution)
    return problem, found


def _trials(options: argparse.Namespace, problem: Any) -> list[Any]:
    """The trials that were asked for; without any, a few that fit the problem."""
    from dpcontrol.problem import View
    from dpcontrol.trials import ActuatorDelay, Disturbance, Nominal, SensorNoise, Shifted

    found: list[Any] = []
    if options.noise is not None:
        found.append(SensorNoise(options.noise))
    if options.lost is not None:
        found.append(SensorNoise(0.0, dropout=options.lost))
    if options.late is not None:
        found.append(ActuatorDelay(options.late))
    if options.pushes is not None:
        found.append(Disturbance(options.pushes))
    found += [_mistaken(pair) for pair in options.mistake]
    if options.fresh is not None:
        found.append(Shifted(count=options.fresh))
    if not found:
        names = list((problem.plant or problem.simulator).parameters)
        found = [SensorNoise(0.05), SensorNoise(0.0, dropout=0.1), ActuatorDelay(1), Disturbance(0.1)]
        found += [_mistaken(f"{name}=1.1") for name in names if len(names) <= MANY_PARAMETERS]
        if View.DISTRIBUTION in problem.offers:
            found.append(Shifted())
    return [Nominal(), *found]


def _mistaken(pair: str) -> Any:
    from dpcontrol.trials import Mismatch

    name, _, text = pair.partition("=")
    try:
        factor = float(text)
    except ValueError as error:
        raise UsageError(f"--mistake takes NAME=FACTOR, such as viscosity=1.2; found {pair!r}.") from error
    return Mismatch(None, None, **{name: factor})
