"""Posteriors in solutions: run, status, files, pictures, command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from known_posterior import exact_draws, line
from torch.distributions import LogNormal, Normal

import dpcontrol as dp
from dpcontrol.cli.display import show
from dpcontrol.posterior import Draws, Posterior
from dpcontrol.problem import observe
from dpcontrol.results import UsageError
from dpcontrol.run import Outcome, Strategy


@dataclass(frozen=True)
class Exact(Strategy):
    """Hands out independent draws; ``shift`` moves one chain away."""

    shift: float = 0.0
    kind: str = "mcmc"

    def pose(self, problem):
        return replace(problem, joint=True)

    def run(self, meter, generator):
        meter.log_densities(meter.start())
        draws = exact_draws(
            meter.problem, divergent=torch.arange(2000).reshape(4, 500) < 3 * bool(self.shift)
        )
        free = draws.free.clone()
        free[0] += self.shift
        status = dp.Status("converged", "All draws were made.")
        if self.kind != "mcmc":
            return Outcome(status, draws=Draws(free[:1], draws.log_density[:1], kind=self.kind))
        return Outcome(status, draws=replace(draws, free=free))


def test_solution_has_a_posterior_with_a_verdict(tmp_path):
    solution = dp.solve(line(), Exact(), folder=tmp_path)
    assert solution.status.kind == "converged"
    assert solution.status.sentence.startswith("All draws were made. 4 chains of 500 draws have mixed")
    assert solution.record()["posterior"]["good"] is True
    assert solution.posterior is not None and solution.posterior.strategy == "Exact"
    alone = dp.Solution.load(tmp_path)
    assert torch.equal(alone.draws.free, solution.draws.free)
    assert alone.diagnostics == solution.diagnostics
    with pytest.raises(UsageError, match="load the solution with problem"):
        _ = alone.posterior
    again = dp.Solution.load(tmp_path, line()).posterior
    np.testing.assert_array_equal(again.values["kick"], solution.posterior.values["kick"])
    assert not (tmp_path / "nothing").exists() and (tmp_path / "draws.safetensors").is_file()


def test_bad_chains_cannot_be_missed(tmp_path, capsys):
    solution = dp.solve(line(), Exact(shift=2.0), folder=tmp_path)
    assert solution.status.kind == "iterations spent"
    assert "Warning: R-hat" in solution.status.sentence
    assert show(solution, tmp_path, as_json=False) == 0
    said = capsys.readouterr().out
    assert "! R-hat" in said and "! 3 transitions diverged" in said and "bulk ESS" in said
    assert "per 1,000 simulated steps" in said
    for name in (
        "solution",
        "posterior_marginals",
        "posterior_pairs",
        "posterior_traces",
        "posterior_predictions",
    ):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert show(solution, tmp_path, as_json=True) == 0
    assert '"warning": "R-hat' in capsys.readouterr().out


def test_approximations_are_told_on_the_command_line(tmp_path, capsys):
    solution = dp.solve(line(), Exact(kind="independent"), folder=tmp_path)
    assert show(solution, tmp_path, as_json=False) == 0
    said = capsys.readouterr().out
    assert "An approximation, 500 independent draws" in said and "R-hat" not in said.split("stored in")[0]
    assert not (tmp_path / "posterior_traces.png").exists()


def texts(figure):
    """All that is written in a figure."""
    from matplotlib.text import Text

    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_pictures_carry_warnings_truth_and_reference():
    problem = line()
    draws = exact_draws(problem)
    free = draws.free.clone()
    free[0] += 2
    figures = Posterior(problem, replace(draws, free=free), "nuts").figures()
    assert set(figures) == {
        "posterior marginals", "posterior pairs", "posterior traces", "posterior predictions",
    }  # fmt: skip
    for figure in figures.values():
        assert "Warning: R-hat" in texts(figure) and "line by nuts" in texts(figure)
    assert all(
        word in texts(figures["posterior marginals"]) for word in ("truth", "prior", "reference mean ± sd")
    )
    assert "Warning" not in texts(Posterior(problem, draws).plot())


@pytest.mark.parametrize("shape", [(24,), (5, 8)])
def test_fields_are_drawn_with_their_truth(shape, tmp_path):
    """An initial state of many cells, all measured once."""
    number = {"dtype": torch.float64}
    truth = torch.linspace(0.0, 1.0, math.prod(shape), **number).reshape(1, *shape)
    problem = dp.inference_problem(
        lambda state, control, *, parameters: state * parameters["decay"],
        data=0.5 * truth[None],
        observation=observe(noise=dp.Gaussian(0.1), steps=[1]),
        initial_state=torch.zeros(1, *shape, **number),
        horizon=1,
        prior={
            "initial_state": Normal(torch.zeros(shape, **number), torch.ones(shape, **number)),
            "decay": LogNormal(torch.tensor(-0.7, **number), torch.tensor(0.1, **number)),
        },
        truth={"initial_state": truth},
        name="fields",
    )
    generator = torch.Generator().manual_seed(0)
    free = 0.2 * torch.randn(2, 120, math.prod(shape) + 1, generator=generator, **number)
    posterior = Posterior(replace(problem, joint=True), Draws(free, -(free**2).sum(2)))
    assert f"initial_state ({math.prod(shape)} entries)" in str(posterior.summary())
    figures = posterior.figures()
    assert "posterior initial_state" in figures
    said = texts(figures["posterior initial_state"])
    assert ("(mean - truth) / sd" if len(shape) == 2 else "posterior, 90 %") in said
    posterior.plot(tmp_path / "overview.png")
    assert (tmp_path / "overview.png").stat().st_size > 10_000


def test_densities_are_reflected_at_bounds_only():
    from dpcontrol.plot.marginals import bounds, density

    generator = np.random.default_rng(0)
    bell, half = generator.standard_normal(2000), np.abs(generator.standard_normal(20_000))
    assert bounds(bell) == bounds(bell[:150]) == (-math.inf, math.inf)
    low, high = bounds(half)
    assert low == half.min() and high == math.inf
    points = np.linspace(-1.0, 5.0, 2001)
    found = density(half, points, (low, high))
    assert found[points < low].max() == 0.0
    assert found.sum() * (points[1] - points[0]) == pytest.approx(1.0, abs=0.01)
    assert found[np.argmin(np.abs(points - 0.01))] == pytest.approx(math.sqrt(2 / math.pi), rel=0.1)


def test_chains_that_never_moved_are_drawn_with_their_warning():
    problem = line()
    posterior = Posterior(problem, Draws(np.full((4, 120, 3), 0.1), np.zeros((4, 120))))
    for figure in posterior.figures().values():
        figure.canvas.draw()
        assert "never moved" in texts(figure)
