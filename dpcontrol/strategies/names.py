"""The one table from a strategy's name to its class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from dpcontrol.results import UsageError
from dpcontrol.run import Strategy
from dpcontrol.strategies.baselines import Baseline
from dpcontrol.strategies.checks import nearest
from dpcontrol.strategies.correcting.corrector import Noisy, Stopped, Supervised, Surrogate, Unrolled
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.evolving.evolution import CMAES
from dpcontrol.strategies.evolving.evolved_policy import EvolvedPolicy
from dpcontrol.strategies.learning.actor_critic import ActorCritic
from dpcontrol.strategies.learning.planned.planner import PlannedPolicy
from dpcontrol.strategies.learning.policy import LearnedPolicy
from dpcontrol.strategies.learning.ppo_sac import PPO, SAC
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.gauss_newton import GaussNewton
from dpcontrol.strategies.minimising.newton import NewtonKrylov
from dpcontrol.strategies.minimising.quasi_newton import LBFGS
from dpcontrol.strategies.posteriors.ensemble_kalman import EnsembleKalman
from dpcontrol.strategies.posteriors.laplace import Laplace
from dpcontrol.strategies.posteriors.samplers import MALA, NUTS, PCN, Metropolis
from dpcontrol.strategies.posteriors.svi import SVI
from dpcontrol.strategies.receding.mpc import MPC
from dpcontrol.strategies.receding.path_integral import MPPI

BUILT_IN: Mapping[str, type[Strategy]] = {
    "adjoint": Adjoint,
    "lbfgs": LBFGS,
    "newton_krylov": NewtonKrylov,
    "gauss_newton": GaussNewton,
    "laplace": Laplace,
    "svi": SVI,
    "eki": EnsembleKalman,
    "policy": LearnedPolicy,
    "shac": ActorCritic,
    "planner": PlannedPolicy,
    "ppo": PPO,
    "sac": SAC,
    "evolved_policy": EvolvedPolicy,
    "cmaes": CMAES,
    "cem": CEM,
    "mppi": MPPI,
    "mpc": MPC,
    "baseline": Baseline,
    "unrolled": Unrolled,
    "supervised": Supervised,
    "noisy": Noisy,
    "stopped": Stopped,
    "surrogate": Surrogate,
    "nuts": NUTS,
    "mala": MALA,
    "metropolis": Metropolis,
    "pcn": PCN,
}
GROUP = "dpcontrol.strategies"


def named() -> dict[str, Strategy]:
    """Every name that :func:`resolve` knows, ours first, with the strategy of default options."""
    everything = [*BUILT_IN, *sorted(set(_foreign()) - set(BUILT_IN))]
    return {name: resolve(name) for name in everything}


def resolve(strategy: str | Strategy, options: Mapping[str, Any] | None = None) -> Strategy:
    """The strategy of a name, or the given one; ``options`` override its fields.

    Raises:
        UsageError: for an unknown name (with the nearest ones) or option, or where an installed package's entry point
            holds no strategy.
    """
    given = dict(options or {})
    if isinstance(strategy, Strategy):
        _check_options(type(strategy), type(strategy).__name__, given)
        return dataclasses.replace(strategy, **given) if given else strategy  # type: ignore[type-var]
    cls = _class_of(strategy)
    _check_options(cls, strategy, given)
    lacking = [f.name for f in dataclasses.fields(cls) if _required(f) and f.name not in given]  # type: ignore[arg-type]
    if lacking:
        raise UsageError(
            f"strategy {strategy} needs the option {' and '.join(lacking)}: pass {lacking[0]}=..."
        )
    return cls(**given)


def name_of(strategy: Strategy) -> str:
    """The name of a strategy's class in the table; the class's own name if it is not there."""
    return next((name for name, cls in BUILT_IN.items() if cls is type(strategy)), type(strategy).__name__)


def _class_of(name: Any) -> type[Strategy]:
    if isinstance(name, str) and name in BUILT_IN:
        return BUILT_IN[name]
    foreign = _foreign()
    if not isinstance(name, str) or name not in foreign:
        raise UsageError(f"there is no strategy called {name!r}; {nearest(name, [*BUILT_IN, *foreign])}")
    found = foreign[name].load()
    if not (isinstance(found, type) and issubclass(found, Strategy) and dataclasses.is_dataclass(found)):
        raise UsageError(
            f"the entry point {name} = {foreign[name].value} must be a Strategy class (a frozen dataclass); "
            f"found {found!r}."
        )
    return found


def _check_options(cls: type[Strategy], name: str, options: Mapping[str, Any]) -> None:
    known = [entry.name for entry in dataclasses.fields(cls) if entry.init]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            words = nearest(option, known) if known else "it has none."
            raise UsageError(f"strategy {name} has no option {option!r}; {words}")


def _required(entry: dataclasses.Field[Any]) -> bool:
    return entry.init and entry.default is entry.default_factory is dataclasses.MISSING


def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
