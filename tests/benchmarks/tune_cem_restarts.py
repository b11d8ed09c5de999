"""How the restarts of ``cem`` and ``cmaes`` were chosen: final losses over their settings, budgets given per scenario.

    python tests/benchmarks/tune_cem_restarts.py [cem|cmaes]

Problems and relative losses are those of ``tune_evolution.py``. ``no restarts`` is one round as long as the budget,
as both searches were before. Prints a line per setting and writes ``results/tune_<strategy>_restarts.json``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from tune_evolution import LONG, RESULTS, means, reference, scenes, swing_up

EVALUATIONS = (400, 1600, LONG)
# the search of before: elites' variance around their own mean, and one round only
ONE_ROUND = {"drift": 0.0, "floor": 0.0, "restarts": 0, "tolerance": 1e-6}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "cem": {
        "one round": ONE_ROUND,
        **{
            f"drift {drift}, floor {floor}, tolerance {tolerance}, restored {restored}": {
                "drift": drift,
                "floor": floor,
                "tolerance": tolerance,
                "restored": restored,
            }
            for drift, floor, tolerance, restored in (
                (0.0, 0.0, 1e-2, 0.1),
                (1.0, 0.0, 1e-2, 0.1),
                (1.0, 0.8, 1e-2, 0.1),
                (1.0, 0.85, 1e-2, 0.1),
                (1.0, 0.8, 1e-2, 0.3),
                (1.0, 0.8, 3e-2, 0.1),
            )
        },
    },
    "cmaes": {
        "one round": {"restarts": 0},
        **{
            f"tolerance {tolerance}, growth {growth}, restored {restored}": {
                "tolerance": tolerance,
                "growth": growth,
                "restored": restored,
            }
            for tolerance, growth, restored in (
                (1e-3, 2.0, 0.3),
                (1e-3, 1.5, 0.1),
                (1e-2, 1.5, 0.1),
                (1e-2, 1.5, 0.3),
                (1e-2, 2.0, 0.1),
            )
        },
    },
}


def main(names: list[str]) -> None:
    """Try everything, and write the record."""
    torch.set_num_threads(1)
    problems = [(problem, reference(problem)) for problem in (scenes(), swing_up())]
    for name in names:
        record: dict[str, Any] = {"strategy": name, "evaluations": EVALUATIONS, "problems": {}}
        for problem, best in problems:
            scale = best if problem.name == "burgers" else 1.0
            rows = []
            for label, options in SETTINGS[name].items():
                loss = means(problem, name, options, EVALUATIONS, scale)
                rows.append({"setting": label, "options": options, "loss": loss})
                print(problem.name, label, loss, flush=True)
            record["problems"][problem.name] = {
                "gradients_reach": best,
                "relative_to_it": scale == best,
                "rows": rows,
            }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"tune_{name}_restarts.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(SETTINGS))
