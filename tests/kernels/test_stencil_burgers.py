"""Compiled loops for Burgers' equation equal the eager step: every boundary, dtype, layout and number of threads."""

import sys

import pytest
import torch
from kernel_cases import compare_with_eager

from dpcontrol.engine import rollout
from dpcontrol.kernels import native
from dpcontrol.sim import FiniteVolumeBurgers, SemiLagrangianBurgers, Substeps

pytest.importorskip("numba")
F64, F32 = torch.float64, torch.float32
TOLERANCE = {F64: 1e-11, F32: 2e-4}


def random(*shape, dtype=F64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64).to(dtype)


def smooth(scenarios, cells, dtype=F64):
    x = (torch.arange(cells, dtype=F64) + 0.5) / cells
    waves = torch.sin(2 * torch.pi * x) + 0.3 * torch.cos(4 * torch.pi * x)
    return (torch.linspace(0.3, 0.9, scenarios, dtype=F64)[:, None] * waves).to(dtype)


def finite_volume(scenarios=1, viscosity="shared", boundary="periodic", dtype=F64, **options):
    nu = 0.01 if viscosity == "shared" else torch.linspace(0.0, 0.02, scenarios, dtype=dtype)
    sides = {
        "periodic": "periodic",
        "shared": (0.4, -0.3),
        "each": (
            torch.linspace(-0.4, 0.4, scenarios, dtype=dtype),
            torch.linspace(0.5, -0.5, scenarios, dtype=dtype),
        ),
    }[boundary]
    return FiniteVolumeBurgers(0.004, nu, boundary=sides, **options)


def semi_lagrangian(scenarios=1, viscosity="shared", boundary="zero", dtype=F64, **options):
    nu = 0.003 if viscosity == "shared" else torch.linspace(0.0, 0.006, scenarios, dtype=dtype)
    return SemiLagrangianBurgers(0.03, nu, boundary=boundary, **options)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("viscosity", ["shared", "each"])
@pytest.mark.parametrize("boundary", ["periodic", "shared", "each"])
@pytest.mark.parametrize(
    "scenarios", [1, 11, 18, 22]
)  # groups of vectors, and a rest: in one of its own, or alone
def test_finite_volumes_equal_the_eager_step(scenarios, boundary, viscosity, dtype):
    simulator = finite_volume(scenarios, viscosity, boundary, dtype)
    state, controls = smooth(scenarios, 20, dtype), 0.3 * random(3, scenarios, 20, dtype=dtype)
    compare_with_eager(simulator, state, controls, steps=3, tolerance=TOLERANCE[dtype], second=scenarios == 1)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("viscosity", ["shared", "each"])
@pytest.mark.parametrize("boundary", ["zero", "periodic"])
@pytest.mark.parametrize("speed", [0.7, 30.0])  # traced back by a cell, and beyond the ends, twice around
def test_semi_lagrangian_steps_equal_the_eager_one(speed, boundary, viscosity, dtype):
    simulator = semi_lagrangian(3, viscosity, boundary, dtype)
    steps = 2 if speed > 1 else 4
    state, controls = speed * smooth(3, 16, dtype), 0.3 * random(steps, 3, 16, dtype=dtype)
    compare_with_eager(simulator, state, controls, steps=steps, tolerance=TOLERANCE[dtype] * speed)


CASES = {"finite volumes": finite_volume, "semi-Lagrangian": semi_lagrangian}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_substeps_go_into_the_loops_and_are_run_again_on_the_way_back(make):
    state, controls = smooth(2, 12), random(3, 2, 12)
    simulator = Substeps(Substeps(make(), 2), 3)
    kernel = simulator.kernel(
        state, controls[0], None, simulator.prepare({"viscosity": torch.tensor(0.003, dtype=F64)}, {})
    )
    assert kernel.substeps == 6
    compare_with_eager(simulator, state, controls, steps=3, tolerance=1e-11, second=False)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_runs_without_control_and_cotangents_of_some_states_only(make):
    compare_with_eager(make(), smooth(2, 12), None, steps=4, tolerance=1e-11)
    found = []
    for fused in (True, False):
        start = smooth(2, 12).requires_grad_()
        states = rollout(make(fused=fused), start, length=5).states
        found.append(torch.autograd.grad(states[2, :, 3].sum() + states[4].square().sum(), start)[0])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_any_layout_in_memory(make):
    controls = random(3, 4, 12)
    layouts = {
        "transposed": controls.transpose(0, 1).contiguous().transpose(0, 1),
        "every other": torch.stack([controls, controls], -1).flatten(-2)[..., ::2],
        "reversed axes": controls.permute(2, 1, 0).contiguous().permute(2, 1, 0),
    }
    state = smooth(4, 12)
    wanted = rollout(make(fused=False), state, controls).states
    for given in layouts.values():
        assert not given.is_contiguous()
        torch.testing.assert_close(rollout(make(), state, given).states, wanted, rtol=1e-12, atol=1e-13)
    held = controls[0, 0].expand(3, 4, 12)
    found = []
    for fused in (True, False):
        force, start = held.clone().requires_grad_(), state.t().contiguous().t().requires_grad_()
        states = rollout(make(fused=fused), start, force[:1].expand(3, 4, 12)).states
        weights = random(4, 12, 4).permute(0, 2, 1)  # cotangents that are not contiguous
        found.append(torch.autograd.grad(states, (force, start), weights))
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_the_number_of_threads_changes_no_bit(make, monkeypatch):
    monkeypatch.setattr(native, "WORTH_A_THREAD", 1)
    state, controls = smooth(21, 12), random(3, 21, 12)
    found, threads = [], torch.get_num_threads()
    for count in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        viscosity = torch.tensor(0.003, dtype=F64, requires_grad=True)
        force = controls.clone().requires_grad_()
        states = rollout(make(), state, force, parameters={"viscosity": viscosity}).states
        found.append((states, *torch.autograd.grad(states.square().sum(), (force, viscosity))))
    monkeypatch.undo()
    assert torch.get_num_threads() == threads
    for one in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(one, found[0], strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_what_is_not_finite_stays_so_in_its_scenario(make, value):
    state, controls = smooth(9, 12), random(3, 9, 12)
    controls[0, 4, 5] = value
    for boundary in ("periodic", "shared" if make is finite_volume else "zero"):
        fast, eager = (
            rollout(make(boundary=boundary, fused=fused), state, controls).states for fused in (True, False)
        )
        others = [s for s in range(9) if s != 4]
        torch.testing.assert_close(fast[:, others], eager[:, others], rtol=1e-12, atol=1e-13)
        broken = ~torch.isfinite(eager[1:, 4])
        assert broken.flatten(1).any(1).all()
        assert (~torch.isfinite(fast[1:, 4]))[broken].all()


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_where_there_is_no_kernel(make, monkeypatch):
    state, simulator = smooth(2, 12), make()
    nu = simulator.prepare({"viscosity": torch.tensor(0.003, dtype=F64)}, {})
    assert simulator.kernel(state, state, None, nu) is not None
    assert make(fused=False).kernel(state, state, None, nu) is None
    assert simulator.kernel(state, state.float(), None, nu) is None  # the eager step promotes
    assert simulator.kernel(state, state[:1], None, nu) is None  # and broadcasts, or refuses
    assert simulator.kernel(state.to("meta"), None, None, nu) is None
    monkeypatch.setitem(sys.modules, "numba", None)  # as if it were not installed
    assert simulator.kernel(state, state, None, nu) is None
    assert rollout(simulator, state, length=2).states.isfinite().all()


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_no_scenarios_at_all(make):
    force = torch.zeros(3, 0, 12, dtype=F64, requires_grad=True)
    states = rollout(make(), torch.zeros(0, 12, dtype=F64), force).states
    assert states.shape == (4, 0, 12)
    assert torch.autograd.grad(states.sum(), force)[0].shape == (3, 0, 12)


def test_importing_the_package_imports_no_numba():
    import subprocess

    code = "import sys, dpcontrol, dpcontrol.sim, dpcontrol.kernels; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
