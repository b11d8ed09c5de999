"""The priors of an inference problem, sorted by what they are about, and the slots that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.noise import EXPERIMENT_SCALES
from dpcontrol.problem.observation import Observation
from dpcontrol.problem.prior import Prior, Separately, centre
from dpcontrol.problem.slots import InitialState, ObservationScale, Parameters, ProcessNoise
from dpcontrol.problem.unknown import Slot
from dpcontrol.problem.white import with_tensors
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.tree import Tree

EXPERIMENTS = "experiment_parameters"


@dataclass(frozen=True)
class Belief:
    """A density, and whether every experiment has a value of its own."""

    density: Any
    separate: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The density's own shape."""
        return (*self.density.batch_shape, *self.density.event_shape)


@dataclass(frozen=True)
class SortedPriors:
    """Made by :func:`sort_priors`; everything by the names that the user gave."""

    named: Mapping[str, Belief]
    initial: Mapping[str, Belief]
    noise: Belief | None
    scales: Mapping[str, Belief]
    start: Mapping[str, Any]

    def centre_of(self, name: str, shape: tuple[int, ...], like: Tensor | None = None) -> Tensor:
        """Where a search starts: what was given, or the centre of the prior."""
        like = torch.zeros((), dtype=torch.float64) if like is None else like
        if name in self.start:
            return self._started(name, like, shape)
        return centre(self._all()[name].density, like, shape, name)

    def _started(self, name: str, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        given = torch.as_tensor(self.start[name], dtype=like.dtype, device=like.device)
        density = self._all()[name].density
        try:
            found = given.expand(shape)
        except RuntimeError as error:
            raise UsageError(
                f"the start of {name} has shape {tuple(given.shape)}; expected one that broadcasts to {shape}."
            ) from error
        if not bool(density.support.check(found).all()):
            raise UsageError(
                f"the start of {name}, {self.start[name]}, lies outside of its prior's support: start inside."
            )
        return found

    def on(self, device: torch.device) -> SortedPriors:
        """The same with densities on a device: they follow the state."""

        def there(belief: Belief) -> Belief:
            return replace(belief, density=with_tensors(belief.density, lambda leaf: leaf.to(device)))

        groups = (
            {k: there(b) for k, b in group.items()} for group in (self.named, self.initial, self.scales)
        )
        named, initial, scales = groups
        noise = None if self.noise is None else there(self.noise)
        return replace(self, named=named, initial=initial, noise=noise, scales=scales)

    def unknown_to(self, system: Simulator, scenarios: int) -> dict[str, Tensor]:
        """Defaults of parameters that the simulator does not have: a function that makes the initial state may."""
        return {
            name: self.centre_of(name, (scenarios, *belief.shape) if belief.separate else belief.shape)
            for name, belief in self.named.items()
            if name not in system.parameters
        }

    def refuse_strangers(self, system: Simulator) -> None:
        """Refuse a prior of something that nobody knows."""
        strangers = sorted(set(self.named) - set(system.parameters))
        if strangers:
            raise UsageError(
                f"a prior was given for {', '.join(strangers)}, which is no parameter of the simulator (it has "
                f"{sorted(system.parameters)}), no unknown scale of a noise model (there is "
                f"{sorted(self.scales) or 'none'}) and neither initial_state nor noise: use one of these names."
            )
        lost = sorted(set(self.start) - set(self._all()))
        if lost:
            raise UsageError(f"start names {', '.join(lost)}, which has no prior: name what is sought.")

    def started(self, state: Tree) -> Tree:
        """The initial state ``(scenarios, ...)`` with the parts that are sought at their start."""
        if not self.initial:
            return state
        if "initial_state" in self.initial:
            if not isinstance(state, Tensor):
                raise UsageError(
                    f"the state is {tree.describe(state)}: give a prior for each part that is sought, "
                    "initial_state.PART."
                )
            return self._placed("initial_state", state)
        parts = {name: name.removeprefix("initial_state.") for name in self.initial}
        missing = sorted(set(parts.values()) - set(state if isinstance(state, Mapping) else ()))
        if missing:
            raise UsageError(f"the state has no part {', '.join(missing)}; it is {tree.describe(state)}.")
        return {**state, **{part: self._placed(name, state[part]) for name, part in parts.items()}}

    def _placed(self, name: str, leaf: Tensor) -> Tensor:
        own = self.initial[name].shape
        if tuple(leaf.shape[leaf.ndim - len(own) :]) != own or len(own) >= leaf.ndim:
            raise UsageError(
                f"the prior of {name} has shape {own}, but that of one scenario is {tuple(leaf.shape[1:])}: give a "
                "scalar density, or one of that shape."
            )
        return self.centre_of(name, tuple(leaf.shape), leaf)

    def slots(self, system: Simulator, state: Tree, values: Mapping[str, Any]) -> list[Slot]:
        """One slot for each kind of thing that is sought."""
        like = tree.leaves(state)[0]
        found: list[Slot] = []
        for separate, name in ((False, "parameters"), (True, EXPERIMENTS)):
            names = [key for key, belief in self.named.items() if belief.separate is separate]
            if names:
                start = {
                    key: self._parameter(key, {**system.parameters, **values}[key], like) for key in names
                }
                found.append(Parameters(*names, start=start, shared=not separate, name=name))
        if self.initial:
            parts = () if "initial_state" in self.initial else tuple(
                name.removeprefix("initial_state.") for name in self.initial
            )  # fmt: skip
            found.append(InitialState(parts=parts))
        if self.noise is not None:
            found.append(ProcessNoise(self.noise.shape or tuple(like.shape[1:])))
        if self.scales:
            for separate, slot in ((False, "observation"), (True, EXPERIMENT_SCALES)):
                names = [name for name, belief in self.scales.items() if belief.separate is separate]
                if names:
                    scales = {name: self._scale(name, like) for name in names}
                    found.append(ObservationScale(scales, shared=not separate, name=slot))
        return found

    def _scale(self, name: str, like: Tensor) -> Tensor:
        belief = self.scales[name]
        # a scale meets measurements (scenarios, entries)
        shape = (len(like), *(belief.shape or (1,))) if belief.separate else belief.shape
        return self.centre_of(name, shape, like)

    def _parameter(self, name: str, default: Any, like: Tensor) -> Tensor:
        belief = self.named[name]
        own = belief.shape or (() if belief.separate else tuple(torch.as_tensor(default).shape))
        shape = (len(like), *own) if belief.separate else own
        return self.centre_of(name, shape, like)

    def belief(self) -> Prior:
        """The densities by where their numbers stand in ``z``."""
        keys: dict[str, Any] = {}
        for name, belief in self.named.items():
            keys[f"{EXPERIMENTS if belief.separate else 'parameters'}.{name}"] = belief.density
        keys.update({name: belief.density for name, belief in self.initial.items()})
        if self.noise is not None:
            keys["noise"] = self.noise.density
        for name, belief in self.scales.items():
            keys[f"{EXPERIMENT_SCALES if belief.separate else 'observation'}.{name}"] = belief.density
        return Prior(keys)

    def _all(self) -> dict[str, Belief]:
        noise = {} if self.noise is None else {"noise": self.noise}
        return {**self.named, **self.initial, **noise, **self.scales}


def sort_priors(
    prior: Mapping[str, Any], start: Mapping[str, Any], observations: Sequence[Observation]
) -> SortedPriors:
    """Sort priors by what they are about.

    Raises:
        UsageError: for what is no density, an unknown scale without prior, or a missing noise model.
    """
    if not prior:
        raise UsageError(
            "prior is empty: name what is sought, prior={'viscosity': LogNormal(-4.0, 1.0)}, say."
        )
    beliefs = {name: _believed(name, density) for name, density in prior.items()}
    models = [each.noise for each in observations]
    if any(model is None for model in models):
        raise UsageError(
            "a posterior needs the density of the measurements: observe(..., noise=Gaussian(scale))."
        )
    names = {model.scale for model in models if model is not None and isinstance(model.scale, str)}
    without = sorted(names - set(beliefs))
    if without:
        raise UsageError(
            f"the noise scale {', '.join(without)} is unknown and has no prior: add prior={{{without[0]!r}: density}}."
        )
    initial = {name: b for name, b in beliefs.items() if name.split(".")[0] == "initial_state"}
    rest = {name: b for name, b in beliefs.items() if name not in {*names, *initial, "noise"}}
    scales = {name: b for name, b in beliefs.items() if name in names}
    return SortedPriors(rest, initial, beliefs.get("noise"), scales, dict(start))


def _believed(name: str, density: Any) -> Belief:
    separate = isinstance(density, Separately)
    inner = density.density if isinstance(density, Separately) else density
    if not isinstance(inner, torch.distributions.Distribution):
        raise UsageError(
            f"the prior of {name} must be a density such as torch.distributions.Normal(0.0, 1.0); found {inner!r}."
        )
    return Belief(inner, separate)
