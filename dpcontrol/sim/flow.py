"""Viscous incompressible flow on a staggered grid, between any sides and around bodies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.bodies import Bodies, Held
from dpcontrol.sim.checks import readable
from dpcontrol.sim.flow_limits import require_slow_advection, require_slow_friction
from dpcontrol.sim.flow_operators import acceleration, carried, centred_on_faces
from dpcontrol.sim.flow_pressure import freed, open_pressure_solver
from dpcontrol.sim.flow_sides import Rules, scaled, side_rules
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.located import Field
from dpcontrol.sim.located_operators import velocity_fields
from dpcontrol.sim.obstacle import Disc
from dpcontrol.sim.staggered import Faces, mac_cormack, semi_lagrangian
from dpcontrol.tree import Tree, describe

State = dict[str, Tensor]
LOOKING_BACK = {"semi_lagrangian": semi_lagrangian, "mac_cormack": mac_cormack}
SCHEMES = ("central", *LOOKING_BACK)
# Stages of explicit Runge-Kutta schemes as convex combinations of Euler steps: the share of the old state, the time
# (in steps) at which the stage ends, and how much of its forces the whole step contains.
EULER = ((0.0, 1.0, 1.0),)
STABLE_RK3 = ((0.0, 1.0, 1 / 6), (0.75, 0.5, 2 / 3), (1 / 3, 1.0, 1.0))
FACTORS = ("inflow", "walls")
ACTIONS = ("force", "rotation", "velocity", *FACTORS)


@dataclass(frozen=True)
class IncompressibleFlow(Simulator):
    r"""Incompressible Navier-Stokes in two dimensions (without bodies also in three), in primitive variables.

    .. math::
        u_t + \nabla \cdot (u u) = -\nabla p + \nu \Delta u + F, \qquad \nabla \cdot u = 0, \qquad
        u = U + \Omega \times (x - c) \text{ on each body}

    ==========  ==========================  ================================================================
    symbol      name                        unit (length ``L``, time ``T``)
    ==========  ==========================  ================================================================
    ``u``       state["velocity_x"] ...     ``L / T``, free faces, ``(scenarios, *grid.faces(axis))``
    \           state["force"]              ``L^3 / T^2``, with bodies: ``(scenarios, bodies, 2)``, the force of the
                                            fluid on each, over density and depth, mean over the last step
    ``c``       state["position"]           ``L``, with bodies that move: ``(scenarios, moving, 2)``
    ``F``       control["force"]            ``L / T^2``, ``(scenarios, axes, *cells)``, cell centres
    ``Omega``   control["rotation"]         ``1 / T``, ``(scenarios, bodies)``, anticlockwise; else that of the disc
    ``U``       control["velocity"]         ``L / T``, ``(scenarios, moving, 2)``; else that of the disc
    \           control["inflow"]           factor of all inflows, ``(scenarios,)``; so is ``"walls"`` for moving walls
    ``nu``      viscosity                   ``L^2 / T``
    ``p``                                   ``L^2 / T^2``, pressure over density
    ==========  ==========================  ================================================================

    **State**: the dict above; entries that a start leaves out are zero, positions those of the discs. **Control**: a
    dict with some of the entries above, held for a step, or one tensor, which then is the entry ``controlled``.

    **Boundary conditions**: those of the grid, ``Periodic, NoSlip(velocity), FreeSlip, Inflow(speed), Outflow``. At an
    outflow ``p = 0`` and no velocity component changes along the normal.

    **Scheme**: staggered grid, central differences in flux form, second order in space; in time the explicit
    three-stage Runge-Kutta scheme of Shu and Osher, every stage projected: measured order 3 (velocity) for a smooth
    flow, stable for about ``dt sum_a (|u_a| / h_a) < 1.7`` and ``dt nu sum_a 4 / h_a^2 < 2.5``. The projection is
    direct and exact to rounding, also around bodies. ``advection="semi_lagrangian"`` or ``"mac_cormack"``: one
    explicit Euler step instead, advection stable for any ``dt``, first order in time. These two do not conserve
    momentum, so that ``force``, what holds a body, is not what the fluid loses, and off as a drag: take ``"central"``
    for forces. Where ``|u| h / nu`` is beyond about ten, central differences leave ripples of the size of cells in
    front of bodies and of the outflow.

    **Bodies** are held by forces at points of their surfaces, found together with the pressure so that both the
    divergence and the slip at the points vanish after each stage: no parameter to tune, and no limit on ``dt``. The
    fluid continues inside of them: the force of a body that accelerates includes the inertia of what it encloses. A
    body at rest, turning or not, costs a few products with small matrices a stage; for one that moves a dense matrix of
    the size of its points is made twice in each step. Measured: second order in space (see ``obstacle.py``), third in
    time at rest, first where a body moves. Differentiable in place, size and motion; second derivatives in place and
    size jump. In a plane without periodic axes a disc has room if

    .. math:: r + 2 h_a \le c_a \le L_a - r - 2 h_a, \qquad r \ge 2 \max_a h_a,

    and bodies leave ``max h`` between any two (and around a periodic axis to their own images). Outside of these
    intervals starts are refused; in a search, or where a body moves out of them, the state of that scenario becomes
    NaN: give bounds to a place or size that is sought. The number of points is that of the constructor's radius, where
    they are 1.2 cells apart; a larger one draws them apart. The first step from a start that slips shows the impulse
    that stops it in ``force``.

    **Parameters**: ``viscosity``, ``inflow``, ``walls`` (factors); with bodies ``centre_x``, ``centre_y``, ``radius``,
    ``rotation`` of the first, ``centre_x_2`` ... of the second; each a number or ``(scenarios,)``.

    **Source**: F. H. Harlow, J. E. Welch, Phys. Fluids 8 (1965) 2182 (grid); C.-W. Shu, S. Osher, J. Comput. Phys. 77
    (1988) 439 (time); K. Taira, T. Colonius, J. Comput. Phys. 225 (2007) 2118 (bodies).

    **Good values**: a driven cavity at Reynolds number 100: ``Grid((64, 64), (1.0, 1.0), (("no_slip", "no_slip"),
    ("no_slip", NoSlip(1.0))))`` with ``dt=0.006, viscosity=0.01``.

    Args:
        grid: cells, extent and sides.
        dt: time step.
        viscosity: ``nu``, zero allowed.
        bodies: discs (or one) with room around them, see above.
        advection: ``"central"``, ``"semi_lagrangian"`` or ``"mac_cormack"``.
        inflow, walls: factors of the speeds that the sides name.
        controlled: what a control is that is one tensor.

    Raises:
        UsageError: for sides of scalars, an inflow without outflow, bodies without room or in three dimensions; at the
            start of a rollout, for a state of another shape or of integers, bodies without room, or a ``dt`` beyond the
            limit of friction, or of advection by the speeds known then; in a step, for a control of another shape or
            dtype.
    """

    grid: Grid
    dt: float
    viscosity: Value = 1e-3
    bodies: tuple[Disc, ...] = ()
    advection: str = "central"
    inflow: Value = 1.0
    walls: Value = 1.0
    controlled: str = "force"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bodies", _bodies(self.bodies))
        require_positive("dt", self.dt)
        require_positive("viscosity", self.viscosity, zero_allowed=True)
        if self.advection not in SCHEMES:
            raise UsageError(f"advection is one of {', '.join(SCHEMES)}; found {self.advection!r}.")
        if self.controlled not in ACTIONS:
            raise UsageError(f"controlled is one of {', '.join(ACTIONS)}; found {self.controlled!r}.")
        if len(self.grid.cells) < 2:
            raise UsageError(f"a flow has two or three axes; found cells={self.grid.cells}.")
        if self.bodies:
            self.immersed.require_room({})
        self._check_controlled()
        like = torch.zeros((), dtype=torch.float64)
        side_rules(self.grid, like, {})
        open_pressure_solver(self.grid, like)

    def _check_controlled(self) -> None:
        if self.controlled == "rotation" and not self.bodies:
            raise UsageError(
                'controlled="rotation" needs bodies that turn; found none: pass bodies=(Disc(...),).'
            )
        if self.controlled == "velocity" and not self.moves:
            raise UsageError(
                'controlled="velocity" needs a body that moves; found none: pass bodies=(Disc(..., moves=True),).'
            )

    @property
    def immersed(self) -> Bodies:
        """The bodies in their grid."""
        return Bodies(self.grid, self.bodies)

    @property
    def parameters(self) -> Mapping[str, Value]:
        own = {"viscosity": self.viscosity, "inflow": self.inflow, "walls": self.walls}
        return {**own, **self.immersed.parameters} if self.bodies else own

    @property
    def moves(self) -> bool:
        """Whether a body moves."""
        return any(disc.moves for disc in self.bodies)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the velocity components in the state."""
        return tuple(f"velocity_{axis}" for axis in self.grid.axes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the entries of a state, without the scenario axis."""
        found = {name: self.grid.faces(axis) for axis, name in enumerate(self.names)}
        if self.bodies:
            found["force"] = (len(self.bodies), 2)
        if self.moves:
            found["position"] = (len(self.immersed.moving), 2)
        return found

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        self._check_bodies(initial, parameters)
        stages = 1 if self.advection in LOOKING_BACK else 3
        require_slow_friction(self.dt, parameters["viscosity"], self.grid, stages)
        if self.advection == "central":
            known = {**{name: self.parameters[name] for name in FACTORS}, **parameters}
            velocity = {name: initial[name] for name in self.names if name in initial}
            require_slow_advection(self.dt, velocity, {name: known[name] for name in FACTORS}, self.grid)

    def _check_bodies(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        if not self.bodies:
            return
        position = initial.get("position") if isinstance(initial, dict) else None
        own = [value for name, value in parameters.items() if name in self.immersed.parameters]
        if readable(*own, *([] if position is None else [position])):
            self.immersed.require_room(parameters, position)

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> State:
        """The state, its shapes checked; entries that are missing are zero, positions those of the discs."""
        shapes = self.shapes
        if not isinstance(initial, dict) or not initial or not set(initial) <= set(shapes):
            raise UsageError(
                f"the state of a flow is a dict with some of {', '.join(shapes)}; found {describe(initial)}."
            )
        for name, value in initial.items():
            if tuple(value.shape[1:]) != shapes[name]:
                raise UsageError(
                    f"{name} of this flow has the shape (scenarios, {', '.join(map(str, shapes[name]))}); "
                    f"found {tuple(value.shape)}."
                )
        kinds = {value.dtype for value in initial.values()}
        if len(kinds) > 1 or not all(kind.is_floating_point for kind in kinds):
            raise UsageError(
                f"the state of a flow is floating numbers of one kind; found {describe(initial)}: convert all entries "
                "to torch.float64, say."
            )
        given = next(iter(initial.values()))
        blank = {name: given.new_zeros(len(given), *shape) for name, shape in shapes.items()}
        if self.moves:
            places = self.immersed.positions(parameters).to(given)
            blank["position"] = places.expand(len(given), -1, -1).clone()
        return {**blank, **initial}

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> dict[str, Any]:
        """Rules of the sides, tables of the pressure solver, and the surfaces of bodies at rest."""
        template = parameters["viscosity"]
        found: dict[str, Any] = {
            "viscosity": template,
            "rules": side_rules(self.grid, template, parameters),
            "solver": open_pressure_solver(self.grid, template),
        }
        if self.bodies:
            exact = open_pressure_solver(self.grid, template.new_zeros((), dtype=torch.float64))
            found["bodies"] = self.immersed.prepare(parameters, exact, template.dtype)
        return found

    def step(
        self, state: State, control: Tree, coefficients: Mapping[str, Any], noise: Tree, t: float
    ) -> State:
        """All stages of the scheme; see the class."""
        velocity: Faces = tuple(state[name] for name in self.names)
        given = self._actions(control, state)
        rules = scaled(coefficients["rules"], given)
        push = self._push(given)
        stages = EULER if self.advection in LOOKING_BACK else STABLE_RK3
        surfaces = self._held(state, given, coefficients, [time for _, time, _ in stages])
        old, impulse = velocity, None
        for (kept, _, share), held in zip(stages, surfaces, strict=True):
            velocity = self._advanced(velocity, rules, coefficients["viscosity"], push)
            if kept:
                velocity = tuple(torch.lerp(new, was, kept) for new, was in zip(velocity, old, strict=True))
            velocity, _, forces = freed(velocity, rules, self.grid, coefficients["solver"], held)
            if forces is not None:
                impulse = forces * share if impulse is None else torch.add(impulse, forces, alpha=share)
        after = dict(zip(self.names, velocity, strict=True))
        if impulse is not None:
            after["force"] = self.immersed.each(impulse, coefficients["bodies"]) * (
                -math.prod(self.grid.spacing) / self.dt
            )
        if self.moves:
            speeds = self.immersed.speeds(given.get("velocity"), velocity[0])
            after["position"] = state["position"] + self.dt * speeds
        return after

    def fields(self, state: State, parameters: Mapping[str, Value] | None = None) -> dict[str, Field]:
        """``velocity_x`` ... on all faces, those on walls and inflows too, and in the plane ``vorticity`` on corners.

        Args:
            state: at one moment, ``(scenarios, *shape)``.
            parameters: of which ``inflow`` and ``walls`` matter; by default the simulator's own.
        """
        known = {**self.parameters, **(parameters or {})}
        velocity = tuple(state[name] for name in self.names)
        return velocity_fields(velocity, self.grid, {name: known[name] for name in FACTORS})

    def pressure(
        self, state: State, control: Tree, coefficients: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The pressure ``(scenarios, *cells)`` and the forces on the bodies at this moment, from the velocity.

        Both second order away from bodies; across their surfaces the pressure jumps within about two cells.
        """
        velocity: Faces = tuple(state[name] for name in self.names)
        given = self._actions(control, state)
        rules = scaled(coefficients["rules"], given)
        rates = acceleration(velocity, rules, coefficients["viscosity"], self.grid)
        push = self._push(given)
        if push is not None:
            rates = tuple(rate + part for rate, part in zip(rates, push, strict=True))
        held = self._held(state, given, coefficients, [0.0])[0]
        still = scaled(rules, {name: torch.zeros_like(velocity[0][:, 0, 0]) for name in FACTORS})
        if held is not None:
            held = replace(held, velocity=torch.zeros_like(held.velocity))
        _, pressure, forces = freed(rates, still, self.grid, coefficients["solver"], held)
        if forces is None:
            return pressure, None
        return pressure, self.immersed.each(forces, coefficients["bodies"]) * -math.prod(self.grid.spacing)

    def _advanced(self, velocity: Faces, rules: Rules, viscosity: Tensor, push: Faces | None) -> Faces:
        """An explicit Euler step without pressure."""
        central = self.advection == "central"
        rates = acceleration(velocity, rules, viscosity, self.grid, advected=central)
        if not central:
            velocity = carried(velocity, rules, self.dt, self.grid, LOOKING_BACK[self.advection])
        if push is not None:
            rates = tuple(rate + part for rate, part in zip(rates, push, strict=True))
        return tuple(torch.add(part, rate, alpha=self.dt) for part, rate in zip(velocity, rates, strict=True))

    def _held(
        self, state: State, given: Mapping[str, Tensor], coefficients: Mapping[str, Any], times: list[float]
    ) -> Sequence[Held | None]:
        if not self.bodies:
            return [None] * len(times)
        return self.immersed.held(
            state.get("position"),
            (given.get("velocity"), given.get("rotation")),
            coefficients["bodies"],
            [time * self.dt for time in times],
            state[self.names[0]],
        )

    def _actions(self, control: Tree, state: State) -> dict[str, Tensor]:
        """The entries of a control, their shapes checked."""
        if control is None:
            return {}
        given = {self.controlled: control} if isinstance(control, Tensor) else control
        if not isinstance(given, dict) or not set(given) <= set(ACTIONS):
            raise UsageError(
                f"the control of a flow is a dict with some of {', '.join(ACTIONS)}, or one tensor, which is "
                f"{self.controlled!r}; found {describe(control)}."
            )
        like = state[self.names[0]]
        count = len(like)
        wanted: dict[str, tuple[int, ...]] = {
            "force": (len(self.grid.cells), *self.grid.cells),
            "rotation": (len(self.bodies),),
            "velocity": (sum(disc.moves for disc in self.bodies), 2),
        }
        found = {}
        for name, value in given.items():
            if name in FACTORS and value.numel() == count:
                value = value.reshape(count)
            elif 0 in wanted.get(name, (0,)) or tuple(value.shape[1:]) != wanted[name]:
                sizes = (
                    "(scenarios,)" if name in FACTORS else f"(scenarios, {', '.join(map(str, wanted[name]))})"
                )
                raise UsageError(
                    f"the control {name!r} of this flow has the shape {sizes}; found {tuple(value.shape)}."
                )
            if value.dtype != like.dtype:
                raise UsageError(
                    f"control and state of a flow are numbers of the same kind; found the control {name!r} in "
                    f"{value.dtype} and the state in {like.dtype}: convert one of them."
                )
            found[name] = value
        return found

    def _push(self, given: Mapping[str, Tensor]) -> Faces | None:
        """The given force on the free faces."""
        if "force" not in given:
            return None
        return tuple(
            centred_on_faces(given["force"][:, axis], axis, self.grid) for axis in range(len(self.grid.cells))
        )


def _bodies(given: object) -> tuple[Disc, ...]:
    """One disc or several as a tuple."""
    found = tuple(given) if isinstance(given, list | tuple) else (given,)
    for disc in found:
        if not isinstance(disc, Disc):
            raise UsageError(f"bodies are a tuple of Disc(centre, radius); found {disc!r} among them.")
    return found
