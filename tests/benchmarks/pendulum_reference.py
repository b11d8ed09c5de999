"""Are our ``ppo`` and ``sac`` as good as their libraries'? Gymnasium's Pendulum-v1, ours against Stable-Baselines3.

    python tests/benchmarks/pendulum_reference.py [--seeds 3] [--only sb3 sac]

In the same run: Stable-Baselines3's own PPO and SAC on ``gymnasium.make("Pendulum-v1")``, and our strategies on
``pendulum_torque`` through the batched environment, with the hyperparameters of rl-baselines3-zoo and the same number
of environment steps and of gradient steps (SAC with a fifth of the 20,000 steps there). Ours differ in what they see
(the time to go besides), in that the horizon is a terminal state (Gymnasium's is a truncation), in scaled rewards,
smooth activations, and several environments at once.

Both are judged by the same deterministic rollouts from the same 100 starts: by the weights that were best from 500
other starts on the way ("best"), and, from 500 starts, by those at the end ("final"). Writes
``results/pendulum_reference.json`` after every run, and goes on where it stopped. One thread.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dpcontrol.problems import pendulum_torque
from torch import Tensor

from dpcontrol.problem import Problem
from dpcontrol.run import run
from dpcontrol.strategies.learning.ppo_sac import PPO, SAC

RECORD = Path(__file__).parent / "results" / "pendulum_reference.json"
STEPS = {"ppo": 100_000, "sac": 10_000}  # half of the zoo's for SAC: it has learned it by then
PUBLISHED = {
    "ppo": {"mean return": -172.2, "standard deviation of episodes": 104.2, "environment steps": 100_000},
    "sac": {"mean return": -157.0, "standard deviation of episodes": 88.7, "environment steps": 20_000},
    "source": "rl-baselines3-zoo, benchmark.md, Pendulum-v1: one trained agent each, 750 episodes",
}
VALIDATIONS, STARTS = 20, 500
ZOO = PPO(
    steps=STEPS["ppo"], environments=16, rollout=256, minibatches=64, epochs=10, discount=0.9, trace=0.95,
    learning_rate=1e-3, spread=-0.69, state_noise=4, width=64, validation=STARTS,
    validate_every=STEPS["ppo"] // VALIDATIONS,
)  # fmt: skip
ZOO_SAC = SAC(
    steps=STEPS["sac"], environments=8, updates=1.0, warmup=100, batch=256, discount=0.99, learning_rate=1e-3,
    width=256, memory=20_000, validation=STARTS,
    validate_every=STEPS["sac"] // VALIDATIONS,
)  # fmt: skip
OURS = {
    # a spread of 1 in N m, as theirs: our actions are halves of the range of 4 N m
    "ppo": ZOO,
    "ppo, twice the noise": replace(ZOO, spread=0.0),
    "sac": ZOO_SAC,
    # with rewards that are scaled the usual first weight of the entropy bonus is too large
    "sac, temperature 1": replace(ZOO_SAC, temperature=1.0),
}  # fmt: skip


def theirs(name: str, seed: int) -> dict[str, Any]:
    """Stable-Baselines3's own learner on Gymnasium's own environment."""
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    if name == "ppo":
        model: Any = stable_baselines3.PPO(
            "MlpPolicy", make_vec_env("Pendulum-v1", n_envs=4, seed=seed), n_steps=1024, gae_lambda=0.95, gamma=0.9,
            n_epochs=10, ent_coef=0.0, learning_rate=1e-3, clip_range=0.2, use_sde=True, sde_sample_freq=4, seed=seed,
            device="cpu",
        )  # fmt: skip
    else:
        env = make_vec_env("Pendulum-v1", n_envs=1, seed=seed)
        model = stable_baselines3.SAC("MlpPolicy", env, learning_rate=1e-3, seed=seed, device="cpu")
    others = validating(seed)
    every, found = STEPS[name] // VALIDATIONS, []

    class Validating(BaseCallback):
        """Notes the return from the validation starts and from those of the judgement."""

        def _on_step(self) -> bool:
            if self.num_timesteps >= every * (len(found) + 1):
                found.append([float(returns(problem, model).mean()) for problem in (others, JUDGED)])
            return True

    model.learn(STEPS[name], callback=Validating())
    best = max(range(len(found)), key=lambda row: found[row][0])
    return {
        "best": found[best][1],
        "final": float(returns(others, model).mean()),
        "curve": [round(pair[0], 1) for pair in found],
    }


def ours(name: str, seed: int) -> dict[str, Any]:
    """Our strategy on our problem."""
    solution = run(JUDGED, OURS[name], seed=seed)
    latest = [-value for value in solution.history["latest"]]
    return {"best": -solution.loss, "final": latest[-1], "curve": [round(value, 1) for value in latest]}


def validating(seed: int) -> Problem:
    """The same problem with other starts."""
    drawn = JUDGED.scenarios.draw(torch.Generator().manual_seed(1000 + seed), STARTS)
    return JUDGED.with_scenarios(drawn)


def returns(problem: Problem, model: Any) -> Tensor:
    """Returns ``(scenes,)`` of a model that was trained in Gymnasium's environment, by its deterministic actions."""

    def law(state: Tensor, t: float, scenario: Any) -> Tensor:
        action, _ = model.predict(pendulum_torque.seen(state).numpy().astype(np.float32), deterministic=True)
        return torch.as_tensor(action, dtype=state.dtype)

    return pendulum_torque.episode_return(problem.run_law(law), {})


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and standard deviations over seeds."""
    table: dict[str, Any] = {}
    for label in sorted({entry["learner"] for entry in runs}):
        own = [entry for entry in runs if entry["learner"] == label]
        table[label] = {
            "seeds": len(own),
            "cpu seconds": float(np.mean([entry["cpu seconds"] for entry in own])),
        }
        for key in ("best", "final"):
            values = np.array([entry[key] for entry in own])
            table[label][key] = {
                "mean": float(values.mean()),
                "spread": float(values.std(ddof=min(1, len(own) - 1))),
            }
    return table


def read() -> list[dict[str, Any]]:
    """The runs so far."""
    return json.loads(RECORD.read_text())["runs"] if RECORD.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="parts of labels, such as sb3 or sac")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    law = JUDGED.run_law(pendulum_torque.energy_shaping)
    baseline = float(pendulum_torque.episode_return(law, {}).mean())
    contenders = [("sb3", theirs, name) for name in STEPS] + [("ours", ours, name) for name in OURS]
    for who, learner, name in sorted(contenders, key=lambda entry: entry[2]):
        for seed in range(chosen.seeds):
            label = f"{who} {name}"
            done = any(entry["learner"] == label and entry["seed"] == seed for entry in read())
            if done or not all(part in label for part in chosen.only):
                continue
            began = time.process_time()
            found = learner(name, seed)
            spent = round(time.process_time() - began, 1)
            # read anew: another process may run the other learners
            runs = [*read(), {"learner": label, "seed": seed, **found, "cpu seconds": spent}]
            print(json.dumps(runs[-1]), flush=True)
            record = {
                "command": "python tests/benchmarks/pendulum_reference.py",
                "published": PUBLISHED,
                "energy shaping": baseline,
                "environment steps": STEPS,
                "summary": summary(runs),
                "runs": runs,
            }
            RECORD.write_text(json.dumps(record, indent=1) + "\n")


JUDGED = pendulum_torque.problem()

if __name__ == "__main__":
    main()
