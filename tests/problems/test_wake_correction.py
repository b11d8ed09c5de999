"""wake_correction: what the solvers do to a flow, what the network sees, a short training that helps."""

import pytest
import torch
from dpcontrol.problems import wake_correction as file

from dpcontrol.meter import Budget
from dpcontrol.problem import UsageError, evaluate, training_scenarios
from dpcontrol.problem.hybrids import hybrid_of, training_windows
from dpcontrol.sim import Coarsen, divergence
from dpcontrol.sim.flow_operators import carried
from dpcontrol.sim.flow_sides import side_rules
from dpcontrol.sim.staggered import semi_lagrangian
from dpcontrol.solving import solve


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPCONTROL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield file.problem(size="small")


def reference_of(problem):
    return training_windows(problem).reference


def greatest_divergence(states, grid):
    solver = file.flow("small", grid.cells[0] // file.CELLS["small"][0])
    fields = solver.fields(states)
    return float(divergence([fields["velocity_x"], fields["velocity_y"]]).values.abs().max())


def test_the_reference_keeps_its_volume_also_on_the_coarse_grid(problem):
    states = {name: leaf[-1] for name, leaf in reference_of(problem).states.items()}
    assert greatest_divergence(states, file.grid("small")) < 1e-5
    origin = {name: reference_of(problem).origin[name] for name in file.VELOCITY}
    assert greatest_divergence(origin, file.grid("small", 2)) < 1e-5
    assert all(leaf.dtype == torch.float32 for leaf in states.values())


def test_what_trains_validates_and_tests_are_other_reynolds_numbers(problem):
    reference = reference_of(problem)
    found = reference.parameters["log_reynolds"].exp()
    for part, values in file.REYNOLDS["small"].items():
        torch.testing.assert_close(found[list(reference.split[part])], torch.tensor(values))
    torch.testing.assert_close(2 * file.RADIUS["small"] / reference.parameters["viscosity"], found)
    for size in ("full", "small"):
        parts = file.REYNOLDS[size]
        every = [value for row in parts.values() for value in row]
        assert len(set(every)) == len(every)
        assert all(min(parts["train"]) < value < max(parts["train"]) for value in parts["test"])
        assert all(not min(every) <= value <= max(every) for value in file.BEYOND[size])


def test_refinement_is_exact_for_linear_fields_and_keeps_the_flow_through_coarse_faces():
    coarse, fine = file.grid("small", 1), file.grid("small", 2)

    def linear(grid, component):
        x, y = (grid.places(component, axis) for axis in (0, 1))
        return (1 + 0.003 * x[:, None] - 0.002 * y)[None]

    found = file.refined({name: linear(coarse, axis) for axis, name in enumerate(file.VELOCITY)})
    for axis, name in enumerate(file.VELOCITY):
        error = found[name] - linear(fine, axis)
        assert float(error[:, 2:-2, 2:-2].abs().max()) < 1e-12
    drawn = torch.Generator().manual_seed(0)
    rough = {
        name: torch.randn(2, *coarse.faces(axis), generator=drawn) for axis, name in enumerate(file.VELOCITY)
    }
    through = Coarsen(coarse, 2)(file.refined(rough))
    # a quarter of the flow through each neighbour comes in, an eighth from either side
    inner = rough["velocity_x"][:, :, 1:-1]
    smooth = 0.75 * inner + 0.125 * (rough["velocity_x"][:, :, :-2] + rough["velocity_x"][:, :, 2:])
    torch.testing.assert_close(through["velocity_x"][:, :, 1:-1], smooth)


def test_semi_lagrangian_steps_smooth_as_much_as_is_said():
    """Their diffusivity along a uniform stream is h^2 c (1 - c) / (2 dt), which the correction has to take back."""
    c = file.DT / file.CELL
    assert 20 / (file.CELL**2 * c * (1 - c) / (2 * file.DT)) == pytest.approx(18.8, abs=0.1)
    solver = file.flow("small", 1, "semi_lagrangian")
    x = solver.grid.places(1, 0).float()
    wave = torch.sin(2 * torch.pi * x / 50.0)[:, None].expand(-1, solver.grid.faces(1)[1])
    state = {"velocity_x": torch.ones(1, *solver.grid.faces(0)), "velocity_y": 1e-3 * wave[None]}
    rules = side_rules(solver.grid, torch.zeros(()), {})
    after = carried((state["velocity_x"], state["velocity_y"]), rules, file.DT, solver.grid, semi_lagrangian)[
        1
    ]
    k = 2 * torch.pi / 50.0
    shifted = 1e-3 * torch.sin(k * (x - file.DT))
    kept = float((after[0, 4:-4, 8] * shifted[4:-4]).sum() / shifted[4:-4].square().sum())
    lost = (
        (1 - torch.cos(torch.tensor(k * file.CELL))) / (k * file.CELL) ** 2 * 2
    )  # of the discrete second difference
    assert 1 - kept == pytest.approx(float(k**2 * file.CELL**2 * c * (1 - c) / 2 * lost), rel=0.05)


def test_the_network_sees_where_it_is_and_is_the_same_everywhere_far_from_it():
    near = file.nearness("full")
    assert near.shape == (1, 5, 64, 32) and float(near.min()) >= 0 and float(near.max()) <= 1
    assert float(near[0, :, 45, 16].max()) < 0.01
    network = file.Sighted("full", 3, 2)
    x = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[:, :, 30:60, 6:26] = x[:, :, 26:56, 6:26]
    with torch.no_grad():
        here, there = network(x), network(moved)
    assert float((there[:, :, 46, 16] - here[:, :, 42, 16]).abs().max()) < 0.02 * float(here.abs().max())


def test_without_weights_the_hybrid_is_the_coarse_solver_to_the_bit(problem):
    nothing = {name: torch.zeros_like(leaf) for name, leaf in hybrid_of(problem).added["correction"].items()}
    found = evaluate(problem, {"parameters": {"correction": nothing}})
    assert torch.equal(found.errors, evaluate(problem).errors)


def test_a_short_training_helps_at_an_unseen_reynolds_number_and_beyond(problem):
    solution = solve(
        problem,
        "unrolled",
        budget=Budget(simulated_steps=3_000),
        optimizer="soap",
        learning_rate=3e-3,
        batch=4,
    )
    assert solution.metrics["error_ratio"] < 0.7
    outside = training_windows(problem).examination.unseen["extrapolation"]()
    kept = evaluate(problem, solution.value, reference=outside, part="all")
    alone = evaluate(problem, reference=outside, part="all")
    assert kept.error(20) < 0.9 * alone.error(20)
    assert bool(kept.stable.all())
    drawn = training_scenarios(problem, "train", steps=2, most=3)
    assert drawn.data["initial_state"]["velocity_x"].shape == (3, 32, 16)


def test_other_solvers_begin_where_the_reference_does_and_better_schemes_are_better(problem):
    found = {label: evaluate(problem, solver=each) for label, each in file.others("small").items()}
    alone = evaluate(problem)
    assert set(found) == {"mac_cormack, same grid", "central, same grid"}
    assert all(one.error(20) < alone.error(20) for one in found.values())
    assert all(float(one.errors[0].max()) < 1e-6 for one in found.values())


def test_other_sizes_are_refused():
    with pytest.raises(UsageError, match="wake_correction comes in the sizes"):
        file.problem(size="large")
