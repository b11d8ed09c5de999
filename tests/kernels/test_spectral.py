"""Spectral kernels equal the eager steps: every system, scheme, dealiasing, parity of sizes, precision and control."""

import math

import pytest
import torch
from kernel_cases import compare_with_eager
from taylor import taylor_rates

from dpcontrol import tree
from dpcontrol.engine import rollout
from dpcontrol.kernels import ExponentialKernel, HalfSpectrum, Wanted
from dpcontrol.sim import ETDRK2, ETDRK4, GrayScott, KuramotoSivashinsky, SpectralBurgers, VorticityFlow

F64 = torch.float64
SCHEMES = pytest.mark.parametrize("scheme", [ETDRK2, ETDRK4], ids=lambda scheme: scheme.name)
KEPT = pytest.mark.parametrize("dealiasing", [2 / 3, 0.9, 1.0])


def random(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def compare(simulator, shape, *, steps=4, size=1.0, control=0.3, dtype=F64, offset=0.0):
    """Kernel and eager step on random data, which need not be in the kept modes."""
    state = offset + size * random(*shape, dtype=dtype)
    controls = None if control is None else control * random(steps, *shape, seed=1, dtype=dtype)
    tolerance = 1e-11 if dtype == F64 else 1e-4
    compare_with_eager(simulator, state, controls, steps=steps, tolerance=tolerance, second=dtype == F64)


@SCHEMES
@KEPT
@pytest.mark.parametrize("cells", [16, 15])
@pytest.mark.parametrize("build", [SpectralBurgers, KuramotoSivashinsky])
def test_rows(build, cells, dealiasing, scheme):
    simulator = build(0.02, cells, 5.0, 0.3, scheme, dealiasing)
    compare(simulator, (3, cells))


@pytest.mark.parametrize("control", [None, 0.3])
@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("build", [SpectralBurgers, KuramotoSivashinsky])
def test_rows_of_different_viscosity(build, dtype, control):
    nu = torch.tensor([0.2, 0.3, 0.5], dtype=dtype)
    compare(build(0.02, 16, 5.0, nu), (3, 16), control=control, dtype=dtype)


@SCHEMES
@KEPT
@pytest.mark.parametrize("shape", [(8, 10), (9, 7)])
def test_vorticity(shape, dealiasing, scheme):
    simulator = VorticityFlow(
        0.02, shape, 0.05, 0.1, 0.7, stirring_mode=2, scheme=scheme, dealiasing=dealiasing
    )
    compare(simulator, (2, *shape))


@pytest.mark.parametrize("control", [None, 0.3])
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_vorticity_of_different_parameters(dtype, control):
    def pair(a, b):
        return torch.tensor([a, b], dtype=dtype)

    simulator = VorticityFlow(0.02, (8, 8), pair(0.02, 0.1), pair(0.0, 0.2), pair(0.5, 1.0), stirring_mode=1)
    compare(simulator, (2, 8, 8), control=control, dtype=dtype)


@SCHEMES
@KEPT
@pytest.mark.parametrize("shape", [(12,), (8, 7), (4, 6, 5)])
def test_gray_scott(shape, dealiasing, scheme):
    simulator = GrayScott(
        0.5, shape, diffusivity_a=2e-3, diffusivity_b=1e-3, scheme=scheme, dealiasing=dealiasing
    )
    compare(simulator, (2, 2, *shape), size=0.1, control=0.01, offset=0.5)


@pytest.mark.parametrize("control", [None, 0.01])
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_gray_scott_of_different_parameters(dtype, control):
    feed = torch.tensor([0.03, 0.05], dtype=dtype)
    simulator = GrayScott(0.5, (6, 8), feed, diffusivity_a=torch.tensor([1e-3, 2e-3], dtype=dtype))
    compare(simulator, (2, 2, 6, 8), size=0.1, control=control, offset=0.5, dtype=dtype)


@pytest.mark.parametrize(
    ("simulator", "shape"),
    [
        (SpectralBurgers(0.02, 24, viscosity=0.02), (24,)),
        (KuramotoSivashinsky(0.05, 24, 22.0), (24,)),
        (VorticityFlow(0.05, (12, 12), 0.02, stirring=1.0), (12, 12)),
    ],
    ids=["burgers", "ks", "vorticity"],
)
def test_taylor_in_viscosity_and_start_through_the_kernel(simulator, shape):
    """The gradient goes on from the tables to the parameter; many steps, so that it passes through several chunks."""
    state = simulator.start(0.5 * random(2, *shape), {})
    nu = simulator.viscosity * torch.tensor([0.9, 1.2], dtype=F64)

    def loss(z):
        found = rollout(simulator, z["state"], length=8, parameters={"viscosity": z["viscosity"]})
        return found.states.pow(3).sum()

    rates = taylor_rates(
        loss, {"state": state, "viscosity": nu}, {"state": 0.1 * state, "viscosity": 0.3 * nu}, largest=0.03
    )
    assert min(rates) > 1.85 and max(rates) < 2.15, rates


def test_chunks_of_the_way_back_do_not_show(monkeypatch):
    simulator, control = VorticityFlow(0.02, (8, 8), 0.05, stirring_mode=1), 0.3 * random(7, 2, 8, 8)
    found = []
    for size in (2**18, 256):
        monkeypatch.setattr("dpcontrol.kernels.spectral.CHUNK", size)
        nu = torch.tensor(0.05, dtype=F64, requires_grad=True)
        u, x = control.clone().requires_grad_(), random(2, 8, 8, seed=2).requires_grad_()
        loss = rollout(simulator, x, u, parameters={"viscosity": nu}).states.pow(3).sum()
        found.append(torch.autograd.grad(loss, (x, u, nu)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "columns"), [((9,), 5), ((8,), 5), ((8,), 3), ((6, 8), 5), ((5, 7), 3), ((4, 5, 6), 2)]
)
def test_the_adjoint_of_a_transform_is_the_other_one(shape, columns):
    transforms = HalfSpectrum(shape, columns)
    field, cotangent = random(*shape), random(*shape, seed=1)
    spectrum = transforms.forward(field).requires_grad_()
    (found,) = torch.autograd.grad((transforms.inverse(spectrum) * cotangent).sum(), spectrum)
    torch.testing.assert_close(found, transforms.weights(spectrum) * transforms.forward(cotangent))
    assert math.prod(shape) * float(transforms.weights(spectrum)[0]) == pytest.approx(1)


LOOPS = [
    (KuramotoSivashinsky(0.05, 20, 22.0, torch.tensor([0.9, 1.0, 1.1], dtype=F64)), (20,)),
    (SpectralBurgers(0.01, 36, viscosity=0.02, scheme=ETDRK2, dealiasing=1.0), (36,)),
    (VorticityFlow(0.02, (15, 20), 0.02, stirring=0.5, scheme=ETDRK4), (15, 20)),
    (VorticityFlow(0.02, (6, 16), 0.02, dealiasing=1.0), (6, 16)),
]


@pytest.mark.parametrize(("simulator", "shape"), LOOPS, ids=["ks", "burgers", "vorticity", "aliased"])
def test_compiled_loops_equal_the_transforms_of_torch(simulator, shape, monkeypatch):
    """Radices 2 to 5; eleven scenarios, which makes a whole group and a smaller one."""
    pytest.importorskip("numba")
    count = 3 if isinstance(simulator.viscosity, torch.Tensor) else 11
    state, control = random(count, *shape), 0.3 * random(5, count, *shape, seed=1)
    coefficients = simulator.prepare(
        {name: torch.as_tensor(value, dtype=F64) for name, value in simulator.parameters.items()}, {}
    )
    found = []
    for loops in (True, False):
        if not loops:
            monkeypatch.setattr("dpcontrol.sim.quadratic_flux.can_run", lambda *data: False)
            monkeypatch.setattr("dpcontrol.sim.vorticity.can_run", lambda *data: False)
        kernel = simulator.kernel(state, control[0], None, coefficients)
        assert isinstance(kernel, ExponentialKernel) is not loops
        states = kernel.run(state, (control, None), coefficients, 5, 0)
        back = kernel.pull(state, states, (control, None), coefficients, states.sin(), Wanted(True, True), 0)
        tables = tree.leaves([back.coefficients["scheme"], back.coefficients["force"]])
        found.append([states, back.state, back.inputs[0], *tables])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("simulator", "shape"),
    [
        (SpectralBurgers(0.02, 16, viscosity=torch.tensor([0.1, 0.2])), (16,)),
        (VorticityFlow(0.02, (8, 8), stirring=torch.tensor([0.1, 0.2]), stirring_mode=1), (8, 8)),
    ],
    ids=["burgers", "vorticity"],
)
def test_parameters_of_another_number_of_scenarios_are_refused(simulator, shape):
    with pytest.raises(RuntimeError, match="must match"):
        rollout(simulator, torch.zeros(3, *shape), length=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("simulator", "shape"),
    [
        (KuramotoSivashinsky(0.05, 20, 22.0), (20,)),
        (VorticityFlow(0.02, (12, 16), 0.02, stirring=0.5), (12, 16)),
        (GrayScott(0.5, (8, 8)), (2, 8, 8)),
    ],
    ids=["ks", "vorticity", "gray_scott"],
)
def test_a_gpu_gives_the_same(simulator, shape):
    found = []
    for device in ("cpu", "cuda"):
        state = random(3, *shape).to(device).requires_grad_()
        control = (0.1 * random(5, 3, *shape, seed=1)).to(device).requires_grad_()
        states = rollout(simulator, state, control).states
        found.append(
            [part.cpu() for part in (states, *torch.autograd.grad(states.sin().sum(), (state, control)))]
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
