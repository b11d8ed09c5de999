"""``policy``: a feedback controller, trained through the simulator over the problem's distribution of scenarios."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpcontrol import tree
from dpcontrol.engine.gradients import GradientMode, TruncatedBPTT
from dpcontrol.meter import Meter
from dpcontrol.nets import MLP
from dpcontrol.problem import Demand, Policy, Problem, Scenarios, View
from dpcontrol.problem.observing import Controller, controller
from dpcontrol.results import Status, UsageError
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import cap, positive, whole, within

WITHOUT_BUDGET = 2000
PATIENCE_OF_FAILURES = 10  # in a row
MEMORY_OF_NORMS = 50  # iterations
Body = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class LearnedPolicy(Strategy):
    r"""Train a feedback controller ``u_k = network(observation_k; w)`` through the simulator.

    .. math:: \min_w \; E_{\text{scenario}} \, L(\text{closed loop under } w)

    Every iteration rolls the closed loop out over a minibatch of fresh scenarios, differentiates its mean loss by
    backpropagation through time (the physics included), clips the gradient's norm, and takes a step of Adam whose
    rate falls along a half cosine over the budget. What counts as the best so far is the mean loss on validation
    scenarios, drawn once; the problem's own scenarios are never trained on where it has a distribution to draw from,
    so that they are held-out scenes. Without a distribution the problem's scenarios are all there is: training,
    validation and judgement are on the same ones, and the status says so.

    The controller sees what every learned method sees (:class:`~dpcontrol.problem.observing.Observer`): state, target,
    time to go. Its answer ``z["policy"]`` are weights; one decision costs one call of the network.

    Args:
        network: ``body(inputs, outputs) -> nn.Module`` from observation to control (drawn anew for each seed), or a
            module of your own, ``module(state, t, scenario) -> control``, which starts with the weights it has.
        width, depth: of the hidden layers of the default network, an MLP.
        base: the name of one of the problem's simple laws, whose control the network corrects; none by default.
        batch: scenarios of an iteration.
        learning_rate: of Adam, at the start.
        iterations: at most this many; ``None`` goes on until the budget is spent, and up to 2000 without a budget.
        clip: a gradient whose norm is more than so many times the running (geometric) mean of earlier norms is
            shortened to that. The status reports how often.
        window: differentiate over at most this many steps at a time (biased: see
            :class:`~dpcontrol.engine.gradients.TruncatedBPTT`); over the whole horizon by default.
        validation: how many scenarios to validate on, where they can be drawn.
        validate_every: iterations between two validations.
        patience: stop after this many validations without a better one; ``None`` never.

    Source: P. Holl, V. Koltun, N. Thuerey, "Learning to control PDEs with differentiable physics", ICLR 2020.
    """

    network: Body | nn.Module | None = None
    base: str | None = None
    width: int = 128
    depth: int = 2
    batch: int = 64
    learning_rate: float = 2e-3
    iterations: int | None = None
    clip: float = 3.0
    window: int | None = None
    validation: int = 128
    validate_every: int = 20
    patience: int | None = None

    def __post_init__(self) -> None:
        whole("LearnedPolicy", width=self.width, depth=self.depth, batch=self.batch)
        whole("LearnedPolicy", validation=self.validation, validate_every=self.validate_every)
        positive("LearnedPolicy", learning_rate=self.learning_rate, clip=self.clip)
        optional = {"iterations": self.iterations, "window": self.window, "patience": self.patience}
        whole("LearnedPolicy", **{name: value for name, value in optional.items() if value is not None})
        if self.network is not None and not callable(self.network):
            raise UsageError(
                "LearnedPolicy(network=...) must be a function (inputs, outputs) -> nn.Module, a module "
                f"(state, t, scenario) -> control, or None; found {type(self.network).__name__}."
            )
        within("LearnedPolicy", 0, 1, learning_rate=self.learning_rate)

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.GRADIENT, View.ACTING})

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.BOUNDS})

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def stores_state(self) -> bool:
        return True

    def load(self) -> None:
        torch.optim.Adam([torch.zeros(1)])  # a first optimizer imports a good part of torch

    def pose(self, problem: Problem) -> Problem:
        """The same problem, with the weights of a controller sought; one that seeks a policy already stays as it is."""
        if View.ACTING not in problem.offers or isinstance(problem.unknown.slots[0], Policy):
            return problem
        if isinstance(self.network, nn.Module):
            return problem.with_unknown(Policy(self.network))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return problem.with_unknown(Policy(controller(problem, self._body, self.base)))

    def _body(self, inputs: int, outputs: int) -> nn.Module:
        if self.network is None:
            return MLP(inputs, outputs, width=self.width, depth=self.depth)
        made = self.network(inputs, outputs)
        if not isinstance(made, nn.Module):
            raise UsageError(
                f"LearnedPolicy(network=...) made a {type(made).__name__}; a function (inputs, outputs) must return an "
                "nn.Module."
            )
        return made

    def fresh(self, meter: Meter, generator: torch.Generator) -> Tensor:
        """Weights ``(1, dimension)`` to start from: drawn from the generator, or those of the user's own module."""
        slot = meter.problem.unknown.slots[0]
        assert isinstance(slot, Policy)
        made = slot.network
        if not isinstance(made, Controller) or isinstance(self.network, nn.Module):
            return meter.start()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            body = self._body(made.inputs, made.outputs)
        weights = {f"body.{name}": value.detach() for name, value in body.named_parameters()}
        drawn = {name: weights[name].to(like) for name, like in meter.layout()["policy"].items()}
        return tree.ravel({"policy": drawn})[None]

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        most = cap(self.iterations, meter, WITHOUT_BUDGET)
        training = Training(self, meter, generator, most)
        while training.iteration < most:
            meter.keep(training.pack)
            ended = training.step()
            if ended is not None:
                return ended
        training.validate()
        return Status("iterations spent", "the iterations were spent; more of them may lower the loss.")


class Training:
    """A training under way: the weights, the optimizer, the validation scenarios, and what is counted.

    ``seed`` is that of the validation scenarios, so that a resumed training draws the same.
    """

    def __init__(
        self, strategy: LearnedPolicy, meter: Meter, generator: torch.Generator, iterations: float
    ) -> None:
        self._strategy, self._meter, self._generator, self._most = strategy, meter, generator, iterations
        problem = meter.problem
        self._draws = View.DISTRIBUTION in problem.offers
        kept = meter.resumed()
        self.iteration, self.clipped, self.failed, self.worse = 0, 0, 0, 0
        self._typical: float | None = None  # logarithm of the gradient's norm, a running mean
        self._seed = int(torch.randint(2**62, (), generator=generator)) if kept is None else kept["seed"]
        self._weights = nn.Parameter(strategy.fresh(meter, generator) if kept is None else kept["weights"])
        self._finite = self._weights.detach().clone()
        self._optimizer = torch.optim.Adam([self._weights], lr=strategy.learning_rate)
        if kept is not None:
            self._unpack(kept)
        self._validation = problem.scenarios
        if self._draws:
            drawn = torch.Generator().manual_seed(self._seed)
            self._validation = problem.scenarios.draw(drawn, strategy.validation)

    def step(self) -> Status | None:
        """One iteration, and the validation that is due before it; how the training ended, or ``None``."""
        if self.iteration % self._strategy.validate_every == 0 and self.validate():
            return Status(
                "converged",
                f"{self._strategy.patience} validations in a row brought nothing better; stopped early.",
            )
        mode: GradientMode | None = None
        if self._strategy.window is not None:
            mode = TruncatedBPTT(self._strategy.window)
        scenes = self._minibatch()
        losses, gradient = self._meter.sampled_gradient(self._weights, scenes, mode)
        norm = gradient.norm()
        self.iteration += 1
        if not bool(torch.isfinite(norm) & torch.isfinite(losses).all()):
            return self._take_back()
        self.failed = 0
        self._finite = self._weights.detach().clone()
        self._weights.grad = gradient * self._shortened(float(norm))
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._optimizer.step()
        self._remark()
        return None

    def validate(self) -> bool:
        """Score the weights on the validation scenarios; whether it is time to stop early."""
        before = float(self._meter.best)
        loss = self._meter.sampled_values(self._weights, self._validation).mean()
        self._meter.observe(self._weights.detach(), loss[None], steps=0)
        self.worse = 0 if float(self._meter.best) < before else self.worse + 1
        return self._strategy.patience is not None and self.worse >= self._strategy.patience

    def _minibatch(self) -> Scenarios:
        scenarios, size = self._meter.problem.scenarios, self._strategy.batch
        if self._draws:
            return scenarios.draw(self._generator, size)
        if scenarios.count <= size:
            return scenarios
        chosen = torch.randperm(scenarios.count, generator=self._generator)[:size]
        return Scenarios(scenarios.take(chosen), scenarios.sampler, scenarios.shared)

    def _take_back(self) -> Status | None:
        """After something not finite: half of the way back to the latest weights that gave a finite gradient."""
        self.failed += 1
        if self.failed > PATIENCE_OF_FAILURES:
            return Status(
                "diverged",
                f"{self.failed} minibatches in a row gave a loss or gradient that is not finite; a shorter window, a "
                "smaller learning rate or clip may help.",
            )
        with torch.no_grad():
            self._weights.copy_((self._weights + self._finite) / 2)
        return None

    def _shortened(self, norm: float) -> float:
        """What a gradient of this norm is multiplied by; takes note of it."""
        size = math.log(max(norm, 1e-300))
        typical = size if self._typical is None else self._typical
        excess = size - typical - math.log(self._strategy.clip)
        self.clipped += int(excess > 0)
        # the mean follows what was used, so that a few explosions do not lift it
        used = size - max(excess, 0.0)
        self._typical = typical + (used - typical) / MEMORY_OF_NORMS
        return math.exp(-max(excess, 0.0))

    def _rate(self) -> float:
        """Half a cosine from the learning rate to zero, over the budget or the iterations."""
        done = max(self._meter.fraction(), self.iteration / self._most)
        return self._strategy.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def _remark(self) -> None:
        share = self.clipped / self.iteration
        clipped = f"the gradient was clipped in {share:.0%} of {self.iteration} iterations"
        where = "" if self._draws else "; trained and validated on the very scenarios that it is judged on"
        self._meter.remark(f"{clipped}{where}.")

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "seed": self._seed,
            "typical": self._typical,
            "weights": self._weights.detach().clone(),
            "finite": self._finite,
            "moments": self._optimizer.state_dict()["state"].get(0, {}),
            "counts": [self.iteration, self.clipped, self.failed, self.worse],
        }

    def _unpack(self, kept: dict[str, Any]) -> None:
        self._finite, self._typical = kept["finite"], kept["typical"]
        self.iteration, self.clipped, self.failed, self.worse = kept["counts"]
        groups = self._optimizer.state_dict()["param_groups"]
        moments = {0: kept["moments"]} if kept["moments"] else {}
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
