"""Simulation-based calibration of NUTS on every small problem with a prior.

    python tests/benchmarks/calibration.py                       # hours of CPU; all processes that there are
    python tests/benchmarks/calibration.py gas_oil_posterior     # some of them
    python tests/benchmarks/calibration.py --simulations 200     # more of each: those that are there are kept

Each problem in its size ``small``: 100 draws of the prior, replicated data, two chains of 250 draws after 200 of
warm-up, 63 draws ranked. The verdict is at a false-alarm rate of 0.001 for all quantities of a problem together. Half
done work is kept in ``runs/calibration`` and gone on with by the same command. Writes ``results/calibration.json``, one
entry for each problem that has been finished, and pictures of the ranks into the same folder in ``runs``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dpcontrol import catalogue, plot, sbc
from dpcontrol.criticism import Calibration, calibration_in

RESULT = Path(__file__).parent / "results" / "calibration.json"
KEPT = Path(__file__).parents[2] / "runs" / "calibration"
PROBLEMS = (
    "linear_gaussian",
    "gas_oil_posterior",
    "hare_lynx",
    "burgers_viscosity",
    "heat_source_posterior",
    "poisson_inversion",
)
# Rates from all over the prior: a single search, from the start that fits the lynxes, often ends on a lower hill, and
# the longer step of the small size makes populations of thousands negative, an edge along which chains crawl.
# Eight chains cost as much as two: a step of all is one batch, and small batches are overhead.
OPTIONS = {"hare_lynx": {"searches": 16, "chains": 8, "draws": 64, "warmup": 150}}
SIZES = {"hare_lynx": "full"}


def main() -> None:
    """Calibrate, and keep the record after every problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    for name in options.problems:
        folder = KEPT / name
        calibration = sbc(
            catalogue.find(name).build(size=SIZES.get(name, "small"), seed=0),
            "nuts",
            simulations=options.simulations,
            workers=options.workers,
            **OPTIONS.get(name, {}),
            folder=folder,
            resume=calibration_in(folder),
        )
        print(calibration, flush=True)
        if not calibration.complete:
            print("interrupted: the same command goes on")
            return
        for title, figure in calibration.figures().items():
            plot.write(figure, folder / f"{title.replace(' ', '_')}.png")
        _keep(name, calibration)


def _keep(name: str, calibration: Calibration) -> None:
    """Replace the entry of one problem."""
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    record = calibration.record()
    for quantity in record["quantities"]:
        quantity["ranks"] = " ".join(map(str, quantity["ranks"]))
    good = calibration.succeeded
    record["failed"] = len(record.pop("failures"))
    record["divergences"] = sum(each.divergences for each in good)
    record["redrawn"] = sum(each.redrawn for each in good)
    record["fewest_effective_draws"] = min(each.effective for each in good)
    found[name] = {"command": f"python tests/benchmarks/calibration.py {name}", **record}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
