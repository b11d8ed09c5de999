"""A sampler that is killed goes on to the same draws, to the bit, in one process and in two."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

import dpcontrol as dp

KILLED = textwrap.dedent(
    '''
    """A slow problem, so that it can be killed."""
    import time
    import torch
    import dpcontrol as dp
    from dpcontrol.problem import Gaussian, inference_problem, observe

    def step(state, control):
        time.sleep(0.002)
        return 0.9 * state + 0.1 * state.sin()

    def problem(*, size="full", seed=0):
        generator = torch.Generator().manual_seed(seed)
        return inference_problem(
            step,
            data=torch.randn(3, 1, 3, generator=generator, dtype=torch.float64),
            observation=observe(noise=Gaussian(0.5)),
            initial_state=torch.zeros(1, 3, dtype=torch.float64),
            horizon=2,
            prior={"initial_state": torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), 1.0)},
            name="slow",
        )
    '''
)


@pytest.mark.slow
@pytest.mark.parametrize("name, fields", [("nuts", ""), ("nuts", "workers=2"), ("pcn", "thin=3")])
def test_kill_9_loses_nothing_that_resume_does_not_bring_back(name, fields, tmp_path):
    path = tmp_path / "slow.py"
    path.write_text(KILLED)
    command = [sys.executable, "-m", "dpcontrol"]
    asked = ["solve", str(path), "--strategy", name, "--simulated-steps", "1000000", "--quiet"]
    for field in ("chains=4", "warmup=80", "draws=120", *([fields] if fields else [])):
        asked += ["--set", field]
    process = subprocess.Popen(
        [*command, *asked, "--output", str(tmp_path / "run")], stdout=subprocess.DEVNULL
    )
    wanted = tmp_path / "run" / "state.safetensors"
    deadline = time.time() + 120
    while time.time() < deadline and not wanted.exists():
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "run" / "solution.safetensors").exists()
    for rest in (["resume", str(tmp_path / "run"), "--quiet"], [*asked, "--output", str(tmp_path / "whole")]):
        subprocess.run([*command, *rest], check=True, stdout=subprocess.DEVNULL)
    whole, resumed = dp.Solution.load(tmp_path / "whole"), dp.Solution.load(tmp_path / "run")
    assert torch.equal(whole.draws.free, resumed.draws.free)
    assert torch.equal(whole.draws.steps, resumed.draws.steps)
    assert whole.counts == resumed.counts and whole.status == resumed.status
