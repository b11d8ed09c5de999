"""The kicked rotor, held at rest upright: gradients explode by a factor of nearly two at every kick."""

import torch

from dpcontrol.problem import ControlSequence, Scenarios, control_problem, cost

F64 = torch.float64
KICK = 3.0


def kicked_rotor(horizon=60, *, bound=1.5, count=200):
    """Chirikov's standard map, pushed: ``p+ = p + K sin(angle) + u``, ``angle+ = angle + p+``, from anywhere.

    Its unstable rest (0 in ``p``, pi in the angle) is wanted, soon and with little effort:
    ``sum_k 2 (1 + cos(angle)) + 2 (1 - cos p) + 0.1 u^2``. Left alone, the map with K = 3 is chaotic.
    """

    def step(state, control):
        angle, p = state.unbind(1)
        p = p + KICK * torch.sin(angle) + control[:, 0]
        return torch.stack([angle + p, p], 1)

    def draw(generator, n):
        return {"initial_state": 2 * torch.pi * torch.rand(n, 2, generator=generator, dtype=F64)}

    def price(x, u, t):
        angle, p = x.unbind(1)
        return 2 * (1 + torch.cos(angle)) + 2 * (1 - torch.cos(p)) + 0.1 * u.square().sum(1)

    return control_problem(
        step,
        initial_state=draw(torch.Generator().manual_seed(99), count)["initial_state"],
        horizon=horizon,
        objective=cost(stage=price),
        control=ControlSequence((1,), low=-bound, high=bound),
        scenarios=Scenarios({}, sampler=draw),
        observation=lambda x: torch.cat([torch.sin(x), torch.cos(x)], 1),
        name="kicked_rotor",
    )
