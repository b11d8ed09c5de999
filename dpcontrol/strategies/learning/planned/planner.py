"""``planner``: a plan made by halving spans of time, and who executes it, trained through the simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.nets import MLP, ConvNet, Padding
from dpcontrol.problem import Policy, Problem, View
from dpcontrol.problem.planned import SCHEMES, PlannedController, planned_controller
from dpcontrol.problem.terms import target_state
from dpcontrol.results import Status, UsageError
from dpcontrol.run import Outcome
from dpcontrol.strategies.checks import one_of, whole
from dpcontrol.strategies.learning.planned.pretraining import Pretraining
from dpcontrol.strategies.learning.policy import LearnedPolicy
from dpcontrol.strategies.learning.posing import Body, Learner


@dataclass(frozen=True)
class PlannedPolicy(Learner):
    r"""Train an observation predictor (OP) and a control-force estimator (CFE) through the simulator.

    The OP predicts the state in the middle of a span of steps from the states at its ends, and so, span by span, a
    plan from here to the target; the CFE gives the control that leads to the next planned state. What they learn is
    the problem's own loss of the closed loop, differentiated through plan, controls and physics over the whole
    horizon, exactly as ``policy`` does it (minibatches of fresh scenarios, Adam, validation on scenarios of its own).

    For problems whose target is a state: ``reach(target)`` of the whole state, or ``closing(target)``. How the three
    schemes plan is told in :mod:`dpcontrol.problem.planned`: ``chain`` is the CFE alone, towards the target itself;
    ``staggered`` halves every span once, when the run enters it; ``refined`` plans what remains anew at every step
    (``log2`` of it calls of the OP for each decision).

    On 32 steps of Burgers' equation ``refined`` is better than ``staggered``, both are better than a network that is
    told state, target and time (``policy`` without ``base``), and ``chain``, which is told the way to go over the time
    left, is as good as they are and cheaper (``tests/benchmarks/burgers_planning.py``): try it first.

    The answer ``z["policy"]`` are the weights of both networks. With ``staggered`` the plan that is under way is the
    controller's memory.

    Args:
        scheme: ``"refined"``, ``"staggered"`` or ``"chain"``.
        network: of both: ``"mlp"``; ``"conv"``, residual convolutions for states and controls that are fields on one
            grid; or ``body(inputs, outputs) -> nn.Module``.
        executor: the CFE's network, where it is to be another: ``body(inputs, outputs)``. It sees the state, the way to
            the planned one divided by the share of the horizon that it takes, and that share, states in units of
            their typical size (``controller(problem).task.layout``).
        width, depth: hidden layers of ``"mlp"``, or channels and residual blocks of ``"conv"``.
        padding: of convolutions, as the boundary asks: ``"zeros"``, ``"circular"`` (periodic), ``"replicate"`` or
            ``"reflect"``.
        shared: one OP for all spans, which is told how long they are, or one for each power of two.
        pretraining: iterations in which, before anything is controlled, the CFE learns which control led from one
            state to the next, and the OP which state lay in the middle, on runs under smooth random controls. They
            cost one run each, charged like all others; 0 begins end to end.
        training: how the closed loop is trained; its own ``network``, ``width`` and ``depth`` play no part.

    Source: P. Holl, V. Koltun, N. Thuerey, "Learning to control PDEs with differentiable physics", ICLR 2020.
    """

    scheme: str = "refined"
    network: str | Body = "mlp"
    executor: Body | None = None
    width: int = 128
    depth: int = 2
    padding: Padding = "zeros"
    shared: bool = True
    pretraining: int = 0
    training: LearnedPolicy = field(default_factory=LearnedPolicy)

    def __post_init__(self) -> None:
        whole("PlannedPolicy", width=self.width, depth=self.depth)
        one_of("PlannedPolicy", SCHEMES, scheme=self.scheme)
        one_of("PlannedPolicy", get_args(Padding), padding=self.padding)
        if self.network not in ("mlp", "conv") and not callable(self.network):
            raise UsageError(
                "PlannedPolicy(network=...) must be 'mlp', 'conv' or a function (inputs, outputs) -> nn.Module; found "
                f"{self.network!r}."
            )
        if self.executor is not None and not callable(self.executor):
            raise UsageError(
                "PlannedPolicy(executor=...) must be a function (inputs, outputs) -> nn.Module, or None; found "
                f"{self.executor!r}."
            )
        if self.pretraining != 0:
            whole("PlannedPolicy", pretraining=self.pretraining)
        if not isinstance(self.training, LearnedPolicy):
            raise UsageError(
                f"PlannedPolicy(training=...) must be a LearnedPolicy(...); found {type(self.training).__name__}."
            )

    @property
    def needs(self) -> frozenset[View]:
        return self.training.needs | {View.TARGET}

    def load(self) -> None:
        self.training.load()

    def controller(self, problem: Problem) -> PlannedController:
        """A fresh controller for an open-loop problem."""
        fields = self.network == "conv"
        body = self._body(problem)
        return planned_controller(
            problem, self.scheme, body, executor=self.executor, shared=self.shared, fields=fields
        )

    def _body(self, problem: Problem) -> Body:
        if callable(self.network):
            return self.network
        if self.network == "mlp":
            return partial(MLP, width=self.width, depth=self.depth)
        target = target_state(problem.objective)
        grid = 1 if target is None else tree.leaves(problem.scenarios.data[target])[0].ndim - 1
        return partial(
            ConvNet, dimensions=min(grid, 2), width=self.width, depth=self.depth, padding=self.padding
        )

    def run(self, meter: Meter, generator: torch.Generator) -> Status | Outcome:
        if meter.resuming:
            return self.training.run(meter, generator)
        weights = self._drawn(meter, generator)
        if self.pretraining:
            weights = Pretraining(meter, generator, self.training).run(weights, self.pretraining)
        return self.training.run(meter.beginning_at(weights), generator)

    def _drawn(self, meter: Meter, generator: torch.Generator) -> Tensor:
        """Fresh weights ``(1, dimension)`` of both networks."""
        slot = meter.problem.unknown.slots[0]
        if not isinstance(slot, Policy) or not isinstance(slot.network, PlannedController):
            raise UsageError(
                f"planner trains networks of its own, but {meter.problem.name} seeks the weights of another "
                "controller: pose it with control=ControlSequence(...)."
            )
        posed = meter.problem.with_unknown(slot.network.task.control)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            fresh = self.controller(posed)
        drawn = {name: value.detach() for name, value in fresh.named_parameters()}
        like = meter.layout()["policy"]
        return tree.ravel({"policy": {name: drawn[name].to(leaf) for name, leaf in like.items()}})[None]
