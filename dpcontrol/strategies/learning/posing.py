"""What strategies that train a controller have in common: how they pose a problem, and where its weights begin."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.nets import MLP
from dpcontrol.problem import ControlSequence, Demand, Policy, Problem, View
from dpcontrol.problem.distribution import require_distribution
from dpcontrol.problem.networks import made_by, require_controller
from dpcontrol.problem.observing import Controller, controller
from dpcontrol.problem.playing import require_costs_of_steps
from dpcontrol.results import UsageError
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import whole

Body = Callable[[int, int], nn.Module]


class Learner(Strategy):
    """A strategy that seeks the weights of a controller.

    An open-loop problem is posed anew with such weights as its unknown; a problem that seeks them already stays as it
    is. The weights are drawn for each seed, so seeds matter, and a training stores its state.
    """

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.BOUNDS})

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def stores_state(self) -> bool:
        return True

    @abc.abstractmethod
    def controller(self, problem: Problem) -> nn.Module:
        """A controller for an open-loop problem that offers what the strategy needs; its weights fix their layout."""

    def pose(self, problem: Problem) -> Problem:
        """The same problem, with the weights of a controller sought; one that seeks them already stays as it is.

        Raises:
            UsageError: if the objective has a ``penalty`` on the control, which a controller does not have.
        """
        if not self.needs <= problem.offers or isinstance(problem.unknown.slots[0], Policy):
            return problem
        require_costs_of_steps(problem)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return problem.with_unknown(Policy(self.controller(problem)))

    def look_at(self, problem: Problem) -> None:
        """A few scenes are drawn, where there is a distribution; a control that is the same for all is refused."""
        slot = problem.unknown.slots[0]
        if isinstance(slot, ControlSequence) and slot.shared and problem.scenarios.count > 1:
            raise UsageError(
                f"{problem.name} seeks one control for all of its {problem.scenarios.count} scenarios (shared=True), "
                "but a feedback controller gives each its own: take lbfgs, adjoint or cmaes, or leave out shared=True."
            )
        require_distribution(problem.scenarios)


@dataclass(frozen=True)
class NetworkLearner(Learner):
    """A strategy that trains a network of one's choice through the simulator.

    Args:
        network: ``body(inputs, outputs) -> nn.Module`` from observation to control (drawn anew for each seed), or a
            module of your own, ``module(state, t, scenario) -> control``, which starts with the weights it has.
        width, depth: of the hidden layers of the default network, an MLP.
        base: the name of one of the problem's simple laws, whose control the network corrects; none by default.
    """

    network: Body | nn.Module | None = None
    base: str | None = None
    width: int = 128
    depth: int = 2

    def __post_init__(self) -> None:
        who = type(self).__name__
        whole(who, width=self.width, depth=self.depth)
        if self.network is not None and not callable(self.network):
            raise UsageError(
                f"{who}(network=...) must be a function (inputs, outputs) -> nn.Module, a module "
                f"(state, t, scenario) -> control, or None; found {type(self.network).__name__}."
            )

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.GRADIENT, View.ACTING})

    def pose(self, problem: Problem) -> Problem:
        """As every learner does; a network that is not ours is asked for a control first."""
        posed = super().pose(problem)
        if self.needs <= posed.offers and (self.network is not None or posed is problem):
            require_controller(posed, type(self).__name__)
        return posed

    def load(self) -> None:
        torch.linalg.qr(torch.eye(2))  # the first call of it opens a library

    def controller(self, problem: Problem) -> nn.Module:
        """The user's own module, or a network with the observation and the control of the problem."""
        if isinstance(self.network, nn.Module):
            return self.network
        return controller(problem, self._body, self.base)

    def fresh(self, meter: Meter, generator: torch.Generator) -> Tensor:
        """Weights ``(1, dimension)`` to start from: drawn from the generator.

        Where the network is the user's own, or the problem seeks weights of another kind, those that it has.
        """
        slot = meter.problem.unknown.slots[0]
        assert isinstance(slot, Policy)
        made = slot.network
        if not isinstance(made, Controller) or isinstance(self.network, nn.Module):
            return meter.start()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            body = self._body(made.inputs, made.outputs)
        drawn = {f"body.{name}": value.detach() for name, value in body.named_parameters()}
        like = meter.layout()["policy"]
        return tree.ravel({"policy": {name: drawn[name].to(leaf) for name, leaf in like.items()}})[None]

    def _body(self, inputs: int, outputs: int) -> nn.Module:
        assert not isinstance(self.network, nn.Module)
        return body_of(type(self).__name__, self.network, self.width, self.depth)(inputs, outputs)


def body_of(who: str, network: Body | None, width: int, depth: int) -> Body:
    """The maker of a controller's inner network: of an MLP, or the user's own.

    Raises:
        UsageError: when it is called, if what the user's function makes is no module.
    """

    def make(inputs: int, outputs: int) -> nn.Module:
        if network is None:
            return MLP(inputs, outputs, width=width, depth=depth)
        return made_by(f"{who}(network=...)", network, inputs, outputs)

    return make
