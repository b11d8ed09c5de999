"""Live progress, on a pipe and on a terminal."""

import io

import pytest

from dpcontrol.comparison.display import Display


def test_a_pipe_gets_a_line_at_start_and_end_a_terminal_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpcontrol.comparison.display.REDRAW_SECONDS", -1.0)
    pipe = io.StringIO()
    display = Display(["a", "b, seed 0"], 1, pipe)
    display.event(0, {"state": "started"})
    display.event(0, {"loss": 2.0, "fraction": 0.5})
    display.event(0, {"state": "ended", "loss": 1.0, "text": "converged"})
    display.close()
    assert pipe.getvalue().splitlines()[0].split() == ["a", "started"]
    assert "converged" in pipe.getvalue() and "\x1b" not in pipe.getvalue()
    assert "1 of 2" in pipe.getvalue()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    live = Display(["a"], 1, screen)
    live.event(0, {"state": "started"})
    live.event(0, {"loss": 2.0, "fraction": 0.5})
    live.close()
    assert "50 % of budget" in screen.getvalue() and "\x1b[" in screen.getvalue()


def test_what_is_known_about_the_time_left_reaches_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("dpcontrol.comparison.display.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    display = Display(["a, seed 0", "a, seed 1", "b"], 1, stream)
    assert display.seconds_left() is None
    display.event(0, {"state": "started"})
    clock[0] = 110.0
    display.event(0, {"fraction": 0.5})
    assert display.seconds_left() == pytest.approx(10 + 20 + 20)
    clock[0] = 116.0
    display.event(0, {"state": "ended", "fraction": 1.0})
    assert display.seconds_left() == pytest.approx(16 + 16)
    assert "(1 of 3, about 32 s left)" in stream.getvalue()
    for index in (1, 2):
        display.event(index, {"state": "ended"})
    assert stream.getvalue().endswith("(3 of 3)\n")
