"""State transfer: known energies, the two-level pulse fails, an optimised one does not, nor one for many traps."""

import pytest
import torch
from dpcontrol.problems import schroedinger_transfer as transfer

from dpcontrol.meter import Budget
from dpcontrol.problem import UsageError
from dpcontrol.run import run
from dpcontrol.sim.schroedinger import eigenstates, grid
from dpcontrol.strategies.minimising.quasi_newton import LBFGS


def test_energies_are_those_of_the_quartic_oscillator():
    """p^2 + x^4 has 1.0603620905 and 3.7996730298; these units divide by 2 and rescale by 2^(-1/3)."""
    trap = grid(transfer.CELLS, transfer.LENGTH) ** 4 / 4
    energies, _ = eigenstates(trap, transfer.LENGTH, 2)
    wanted = torch.tensor([1.0603620905, 3.7996730298], dtype=torch.float64) / 2 * 2 ** (-1 / 3)
    torch.testing.assert_close(energies, wanted, rtol=0, atol=1e-6)


def test_the_pulse_of_the_two_levels_is_not_enough_and_norm_is_kept():
    problem = transfer.problem()
    samples = problem.metric_samples(problem.run_law(problem.baselines["resonant pulse"]))
    assert 0.3 < float(samples["fidelity"][0]) < 0.8
    assert float(samples["norm_error"][0]) < 1e-12
    assert problem.metrics(problem.start())["fidelity"] == pytest.approx(
        float(samples["fidelity"][0]), abs=1e-12
    )


def test_lbfgs_transfers():
    solution = run(transfer.problem(size="small"), LBFGS(), budget=Budget(gradients=80))
    assert solution.metrics["fidelity"] > 0.999
    assert float(solution.trajectory().controls.abs().max()) <= transfer.STRONGEST


def test_one_field_serves_many_traps():
    problem = transfer.problem(size="small", detunings=5)
    assert not problem.separate
    assert problem.start()["control"].shape == (60, 1)
    before = problem.metrics(problem.start())
    solution = run(problem, LBFGS(), budget=Budget(gradients=5 * 60))
    assert solution.metrics["fidelity"] > 0.98 > before["fidelity"]
    assert solution.metrics["worst_infidelity"] < 0.05
    assert solution.trajectory().controls.std(dim=1).max() == 0


def test_bad_arguments_are_one_sentence():
    with pytest.raises(UsageError, match="number of traps, 1 or more; found 0"):
        transfer.problem(detunings=0)
