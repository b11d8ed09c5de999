"""Problems as environments: Gymnasium's own checker, Stable-Baselines3, and that rewards are the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dpcontrol as dp
from dpcontrol.environments import Batch, controller_of_sb3, gymnasium_env, vec_env

pytest.importorskip("gymnasium")
pytest.importorskip("stable_baselines3")
import gymnasium
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_sb3
from stable_baselines3.common.vec_env import VecNormalize

F64 = torch.float64


def drawn(generator, n):
    return {
        "initial_state": torch.randn(n, 2, generator=generator, dtype=F64),
        "target": torch.randn(n, 2, generator=generator, dtype=F64),
    }


def moving(low=-2.0, high=2.0, **changed):
    """Points that are pushed to a target."""
    scenes = drawn(torch.Generator().manual_seed(3), 5)
    asked = {
        "initial_state": scenes.pop("initial_state"),
        "horizon": 6,
        "objective": dp.reach("target") + 1e-2 * dp.effort(),
        "control": dp.ControlSequence(2, low, high),
        "scenarios": dp.Scenarios(scenes, sampler=drawn),
        "name": "moving",
    }
    return dp.control_problem(lambda x, u: x + 0.1 * u, **{**asked, **changed})


# fields have no natural bounds, and the checkers would rather have some
@pytest.mark.filterwarnings(
    "ignore:.*Box observation space:UserWarning", "ignore:.*not having a spec:UserWarning"
)
@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (None, None), (0.0, None)])
def test_the_environment_passes_the_checkers_of_others(bounds):
    env = gymnasium_env(moving(*bounds), render_mode="rgb_array")
    check_gymnasium(env, skip_render_check=False)
    check_sb3(env)
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.std() > 1


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
def test_problems_of_the_catalogue_are_registered_environments():
    env = gymnasium.make(
        "dpcontrol.registered:dpcontrol/burgers-v0", size="small", seed=1, render_mode="rgb_array"
    )
    check_gymnasium(env.unwrapped, skip_render_check=False)
    assert env.spec.id == "dpcontrol/burgers-v0"
    with pytest.raises(
        dp.UsageError, match="burgers_reconstruction cannot be an environment: .* initial_state"
    ):
        gymnasium.make("dpcontrol/burgers_reconstruction-v0", size="small")
    with pytest.raises(dp.UsageError, match="render_mode must be 'rgb_array'"):
        gymnasium.make("dpcontrol/burgers-v0", size="small", render_mode="human")


def test_an_episode_is_terminated_and_its_rewards_are_minus_the_loss():
    problem = moving()
    env = gymnasium_env(problem)
    env.reset(seed=0, options={"scenario": 3})
    generator, controls, total = np.random.default_rng(0), [], 0.0
    for k in range(6):
        action = generator.uniform(-1, 1, 2).astype(np.float32)
        controls.append(torch.as_tensor(2.0 * action.astype(float)))
        _, reward, terminated, truncated, info = env.step(action)
        total += reward
        assert not truncated and terminated == (k == 5)
    loss = problem.loss({"control": torch.stack(controls)[None]}, torch.tensor([3]))
    assert -total == pytest.approx(loss.item(), rel=1e-6)
    assert info == {"failed": False, "loss": pytest.approx(loss.item(), rel=1e-6)}


def test_a_seed_gives_the_same_scenes():
    env = gymnasium_env(moving())
    first = [env.reset(seed=7)[0], env.reset()[0]]
    again = [env.reset(seed=7)[0], env.reset()[0]]
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], first[1])


def test_no_small_seed_draws_the_scenarios_of_a_problem_of_that_seed():
    """The problem is judged on what ``drawn`` gives for a seed; an agent begins elsewhere, whatever its seed."""
    judged = torch.cat([drawn(torch.Generator().manual_seed(k), 2)["initial_state"] for k in range(200)])
    env = vec_env(moving(), 5)
    for seed in range(200):
        env.seed(seed)
        env.reset()
        assert float(torch.cdist(env.batch.state, judged).min()) > 1e-9
    env.seed(7)
    first = env.reset()
    env.seed(7)
    assert np.array_equal(first, env.reset())


def test_environments_without_a_seed_differ_and_those_with_one_do_not():
    problem = moving()
    free = [gymnasium_env(problem).reset()[0] for _ in range(2)]
    assert not np.array_equal(*free)
    seeded = [gymnasium_env(problem, seed=3) for _ in range(2)]
    for _ in range(2):
        assert np.array_equal(seeded[0].reset()[0], seeded[1].reset()[0])
    assert np.array_equal(seeded[0].reset(seed=5)[0], gymnasium_env(problem).reset(seed=5)[0])


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
def test_copies_of_a_registered_environment_differ_and_it_knows_its_arguments():
    name = "dpcontrol.registered:dpcontrol/pendulum_torque-v0"
    copies = gymnasium.make_vec(name, num_envs=2, vectorization_mode="sync", size="small")
    seen, _ = copies.reset()
    assert not np.array_equal(seen[0], seen[1])
    refused("takes size, seed, failure, render_mode; found siez", gymnasium.make, name, siez="small")


def test_the_last_infos_of_a_batch_have_the_losses():
    problem = moving()
    env = vec_env(problem, 5)
    for _ in range(2):
        env.reset()
        env.batch.reset(torch.arange(5))
        for _ in range(6):
            *_, infos = env.step(np.full((5, 2), 0.3, np.float32))
        losses = problem.loss({"control": torch.full((5, 6, 2), 0.6, dtype=F64)})
        assert [info["loss"] for info in infos] == pytest.approx(losses.tolist(), rel=1e-6)
        assert not any(info["failed"] for info in infos)


def test_the_batch_rewards_what_the_problem_costs():
    problem = moving()
    batch = Batch(problem, 5)
    batch.reset(torch.arange(5))
    actions = torch.rand(6, 5, 2, dtype=F64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    total = sum(batch.step(row).reward for row in actions)
    torch.testing.assert_close(-total, problem.loss({"control": 2 * actions.transpose(0, 1)}))


def test_a_failed_simulation_ends_its_episode_and_cuts_the_others():
    def step(x, u):
        return x + 0.1 * torch.sqrt(u + 1.5)

    problem = dp.control_problem(
        step,
        initial_state=torch.ones(2, 1, dtype=F64),
        horizon=4,
        objective=dp.reach(torch.zeros(1)),
        control=dp.ControlSequence(1, -2.0, 2.0),
    )
    env = vec_env(problem, 3, failure=50.0)
    env.reset()
    seen, reward, done, infos = env.step(np.array([[0.0], [-1.0], [0.5]], np.float32))
    assert done.all() and reward.tolist() == [0.0, -50.0, 0.0] and np.isfinite(seen).all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True, False, True]
    assert [info.get("loss") for info in infos] == [None, 50.0, None] and infos[1]["failed"]


def test_stable_baselines_learns_in_it_and_its_policy_is_a_controller():
    problem = moving()
    env = vec_env(problem, 32, seed=1)
    options = {"n_steps": 24, "batch_size": 192, "n_epochs": 5, "learning_rate": 2e-3, "gamma": 1.0}
    model = PPO("MlpPolicy", env, seed=0, device="cpu", **options)
    before = problem.with_unknown(dp.Policy(controller_of_sb3(problem, model)))
    untrained = before.loss(before.start()).mean()
    model.learn(32 * 24 * 12)
    asked = problem.with_unknown(dp.Policy(controller_of_sb3(problem, model)))
    trained = asked.loss(asked.start()).mean()
    assert trained < 0.6 * untrained
    # the controller plays what the model predicts
    batch = Batch(problem, 5)
    seen = batch.reset(torch.arange(5))
    total = torch.zeros(5, dtype=F64)
    for _ in range(6):
        action, _ = model.predict(seen.float().numpy(), deterministic=True)
        moved = batch.step(torch.as_tensor(action))
        seen, total = moved.observation, total + moved.reward
    torch.testing.assert_close(-total.mean(), trained, rtol=1e-5, atol=1e-6)


def test_wrappers_of_stable_baselines_fit():
    env = VecNormalize(vec_env(moving(), 4, seed=0))
    env.seed(3)
    first = env.venv.reset()
    env.seed(3)
    assert np.array_equal(first, env.venv.reset())
    for _ in range(13):
        seen, _, _, _ = env.step(np.zeros((4, 2), np.float32))
    assert np.isfinite(seen).all()


def refused(sentence, call, *arguments, **named):
    with pytest.raises(dp.UsageError, match=sentence) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scenario": 99}, r"moving has the scenarios 0 to 4, of which reset takes 1.* found \[99\]"),
        ({"scenario": -1}, r"moving has the scenarios 0 to 4.* found \[-1\]"),
        ({"scenario": 1.0}, "takes a whole number; found 1.0"),
        ({"scenario": True}, "takes a whole number; found True"),
        ({"scene": 1}, r"takes \{'scenario': i\}.* found \{'scene': 1\}"),
        (3, r"takes \{'scenario': i\}.* found 3"),
    ],
)
def test_a_reset_that_names_no_scenario_is_refused(options, sentence):
    env = gymnasium_env(moving())
    refused(sentence, env.reset, options=options)
    assert np.array_equal(
        env.reset(options={"scenario": np.int64(4)})[0], env.reset(options={"scenario": 4})[0]
    )
    assert env.reset(options={"scenario": None}, seed=0)[0].shape == env.reset(options={})[0].shape


def test_one_environment_is_stepped_as_it_says():
    env = gymnasium_env(moving(), render_mode="rgb_array")
    refused("no episode has begun: call reset", env.step, env.action_space.sample())
    refused("no episode has begun: call reset", env.render)
    env.reset()
    for wrong, found in ((np.zeros(3), r"\(3,\)"), (np.zeros((1, 2)), r"\(1, 2\)"), (0.5, r"\(\)")):
        refused(rf"takes actions of shape \(2,\) here.* found {found}", env.step, wrong)
    refused("arrays of numbers from -1 to 1; found 'left'", env.step, "left")
    for _ in range(6):
        env.step(np.zeros(2))
    refused("the episode is over", env.step, np.zeros(2))


def test_a_batch_is_stepped_as_it_says():
    env = vec_env(moving(), 3)
    refused("no episode has begun: call reset", env.step, np.zeros((3, 2)))
    env.reset()
    refused(r"takes actions of shape \(3, 2\) here.* found \(2, 3\)", env.step, np.zeros((2, 3)))
    refused(r"found \[0, 5, 1\]", env.batch.reset, torch.tensor([0, 5, 1]))
    refused(r"of which reset takes 3, one for each episode; found \[0\]", env.batch.reset, torch.tensor([0]))


def test_what_an_environment_is_made_of_is_looked_at():
    problem = moving()
    for count in (0, -3, 2.0, True):
        refused("the count of an environment must be a whole number, at least 1", vec_env, problem, count)
    refused("the seed of an environment", vec_env, problem, seed=-1)
    refused("failure=..., must be a number, 0 or more; found nan", vec_env, problem, failure=float("nan"))
    refused("actions must be an ActionMap", vec_env, problem, actions=lambda u: u)
    refused("made of a Problem; found str", vec_env, "burgers")
    refused("made of a Problem; found NoneType", gymnasium_env, None)
    refused("render_mode must be 'rgb_array' .* found 'human'", gymnasium_env, problem, render_mode="human")
    alike = moving(scenarios=dp.Scenarios({"target": torch.ones(5, 2)}, sampler=lambda g, n: drawn(g, 3)))
    for make in (vec_env, gymnasium_env):
        refused("the sampler of scenarios, asked for 2", make, alike)


def test_only_a_model_for_this_problem_becomes_its_controller():
    problem = moving()
    refused("takes a trained model of Stable-Baselines3.* found NoneType", controller_of_sb3, problem, None)
    refused("takes a trained model", controller_of_sb3, problem, torch.nn.Linear(5, 2))
    small = {"n_steps": 8, "batch_size": 8, "device": "cpu"}
    model = PPO("MlpPolicy", vec_env(problem, 2), **small)
    assert controller_of_sb3(problem, model.policy).acting.policy is model.policy
    other = moving(observation=lambda x: x[:, :1])
    refused(
        r"observes Box\(.*\(5,\).*, but moving shows 4 numbers and takes 2", controller_of_sb3, other, model
    )
    far = np.float32(3.0)
    wide = PPO("MlpPolicy", gymnasium.wrappers.RescaleAction(gymnasium_env(problem), -far, far), **small)
    refused(r"acts in Box\(-3.0, 3.0, \(2,\)", controller_of_sb3, problem, wide)
    scaled = PPO("MlpPolicy", VecNormalize(vec_env(problem, 2)), **small)
    refused("VecNormalize had scaled", controller_of_sb3, problem, scaled)
    plain = PPO("MlpPolicy", VecNormalize(vec_env(problem, 2), norm_obs=False), **small)
    assert controller_of_sb3(problem, plain).acting.policy is plain.policy


def test_a_problem_without_actions_is_refused():
    def drift(x, u):
        return 0.9 * x

    problem = dp.control_problem(
        drift,
        initial_state=torch.ones(1, 2),
        horizon=3,
        objective=dp.reach(torch.zeros(2)),
        unknown=dp.InitialState(),
    )
    with pytest.raises(dp.UsageError, match="seeks initial_state"):
        gymnasium_env(problem)
