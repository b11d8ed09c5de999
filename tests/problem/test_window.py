"""Windows: the same problem, shorter, from here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dpcontrol.problems import burgers, ks_stabilisation, linear_quadratic, pendulum_swingup
from taylor import taylor_rates

from dpcontrol import tree
from dpcontrol.problem import (
    ControlSequence,
    Gaussian,
    InitialState,
    Scenarios,
    UsageError,
    advance,
    closing,
    control_problem,
    cost,
    effort,
    fold,
    inference_problem,
    observe,
    penalty,
    reach,
    reset,
    track,
    window,
)
from dpcontrol.run import run
from dpcontrol.sim import ODE, Pendulum, SemiLagrangianBurgers
from dpcontrol.strategies import LBFGS

N, CUT, COUNT = 9, 4, 3
DRAWN = torch.Generator().manual_seed(5)
START = torch.randn(COUNT, 2, generator=DRAWN, dtype=torch.float64)
NOISE = 0.1 * torch.randn(COUNT, N, 2, generator=DRAWN, dtype=torch.float64)
COURSE = torch.randn(N + 1, COUNT, 2, generator=DRAWN, dtype=torch.float64)
RATE = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)


def driven(state, control, *, noise, t, scenario):
    """A forced pendulum-like step that depends on time, noise, scenario data and where the whole began."""
    angle, speed = state.unbind(-1)
    push = control[:, 0] + 0.3 * torch.sin(torch.as_tensor(0.7 * t, dtype=state.dtype)) * scenario["rate"]
    moved = torch.stack((angle + 0.2 * speed, speed + 0.2 * (push - torch.sin(angle))), -1)
    return moved + noise + 0.01 * scenario["initial_state"]


def stage(state, control, t, scenario):
    return (1 + 0.1 * t) * state.square().sum(-1) + (control[:, 0] * scenario["rate"]).cos()


TERMS = {
    "sums": track(COURSE) + 0.1 * effort() + cost(stage=stage, terminal=lambda x: x.pow(4).sum(-1)),
    "rows": track(COURSE[[7, 2, 4, 0]], steps=[7, 2, 4, 0]) + 0.5 * reach(COURSE[-1]),
    "what is sought": effort() + 0.2 * penalty("control") + reach(COURSE[-1]),
}


def posed(objective, **options):
    return control_problem(
        driven,
        initial_state=START,
        horizon=N,
        objective=objective,
        control=ControlSequence(1, low=-2.0, high=2.0, start=torch.linspace(-1, 1, N)[:, None]),
        scenarios={"noise": NOISE, "rate": RATE},
        **options,
    )


def controls(problem, seed=1):
    drawn = torch.Generator().manual_seed(seed)
    return tree.map(
        lambda leaf: leaf + 0.3 * torch.randn(leaf.shape, generator=drawn, dtype=leaf.dtype), problem.start()
    )


def parts(problem, z, cut, **rest):
    """Losses of the steps before ``cut`` and of those from there on, under their parts of the control."""
    path = problem.simulate(z)
    head = window(problem, path.states[0], 0, cut)
    tail = window(problem, path.states[cut], cut, **rest)
    before, after = z["control"][:, :cut], z["control"][:, cut:]
    return head.loss({"control": before}), tail.loss({"control": after}), tail, after, path


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("cut", [1, CUT, N - 1])
def test_the_loss_of_the_parts_is_that_of_the_whole(name, cut):
    problem = posed(TERMS[name])
    z = controls(problem)
    before, after, *_ = parts(problem, z, cut)
    torch.testing.assert_close(before + after, problem.loss(z), rtol=1e-13, atol=1e-13)


def test_three_windows_and_a_window_of_a_window():
    problem = posed(TERMS["sums"])
    z = controls(problem)
    states = problem.simulate(z).states
    u = z["control"]
    middle = window(problem, states[2], 2, 5)
    inside = window(middle, states[4], 4, 2)
    assert inside.first == 4 and inside.horizon == 2
    direct = window(problem, states[4], 4, 2)
    torch.testing.assert_close(inside.loss({"control": u[:, 4:6]}), direct.loss({"control": u[:, 4:6]}))
    total = (
        window(problem, states[0], 0, 2).loss({"control": u[:, :2]})
        + middle.loss({"control": u[:, 2:7]})
        + window(problem, states[7], 7).loss({"control": u[:, 7:]})
    )
    torch.testing.assert_close(total, problem.loss(z), rtol=1e-13, atol=1e-13)
    # the window of a window ends where it says: what comes at its end is that of the window around it
    last = window(middle, states[5], 5)
    assert last.horizon == 2
    torch.testing.assert_close(
        window(middle, states[2], 2, 3).loss({"control": u[:, 2:5]}) + last.loss({"control": u[:, 5:7]}),
        middle.loss({"control": u[:, 2:7]}),
    )


def test_a_closing_condition_belongs_to_the_last_window():
    burgers_step = SemiLagrangianBurgers(0.05, 0.01)
    drawn = torch.Generator().manual_seed(2)
    start, goal = (torch.randn(2, 16, generator=drawn, dtype=torch.float64) * 0.5 for _ in range(2))
    problem = control_problem(
        burgers_step,
        initial_state=start,
        horizon=8,
        objective=closing(goal) + effort() + 0.1 * track(torch.zeros(9, 16)),
        control=ControlSequence(16),
    )
    z = controls(problem)
    before, after, tail, *_ = parts(problem, z, 3)
    assert tail.free_steps == 4
    torch.testing.assert_close(before + after, problem.loss(z), rtol=1e-12, atol=1e-12)
    own = window(problem, start, 0, 5, terminal="own")
    assert own.free_steps == 4  # the condition takes the window's last step
    torch.testing.assert_close(own.simulate(own.start()).states[-1], goal)
    with pytest.raises(UsageError, match="no step whose control is free"):
        window(problem, start, 7)


def test_folds_go_on_with_their_memories():
    peak = fold(
        lambda x: x.abs().amax(-1),
        lambda m, x, u, t: torch.maximum(m, x.abs().amax(-1) * (1 + t)),
        lambda m, x: m + x.square().sum(-1),
    )
    problem = posed(peak + effort())
    z = controls(problem)
    episode = reset(problem)
    for k in range(CUT):
        episode, _ = advance(episode, z["control"][:, k])
    rest = window(problem, episode.state, CUT, memories=episode.position.memories)
    before = z["control"][:, :CUT].square().sum((1, 2))
    after = {"control": z["control"][:, CUT:]}
    torch.testing.assert_close(before + rest.loss(after), problem.loss(z), rtol=1e-13, atol=1e-13)
    some = torch.tensor([2, 0])
    torch.testing.assert_close(rest.loss(tree.map(lambda u: u[some], after), some), rest.loss(after)[some])
    cut = window(problem, episode.state, CUT, 3, memories=episode.position.memories)
    torch.testing.assert_close(cut.loss({"control": after["control"][:, :3]}),
                               after["control"][:, :3].square().sum((1, 2)))  # fmt: skip


def test_time_goes_on_for_laws_trajectories_and_episodes():
    problem = posed(TERMS["sums"])
    z = controls(problem)
    path = problem.simulate(z)
    tail = window(problem, path.states[CUT], CUT)
    after = {"control": z["control"][:, CUT:]}
    seen = tail.simulate(after)
    torch.testing.assert_close(seen.states, path.states[CUT:], rtol=0, atol=0)
    assert torch.equal(seen.times, path.times[CUT:])
    asked = []
    whole = tail.run_law(lambda x, t, scenario: (asked.append(t), z["control"][:, round(t)])[1])
    assert asked == list(range(CUT, N))
    torch.testing.assert_close(whole.states, path.states[CUT:])
    episode, rewards = reset(tail), torch.zeros(COUNT, dtype=torch.float64)
    while not episode.done:
        episode, reward = advance(episode, z["control"][:, episode.position.k])
        rewards = rewards + reward
    torch.testing.assert_close(-rewards, tail.loss(after), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(tail.start()["control"], problem.start()["control"][:, CUT:])


def test_what_stands_at_the_end_of_a_window_that_ends_before():
    problem = posed(track(COURSE) + 0.3 * reach(COURSE[-1]) + cost(terminal=lambda x: x[:, 0]))
    z = {"control": controls(problem)["control"][:, :5]}
    stages = window(problem, START, 0, 5)
    end = stages.simulate(z).states[-1]
    own = window(problem, START, 0, 5, terminal="own")
    wanted = (end - COURSE[5]).square().sum(-1) + 0.3 * (end - COURSE[-1]).square().sum(-1) + end[:, 0]
    torch.testing.assert_close(own.loss(z) - stages.loss(z), wanted)
    mine = window(problem, START, 0, 5, terminal=lambda x, scenario: x[:, 1] * scenario["rate"])
    torch.testing.assert_close(mine.loss(z) - stages.loss(z), end[:, 1] * RATE)
    # where the window reaches the end, the problem's own cost stands there in any case
    for treatment in ("none", "own", lambda x: 1e3 * x[:, 0]):
        whole = window(problem, START, 0, terminal=treatment)
        z = controls(problem)
        torch.testing.assert_close(whole.loss(z), problem.loss(z))


def test_residuals_of_a_window_sum_to_its_loss():
    problem = posed(track(COURSE) + 0.3 * reach(COURSE[-1]) + 0.1 * effort())
    z = controls(problem)
    state = problem.simulate(z).states[3]
    for steps, treatment in ((None, "none"), (4, "none"), (4, "own")):
        part = window(problem, state, 3, steps, terminal=treatment)
        some = {"control": z["control"][:, 3 : 3 + part.horizon]}
        torch.testing.assert_close(part.residuals(some).square().sum(1), part.loss(some))


@pytest.mark.parametrize("name", TERMS)
def test_taylor_of_a_window(name):
    problem = posed(TERMS[name])
    z = controls(problem)
    _, _, _, after, path = parts(problem, z, CUT)
    start = path.states[CUT]

    def loss(point):
        return window(problem, point["state"], CUT, 4, terminal="own").loss({"control": point["u"]}).sum()

    rates = taylor_rates(loss, {"state": start, "u": after[:, :4]})
    assert min(rates) > 1.9, rates


@pytest.mark.parametrize("make", [ks_stabilisation, burgers, pendulum_swingup])
def test_windows_of_catalogued_problems(make):
    problem = make.problem(size="small")
    z = controls(problem)
    before, after, *_ = parts(problem, z, problem.free_steps // 2)
    torch.testing.assert_close(before + after, problem.loss(z), rtol=1e-11, atol=1e-11)


def test_multistep_schemes_have_their_history_in_the_state():
    """The wave equation's leapfrog keeps two levels: a window goes on with both of them."""
    from dpcontrol.problems import wave_focusing

    problem = wave_focusing.problem(size="small")
    z = controls(problem)
    path = problem.simulate(z)
    cut = problem.free_steps // 2
    state = tree.map(lambda leaf: leaf[cut], path.states)
    tail = window(problem, state, cut)
    seen = tail.simulate({"control": z["control"][:, cut:]} if not problem.unknown.slots[0].shared else
                         {"control": z["control"][cut:]})  # fmt: skip
    whole = tree.map(lambda leaf: leaf[cut:], path.states)
    for a, b in zip(tree.leaves(seen.states), tree.leaves(whole), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_tail_of_the_optimum_is_the_optimum_of_the_window():
    """Bellman's principle, and Riccati: the cost of what is left is x' P_k x."""
    problem = linear_quadratic.problem(size="small")
    best = run(problem, LBFGS(gradient_tolerance=1e-10, loss_tolerance=1e-15)).value
    path = problem.simulate(best)
    A, B = problem.simulator.A, problem.simulator.B
    for cut in (1, 7, 19):
        rest = window(problem, path.states[cut], cut)
        found = run(rest, LBFGS(gradient_tolerance=1e-10, loss_tolerance=1e-15))
        torch.testing.assert_close(found.value["control"], best["control"][:, cut:], rtol=0, atol=1e-6)
        _, weight = linear_quadratic.riccati(A, B, 0.1, problem.horizon - cut)
        x = path.states[cut]
        torch.testing.assert_close(
            found.losses, torch.einsum("si,ij,sj->s", x, weight, x), rtol=1e-10, atol=0
        )


def test_windows_seek_initial_states_too():
    """The window of a problem that seeks the state it begins with begins the search in the given state."""
    problem = control_problem(
        ODE(Pendulum(), dt=0.05),
        initial_state=START,
        horizon=N,
        objective=track(COURSE),
        unknown=InitialState(),
    )
    part = window(problem, 2 * START, 3)
    torch.testing.assert_close(part.start()["initial_state"], 2 * START)


def test_misuse_is_told():
    problem = posed(TERMS["sums"])
    for first, steps in ((-1, None), (N, None), (2, N), (2, 0)):
        with pytest.raises(UsageError, match=f"has the steps 0 to {N - 1}"):
            window(problem, START, first, steps)
    with pytest.raises(UsageError, match="whole number"):
        window(problem, START, 1.0)
    with pytest.raises(UsageError, match="one row for each scenario"):
        window(problem, START[:2], 1)
    with pytest.raises(UsageError, match="'none', 'own' or a function"):
        window(problem, START, 1, 2, terminal="reach")
    with pytest.raises(UsageError, match="one entry for each of the"):
        window(problem, START, 1, 2, memories=(None,))
    inferred = inference_problem(
        ODE(Pendulum(), dt=0.05),
        initial_state=START,
        horizon=4,
        prior={"initial_state": torch.distributions.Normal(0.0, 1.0)},
        data=COURSE[:5],
        observation=observe(noise=Gaussian(0.1)),
    )
    with pytest.raises(UsageError, match="a posterior has no windows"):
        window(inferred, START, 1)


def test_scenarios_of_a_window_cannot_be_drawn_anew():
    problem = ks_stabilisation.problem(size="small")
    part = window(problem, problem.scenarios.data["initial_state"], 3)
    assert isinstance(part.scenarios, Scenarios) and part.scenarios.sampler is None
    assert replace(part, name="other").first == 3
