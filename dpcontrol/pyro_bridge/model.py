"""A problem as an ordinary Pyro model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.candidates import each, vectorises
from dpcontrol.problem.noise import EXPERIMENT_SCALES
from dpcontrol.problem.predicting import draw_prior, measurements, misfits, predictions
from dpcontrol.problem.sites import from_sites, site_of, sites
from dpcontrol.pyro_bridge.plates import failures, filled, without_gradient
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

OWN_SITES = ("ran", "failed", "data", "prediction")


def pyro_model(problem: Problem, *, impossible: float = -math.inf) -> Callable[..., dict[str, Tensor]]:
    r"""A problem with a prior as an ordinary Pyro model: ``p(data, sites) = p(data | sites) p(sites)``.

    =========================  ======================================================================================
    site                       what it is
    =========================  ======================================================================================
    ``viscosity``, ...         the names that the user gave the priors, in natural numbers and with their own shapes:
                               parameters, ``initial_state`` (``initial_state.PART``), ``noise``, scales of the noise
                               model; one event each, so no axis is a plate
    ``ran``                    a factor: log-density 0, or ``impossible`` where the simulator failed
    ``failed``                 deterministic: 1 where it failed, 0 elsewhere
    ``prediction``             deterministic: what would be measured without noise, ``(rows, scenarios, measurements)``
    ``data``                   observed: the measurements, the same shape; NaN entries were not measured and count for
                               nothing
    =========================  ======================================================================================

    With several observations the last two are ``prediction_0``, ``data_0``, ``prediction_1`` and so on. The model
    takes one argument: ``model(measured=False)`` draws the data instead of observing them, for ``Predictive`` and
    simulated data. It returns the predictions.

    Everything of Pyro's works on it: ``pyro.condition``, ``do``, outer plates, ``vectorize_particles=True``,
    ``Predictive(parallel=True)``, autoguides, SVI, NUTS (their axes are run as one batch where the simulator's steps
    allow it). Numbers have the dtype of the initial state, whatever the priors were made of.

    >>> import torch
    >>> from pyro.infer import MCMC, NUTS
    >>> from dpcontrol import Gaussian, inference_problem, observe, pyro_model
    >>> def decay(x, u, *, parameters):
    ...     return x - 0.1 * parameters["rate"] * x
    >>> problem = inference_problem(
    ...     decay,
    ...     prior={"rate": torch.distributions.LogNormal(0.0, 0.5)},
    ...     data=torch.tensor([[1.0], [0.9], [0.8]]),
    ...     observation=observe(noise=Gaussian(0.1)),
    ...     initial_state=torch.ones(1, 1),
    ...     horizon=2,
    ... )
    >>> chains = MCMC(NUTS(pyro_model(problem)), num_samples=20, warmup_steps=20, disable_progbar=True)
    >>> chains.run()
    >>> chains.get_samples()["rate"].shape
    torch.Size([20])

    Args:
        problem: made by :func:`~dpcontrol.problem.inference.inference_problem` with a prior.
        impossible: log-density where the simulator fails. Nothing is raised there, so a chain lives. A bound that is
            maximised (SVI) would be ``-inf`` with the default and wants a finite number, ``-1e4`` say; the gradient of
            such draws is zero.

    Raises:
        UsageError: without a prior or measurements, or where a site would have a name that the model uses itself.
    """
    import pyro

    from dpcontrol.pyro_bridge.densities import Measured

    setup = _setup(problem)

    def model(measured: bool = True) -> dict[str, Tensor]:
        values = {name: pyro.sample(name, density) for name, density in setup.densities.items()}
        batch = torch.broadcast_shapes(
            *(value.shape[: value.ndim - setup.axes[name]] for name, value in values.items())
        )
        found, failed = _run(setup, values, Size(batch))
        pyro.factor("ran", torch.where(failed, impossible, 0.0).to(setup.like.dtype))
        pyro.deterministic("failed", failed.to(setup.like.dtype), event_dim=0)
        scales = {name: _in_front(values[name], setup.axes[name]) for name in setup.scales}
        for k, (prediction, data) in enumerate(zip(found, setup.data, strict=True)):
            suffix = f"_{k}" if len(found) > 1 else ""
            pyro.deterministic(f"prediction{suffix}", prediction, event_dim=3)
            density = Measured(misfits(problem)[k].noise, prediction, scales, ~torch.isnan(data))
            pyro.sample(f"data{suffix}", density, obs=data if measured else None)
        return {f"prediction_{k}" if len(found) > 1 else "prediction": one for k, one in enumerate(found)}

    return model


@dataclass(frozen=True)
class Setup:
    """What does not change between runs of a model.

    ``densities`` are Pyro's, by site; ``axes`` the number of axes of each site's own; ``scales`` the sites of the noise
    model; ``data`` ``(rows, scenarios, measurements)``; ``template`` any ``z`` as sites.
    """

    problem: Problem
    densities: Mapping[str, Any]
    axes: Mapping[str, int]
    scales: tuple[str, ...]
    data: list[Tensor]
    template: Mapping[str, Tree]
    like: Tensor
    batched: bool


def _setup(problem: Problem) -> Setup:
    from dpcontrol.pyro_bridge.densities import as_pyro

    if not isinstance(problem, Problem):
        raise UsageError(f"pyro_model needs a Problem; found {type(problem).__name__}: pose one first.")
    belief, data = problem.belief, measurements(problem)
    template = sites(problem.start())
    like = tree.leaves(dict(template))[0]
    own = {*OWN_SITES, *(f"{name}_{k}" for k in range(len(data)) for name in ("data", "prediction"))}
    taken = sorted(own & set(template))
    if taken:
        raise UsageError(
            f"a prior of {problem.name} is called {taken[0]}, which is a site of the Pyro model itself: call it "
            "something else."
        )
    densities = {}
    for key, density in belief.densities.items():
        name = site_of(key)
        whole = template[name]
        lead = whole.shape[: whole.ndim - len(density.batch_shape) - len(density.event_shape)]
        densities[name] = as_pyro(density, Size(lead), like)
    axes = {name: template[name].ndim for name in densities}
    scales = tuple(
        site_of(key)
        for key in belief.densities
        if key.partition(".")[0] in ("observation", EXPERIMENT_SCALES)
    )
    setup = Setup(problem, densities, axes, scales, data, template, like, batched=False)
    generator = torch.Generator().manual_seed(0)
    pair = [tree.ravel(sites(draw_prior(problem, generator))) for _ in range(2)]
    batched = vectorises(lambda row: _predicted(setup, row), torch.stack(pair))
    return Setup(problem, densities, axes, scales, data, template, like, batched)


def _predicted(setup: Setup, row: Tensor) -> Tensor:
    """All predictions of one draw, flat."""
    values = tree.unravel(row, dict(setup.template))
    z = from_sites(values, setup.problem.start())
    return torch.cat([part.reshape(-1) for part in predictions(setup.problem, z)])


def _run(setup: Setup, values: Mapping[str, Tensor], batch: Size) -> tuple[list[Tensor], Tensor]:
    """Predictions ``(*batch, rows, scenarios, measurements)``, ones where the run failed, and which ones did."""
    count = math.prod(batch)
    columns = []
    for name in setup.template:
        value = values[name].to(setup.like)
        own = value.shape[value.ndim - setup.axes[name] :]
        columns.append(value.expand(batch + own).reshape(count, -1))
    rows = torch.cat(columns, 1)
    sizes = [data.numel() for data in setup.data]
    nothing = torch.full((sum(sizes),), math.nan, dtype=rows.dtype, device=rows.device)
    flat = each(
        lambda row: _predicted(setup, row), rows, batched=setup.batched, failed=lambda row, error: nothing
    )
    there = torch.cat([~torch.isnan(data).reshape(-1) for data in setup.data])
    failed = failures(flat[:, there], 1)
    without_gradient([rows], failed)
    flat = filled(flat, failed)
    parts = zip(flat.split(sizes, 1), setup.data, strict=True)
    return [part.reshape(batch + data.shape) for part, data in parts], failed.reshape(batch)


def _in_front(scale: Tensor, own: int) -> Tensor:
    """A scale ``(*batch, *own)`` whose batch stands in front of the three axes of a prediction."""
    lead = scale.shape[: scale.ndim - own]
    return scale.reshape(lead + (1,) * (3 - own) + scale.shape[scale.ndim - own :])
