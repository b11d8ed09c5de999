"""Jobs in this process and in workers: values, events, deaths, Ctrl-C, output, threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpcontrol.sweep import Job, run_jobs

Report = Callable[[dict[str, Any]], None]


def square(x: int, report: Report) -> int:
    return x * x


def who(seconds: float, report: Report) -> int:
    time.sleep(seconds)
    return os.getpid()


def fail(report: Report) -> None:
    raise RuntimeError("no such luck")


def leave(report: Report) -> None:
    sys.exit(3)


def die(report: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def drop_out(report: Report) -> None:
    os._exit(7)


def chatter(report: Report) -> str:
    print("hello from Python")
    os.write(1, b"hello from C\n")
    return "quiet" + sys.stdin.read()


def count_up(report: Report, n: int = 20_000) -> None:
    report({"started": True})
    for step in range(n):
        report({"step": step})


def unpicklable(report: Report) -> Any:
    return threading.Lock()


def patient(seconds: float, report: Report) -> str:
    """A job that handles Ctrl-C and returns what it has, as a run does."""
    try:
        report({"running": True})
        time.sleep(seconds)
    except KeyboardInterrupt:
        return "best so far"
    return "finished"


def deaf(seconds: float, report: Report) -> str:
    report({"running": True})
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(end - time.monotonic())
        except KeyboardInterrupt:
            report({"heard": True})
            time.sleep(0.3)
            report({"heard": True})
    return "finished"


@pytest.mark.parametrize("workers", [0, 2])
def test_outcomes_come_in_the_order_of_the_jobs(workers: int) -> None:
    jobs = [(f"job {x}", square, {"x": x}) for x in range(7)]
    outcomes = run_jobs(jobs, workers=workers)
    assert [outcome.value for outcome in outcomes] == [x * x for x in range(7)]
    assert [outcome.name for outcome in outcomes] == [f"job {x}" for x in range(7)]
    assert not any(outcome.interrupted or outcome.error for outcome in outcomes)
    assert run_jobs([], workers=workers) == []


def test_workers_are_other_processes_that_stay_and_share_the_work() -> None:
    outcomes = run_jobs([Job("who", who, {"seconds": 0.2})] * 6, workers=2)
    pids = {outcome.value for outcome in outcomes}
    assert len(pids) == 2 and os.getpid() not in pids
    assert all(outcome.seconds >= 0.2 for outcome in outcomes)


def test_closures_travel_by_value() -> None:
    offset = 40
    outcomes = run_jobs([("closure", lambda report: offset + 2, {})], workers=1)
    assert outcomes[0].value == 42


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_is_the_traceback_of_its_job_only(workers: int) -> None:
    jobs = [("fails", fail, {}), ("leaves", leave, {}), ("works", square, {"x": 3})]
    failed, left, worked = run_jobs(jobs, workers=workers)
    assert failed.error is not None and "no such luck" in failed.error and "in fail" in failed.error
    assert left.error is not None and "SystemExit: 3" in left.error
    assert worked.value == 9


def test_a_dead_worker_is_replaced() -> None:
    jobs = [("killed", die, {}), ("one", square, {"x": 1}), ("gone", drop_out, {}), ("two", square, {"x": 2})]
    killed, one, gone, two = run_jobs(jobs, workers=1)
    assert killed.error is not None and "'killed' was killed by signal 9 (SIGKILL" in killed.error
    assert gone.error is not None and "'gone' ended with exit code 7" in gone.error
    assert (one.value, two.value) == (1, 4)
    assert not killed.interrupted


def test_what_cannot_be_sent_is_the_error_of_its_job() -> None:
    jobs = [
        ("argument", square, {"x": threading.Lock()}),
        ("answer", unpicklable, {}),
        ("works", square, {"x": 3}),
    ]
    argument, answer, works = run_jobs(jobs, workers=1)
    assert argument.error is not None and "cannot be sent to a worker process" in argument.error
    assert answer.error is not None and "cannot be sent to the parent process" in answer.error
    assert works.value == 9


def test_what_a_job_prints_is_not_taken_for_an_answer(capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = run_jobs([("chatter", chatter, {})] * 2, workers=1)
    assert [outcome.value for outcome in outcomes] == ["quiet", "quiet"]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("hello from Python") == 2 and err.count("hello from C") == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_events_are_few_and_lose_no_key_and_no_last_value(workers: int) -> None:
    events: list[tuple[int, dict[str, Any]]] = []
    jobs = [("square", square, {"x": 1}), ("count", count_up, {})]
    start = time.monotonic()
    run_jobs(jobs, workers=workers, on_event=lambda index, event: events.append((index, event)))
    assert {index for index, _ in events} == {1}
    assert events[0][1] == {"started": True}
    assert events[-1][1] == {"step": 19_999}
    assert len(events) <= 2 + (time.monotonic() - start) / 0.25


def test_an_exception_of_the_listener_ends_the_workers_and_goes_through() -> None:
    def refuse(index: int, event: dict[str, Any]) -> None:
        raise LookupError("stop here")

    start = time.monotonic()
    with pytest.raises(LookupError, match="stop here"):
        run_jobs([("long", patient, {"seconds": 60.0})], workers=1, on_event=refuse)
    assert time.monotonic() - start < 20


def test_a_thread_limit_reaches_the_libraries_of_a_worker() -> None:
    def threads(report: Report) -> tuple[str, int]:
        import torch

        return os.environ["MKL_NUM_THREADS"], torch.get_num_threads()

    for count in (1, 2):
        (outcome,) = run_jobs([("threads", threads, {})], workers=1, threads_per_worker=count)
        assert outcome.value == (str(count), count)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers is -1"):
        run_jobs([], workers=-1)
    with pytest.raises(ValueError, match="threads_per_worker is 0"):
        run_jobs([], workers=1, threads_per_worker=0)


def interrupting(pid_of: Callable[[], int], times: int = 1) -> Callable[[int, dict[str, Any]], None]:
    """A listener that sends SIGINT when the first job runs."""
    sent: list[int] = []

    def listen(index: int, event: dict[str, Any]) -> None:
        if len(sent) < times:
            sent.append(index)
            os.kill(pid_of(), signal.SIGINT)

    return listen


def test_ctrl_c_lets_the_running_job_return_and_starts_no_other() -> None:
    jobs = [("first", patient, {"seconds": 60.0}), ("second", patient, {"seconds": 60.0})]
    for workers in (0, 1):
        before = signal.getsignal(signal.SIGINT)
        start = time.monotonic()
        first, second = run_jobs(jobs, workers=workers, on_event=interrupting(os.getpid))
        assert first.value == "best so far" and not first.interrupted
        assert second.interrupted and second.value is None and second.error is None
        assert time.monotonic() - start < 20
        assert signal.getsignal(signal.SIGINT) is before


def test_a_job_that_does_not_handle_ctrl_c_is_interrupted() -> None:
    jobs = [("first", who, {"seconds": 60.0}), ("second", who, {"seconds": 60.0})]
    for workers in (0, 2):
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        outcomes = run_jobs(jobs, workers=workers)
        assert [outcome.interrupted for outcome in outcomes] == [True, True]


def test_a_second_ctrl_c_kills() -> None:
    start = time.monotonic()
    jobs = [("deaf", deaf, {"seconds": 60.0})]
    (outcome,) = run_jobs(jobs, workers=1, on_event=interrupting(os.getpid, times=2))
    assert outcome.interrupted and outcome.value is None
    assert time.monotonic() - start < 20


def test_after_the_grace_a_deaf_job_is_killed() -> None:
    start = time.monotonic()
    jobs = [("deaf", deaf, {"seconds": 60.0})]
    (outcome,) = run_jobs(jobs, workers=1, on_event=interrupting(os.getpid), grace=0.5)
    assert outcome.interrupted
    assert time.monotonic() - start < 20


SCRIPT = """
import os, sys, time
from dpcontrol.sweep import run_jobs

def patient(report):
    try:
        report({"pid": os.getpid()})
        time.sleep(60)
    except KeyboardInterrupt:
        return "best so far"

def tell(index, event):
    print(event["pid"], flush=True)

outcomes = run_jobs([("a", patient, {}), ("b", patient, {}), ("c", patient, {})], workers=2, on_event=tell)
print([outcome.value or outcome.interrupted for outcome in outcomes], flush=True)
"""


def start_script(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """The script in its own process group, as at a terminal; the process ids of its two busy workers."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    return process, [int(process.stdout.readline()) for _ in range(2)]


def test_ctrl_c_at_a_terminal_reaches_a_script_without_main_guard(tmp_path: Path) -> None:
    process, _ = start_script(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # the terminal signals the whole group
    output, _ = process.communicate(timeout=20)
    assert output.strip() == "['best so far', 'best so far', True]"
    assert process.returncode == 0


def test_workers_do_not_survive_their_killed_parent(tmp_path: Path) -> None:
    process, workers = start_script(tmp_path)
    process.kill()
    process.communicate(timeout=20)
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # an orphan that nobody waits for stays as a zombie in some containers
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")
