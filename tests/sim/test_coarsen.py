"""From fine grids to coarse ones: what flows through a face stays; fine flows are a reference for a coarser one."""

import pytest
import torch

from dpcontrol import tree
from dpcontrol.engine import rollout
from dpcontrol.nets import ConvNet
from dpcontrol.problem import correction_problem, evaluate, simulated_reference, without_solver
from dpcontrol.results import UsageError
from dpcontrol.sim import Coarsen, Disc, Grid, IncompressibleFlow, Inflow, NoSlip, Outflow, padding

F64 = torch.float64
SIDES = {
    "walls": (("no_slip", "no_slip"), ("no_slip", "no_slip")),
    "channel": ((Inflow(1.0), Outflow()), ("free_slip", "free_slip")),
    "open": ((Outflow(), Outflow()), ("no_slip", Outflow())),
    "round": ("periodic", ("no_slip", "no_slip")),
}


def fields(grid, seed=0):
    generator = torch.Generator().manual_seed(seed)
    faces = {
        f"velocity_{axis}": torch.randn(2, *grid.faces(i), generator=generator, dtype=F64)
        for i, axis in enumerate(grid.axes)
    }
    return {**faces, "marker": torch.randn(2, *grid.cells, generator=generator, dtype=F64)}


def outflow(grid, state):
    """Divergence of the free faces, ``(scenarios, *cells)``: fixed faces carry nothing here."""
    total = 0
    for axis, name in enumerate(grid.axes):
        n, field = grid.cells[axis], state[f"velocity_{name}"]
        first, behind = grid.free(axis)
        whole = torch.zeros(*field.shape[: axis + 1], n + 1, *field.shape[axis + 2 :], dtype=field.dtype)
        whole.narrow(axis + 1, first, behind - first).copy_(field)
        if grid.periodic(axis):
            whole.select(axis + 1, n).copy_(whole.select(axis + 1, 0))
        total = total + whole.diff(dim=axis + 1) / grid.spacing[axis]
    return total


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("name", SIDES)
def test_the_divergence_of_a_coarse_velocity_is_the_mean_of_the_fine_one(name, factor):
    coarse = Grid((4, 3), (2.0, 1.5), SIDES[name])
    down = Coarsen(coarse, factor)
    fine = fields(down.fine)
    found = down(fine)
    assert {key: tuple(value.shape[1:]) for key, value in found.items()} == {
        "velocity_x": coarse.faces(0), "velocity_y": coarse.faces(1), "marker": coarse.cells
    }  # fmt: skip
    wanted = outflow(down.fine, fine).reshape(2, 4, factor, 3, factor).mean((2, 4))
    torch.testing.assert_close(outflow(coarse, found), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(found["marker"], fine["marker"].reshape(2, 4, factor, 3, factor).mean((2, 4)))
    assert torch.equal(down(fine["marker"]), found["marker"])


def test_what_does_not_fit_is_refused():
    down = Coarsen(Grid((4, 3)), 2)
    with pytest.raises(UsageError, match=r"has the shape \(scenarios, 8, 6\); found \(1, 4, 3\)"):
        down(torch.zeros(1, 4, 3))
    with pytest.raises(UsageError, match="whole number, at least 1; found 0.5"):
        Coarsen(Grid((4, 3)), 0.5)


@pytest.mark.parametrize("bodies", [(), (Disc((1.5, 1.5), 0.5),)])
def test_a_coarse_flow_is_corrected_towards_a_finer_one(bodies, tmp_path, monkeypatch):
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path))
    sides = (Inflow(1.0), Outflow()), (NoSlip(), NoSlip())
    grid, viscosity = Grid((16, 12), (4.0, 3.0), sides), torch.linspace(0.03, 0.08, 4, dtype=F64)
    down = Coarsen(grid, 2)
    fine = IncompressibleFlow(down.fine, 0.01, 0.05, bodies)
    still = {"velocity_x": torch.ones(4, *down.fine.faces(0), dtype=F64)}

    def seen(state):  # without the forces on the body, which a coarse flow carries as well
        return down({name: state[name] for name in ("velocity_x", "velocity_y")})

    reference = simulated_reference(
        fine, initial_state=still, steps=6, every=2, downsample=seen, parameters={"viscosity": viscosity}
    )
    problem = correction_problem(
        IncompressibleFlow(grid, 0.02, 0.05, bodies),
        reference=reference,
        network=lambda i, o: ConvNet(i, o, dimensions=2, width=4, depth=1, kernel=3, padding=padding(grid)),
        inputs=("viscosity",),
        unroll=2,
    )
    assert problem.simulator.layout.parts == ("velocity_x", "velocity_y")
    zero = tree.map(torch.zeros_like, problem.start())
    assert problem.metrics(zero)["error_ratio"] == pytest.approx(1.0, rel=1e-9)
    z = tree.map(lambda leaf: leaf.requires_grad_(), problem.start())
    slopes = torch.autograd.grad(problem.loss(z).mean(), tree.leaves(z))
    assert all(bool(torch.isfinite(slope).all()) for slope in slopes)
    assert any(bool(slope.abs().max() > 0) for slope in slopes)
    found = evaluate(problem, problem.start(), steps=8)
    assert len(found.spectrum) == 6 and bool(found.stable.all())
    alone = without_solver(problem)
    assert float(alone.loss(zero).mean()) > float(problem.loss(zero).mean())
    end = rollout(fine, still, length=12, parameters={"viscosity": viscosity}).states
    last = seen(tree.map(lambda leaf: leaf[-1], end))
    torch.testing.assert_close(reference.states["velocity_x"][-1], last["velocity_x"], rtol=1e-9, atol=1e-11)
