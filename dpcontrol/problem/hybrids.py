"""What can be asked of a correction problem: its hybrid simulator, its windows, its answer as a simulator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch

from dpcontrol import tree
from dpcontrol.engine.trajectory import rollout
from dpcontrol.problem.base import Problem
from dpcontrol.problem.following import parts_of
from dpcontrol.problem.packed import sizes as sizes_of
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.windows import Windows
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.sim.channels import Channels
from dpcontrol.sim.hybrid import HybridSimulator, Still
from dpcontrol.tree import Tree

MEASURED = 64  # windows from which typical sizes are taken


def training_windows(problem: Problem) -> Windows:
    """The windows that a correction problem draws its scenarios from.

    Raises:
        UsageError: for another problem.
    """
    sampler = problem.scenarios.sampler
    if not isinstance(sampler, Windows):
        raise UsageError(
            f"{problem.name} has no reference trajectories to cut windows from: pose it with correction_problem(...)."
        )
    return sampler


def training_scenarios(
    problem: Problem, part: str = "train", *, steps: int | None = None, most: int = 32
) -> Scenarios:
    """Windows of a part of the trajectories, evenly spread, as a fixed set of scenarios of a correction problem.

    A problem with such scenarios and no others, ``problem.with_scenarios(training_scenarios(problem))``, can be fitted
    by any strategy; the answer is judged by the problem that it came from.

    Args:
        problem: made by :func:`correction_problem`.
        part: ``"train"``, ``"validation"`` or ``"test"``.
        steps: their length; the problem's horizon by default (another one needs a problem with that horizon).
        most: at most so many.
    """
    cut = training_windows(problem)
    found = cut.of(part, problem.horizon if steps is None else steps).spread(most)
    count = len(tree.leaves(found)[0])
    own = problem.scenarios
    shared = {
        name: tree.map(lambda leaf: leaf[:1].expand(count, *leaf.shape[1:]), own.data[name])
        for name in own.shared
    }
    return Scenarios({**shared, **found}, None, own.shared)


def corrected(problem: Problem, z: Mapping[str, Tree]) -> HybridSimulator:
    """The answer of a correction problem as a simulator of its own, with the weights ``z["parameters"]["correction"]``.

    It can be rolled out, controlled and inferred with like any other.

    Raises:
        UsageError: for weights of another network, or something that is no answer of a correction problem.
    """
    hybrid = hybrid_of(problem)
    network = copy.deepcopy(hybrid.network)
    own = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    given = z.get("parameters") if isinstance(z, Mapping) else None
    found = given.get("correction") if isinstance(given, Mapping) else None
    if not isinstance(found, Mapping) or {k: v.shape for k, v in found.items()} != {
        k: v.shape for k, v in own.items()
    }:
        raise UsageError(
            f"corrected(problem, z) needs an answer of {problem.name}, whose z['parameters']['correction'] has the "
            f"weights {', '.join(own)}; found {type(z).__name__}: give solution.value."
        )
    with torch.no_grad():
        for key, weight in own.items():
            weight.data = found[key].detach().clone()
    return replace(hybrid, network=network)


def without_solver(problem: Problem) -> Problem:
    """The same problem for a network alone, ``x_{k+1} = x_k + N(x_k)``: the other end of the comparison.

    The network is of the same kind; its outputs are in units of what changes in a step.
    """
    hybrid, cut = hybrid_of(problem), training_windows(problem)
    still = Still(hybrid.coarse)
    layout = hybrid.layout
    if layout is not None:
        measured = cut.of("train", 1).spread(MEASURED)
        layout = replace(layout, corrections=missed(still, layout, measured, "after"))
    return replace(problem, simulator=replace(hybrid, coarse=still, where="after", layout=layout))


def fresh_weights(problem: Problem, generator: torch.Generator) -> dict[str, Tree] | None:
    """Weights ``z`` to start from, drawn from the generator; ``None`` where the network is a module of its own."""
    hybrid = hybrid_of(problem)
    if hybrid.maker is None:
        return None
    start = problem.start()["parameters"]["correction"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        made = hybrid.maker(*channel_counts(hybrid.layout, problem.scenarios.data["initial_state"]))
    drawn = {key: weight.detach().to(start[key]) for key, weight in made.named_parameters() if key in start}
    return {"parameters": {"correction": drawn}}


def hybrid_of(problem: Problem) -> HybridSimulator:
    """The hybrid simulator of a correction problem.

    Raises:
        UsageError: for another problem.
    """
    if not isinstance(problem.simulator, HybridSimulator):
        raise UsageError(
            f"{problem.name} rolls out a {type(problem.simulator).__name__}, which has no learned correction: pose it "
            "with correction_problem(...)."
        )
    return problem.simulator


def coarse_of(problem: Problem) -> Simulator:
    """The coarse solver of a correction problem, also where the problem is that of a network alone."""
    found = hybrid_of(problem).coarse
    return found.inner if isinstance(found, Still) else found


def channel_counts(layout: Channels | None, state: Tree) -> tuple[int, int]:
    """How many channels go into a network and come out."""
    assert layout is not None  # a maker comes with a layout
    return layout.counts(state)


def missed(
    coarse: Simulator, layout: Channels, measured: Mapping[str, Tree], where: str
) -> tuple[float, ...]:
    """The size of what a solver misses in one step, for each part; as a rate for forces and sources."""
    own = {name: value for name, value in measured.items() if name in coarse.parameters}
    with torch.no_grad():
        after = rollout(coarse, measured["initial_state"], length=1, parameters=own, scenario=measured).states
    truth = measured["reference"]
    wrong = tree.map(lambda x, r: x[1] - r[:, 1], parts_of(after, truth), truth)
    rate = coarse.dt if where in ("force", "source") else 1.0
    return tuple(size / rate for size in sizes_of(layout.leaves(wrong)))
