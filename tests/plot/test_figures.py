"""Figures: what is drawn of which trajectory, and that drawing changes nothing else."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from dpcontrol.engine import Trajectory
from dpcontrol.plot import Words, own_figure, solution_figure, wanted_quantities, write
from dpcontrol.plot.beside import trajectory_figures
from dpcontrol.plot.curves import Course, Level, Mark, convergence_figure, interval_figure, median_course
from dpcontrol.plot.fields import IMAGE, LINES, PROFILE, quantities
from dpcontrol.plot.style import PALETTE, as_svg, colours, extend_of, shared_scale

HISTORY = {
    "simulated_steps": [10, 20, 30],
    "seconds": [0.1, 0.2, 0.4],
    "loss": [3.0, 2.0, 1.0],
    "latest": [3.0, float("nan"), 1.5],
}
TIMES = torch.arange(11) * 0.1


def trajectory(*shape: int, control: bool = True) -> Trajectory:
    states = torch.linspace(-1, 1, 11).reshape(-1, *[1] * (1 + len(shape))).expand(11, 3, *shape)
    return Trajectory({"u": states}, states[1:] if control else None, TIMES)


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        ((), [LINES]),
        ((2,), [LINES]),
        ((40,), [PROFILE]),
        ((2, 40), [PROFILE, PROFILE]),
        ((40, 2), [PROFILE, PROFILE]),
        ((16, 12), [IMAGE]),
        ((2, 16, 12), [IMAGE, IMAGE]),
        ((16, 12, 2), [IMAGE, IMAGE]),
        ((1, 16, 12), [IMAGE]),
        ((16, 12, 10), [IMAGE]),
    ],
)
def test_what_a_state_is_drawn_as(shape: tuple[int, ...], kinds: list[str]) -> None:
    found = quantities(trajectory(*shape).states, "state", limit=4)
    assert [quantity.kind for quantity in found] == kinds
    assert all(quantity.values.shape[:2] == (11, 3) for quantity in found)
    assert found[0].name.startswith("state u")


@pytest.mark.parametrize("shape", [(), (2,), (40,), (16, 12)])
@pytest.mark.parametrize("history", [HISTORY, {}])
def test_a_solution_figure_for_every_kind(
    shape: tuple[int, ...], history: dict[str, list[float]], tmp_path: Path
) -> None:
    before = dict(matplotlib.rcParams)
    found = trajectory(*shape, control=shape != (2,))
    wanted = wanted_quantities("['u']", (10,), 0.5 * found.states["u"][-1:])
    figure = solution_figure(found, history, words=Words("a title", "a subtitle"), wanted=wanted)
    write(figure, tmp_path / "solution.png")
    assert (tmp_path / "solution.png").read_bytes().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    shown = {text.get_text() for text in figure.findobj(matplotlib.text.Text)}
    assert {"a title", "a subtitle", "target"} <= shown
    panels = [axes for axes in figure.findobj(matplotlib.axes.Axes) if axes.axison]
    assert all(axes.has_data() for axes in panels)


def test_a_diverged_trajectory_is_still_drawn() -> None:
    states = torch.full((11, 2, 40), float("nan"))
    as_svg(solution_figure(Trajectory(states, None, TIMES), HISTORY))


def test_lines_have_the_names_of_what_they_are() -> None:
    figure = solution_figure(
        trajectory(2), HISTORY, words=Words(states=("angle", "speed"), controls=("a", "b"))
    )
    labels = {text.get_text() for text in figure.findobj(matplotlib.text.Text)}
    assert {"angle", "speed", "a", "b"} <= labels


def test_a_figure_of_the_problem_that_fails_says_so() -> None:
    def draw(figure: object, solutions: object) -> None:
        raise KeyError("no such scene")

    figure = own_figure("scenes", draw, {})
    assert "'scenes' of the problem failed: KeyError" in figure.texts[0].get_text()


@pytest.mark.parametrize(
    ("low", "high", "ends"), [(0, 1, "neither"), (-1, 1, "min"), (0, 2, "max"), (-1, 2, "both")]
)
def test_colour_bars_say_where_numbers_leave_the_scale(low: float, high: float, ends: str) -> None:
    assert extend_of(np.array([low, high, np.nan]), (0.0, 1.0)) == ends


@pytest.mark.parametrize("shape", [(), (40,), (16, 12)])
def test_trajectories_beside_each_other(shape: tuple[int, ...]) -> None:
    found = {"a": trajectory(*shape), "uncontrolled": trajectory(*shape)}
    figures = trajectory_figures(found, colours(["a"], ["uncontrolled"]), {"uncontrolled": "--"}, 0)
    assert figures
    for figure in figures.values():
        assert as_svg(figure).startswith(b"<?xml")


def test_the_median_course_holds_the_last_loss_of_a_run_that_ended() -> None:
    short = {"seconds": [1.0, 2.0], "loss": [4.0, 3.0]}
    long = {"seconds": [1.0, 4.0], "loss": [4.0, 1.0]}
    grid, (low, middle, high) = median_course([short, long], "seconds")
    assert grid[0] == pytest.approx(1.0) and grid[-1] == pytest.approx(4.0)
    assert (low[-1], middle[-1], high[-1]) == (1.0, 2.0, 3.0)
    assert median_course([{"seconds": [1.0], "loss": [float("inf")]}], "seconds") is None


def test_convergence_and_interval_figures() -> None:
    figure = convergence_figure(
        [Course("a", PALETTE[0], [HISTORY, HISTORY])], [Level("law", 2.5, "#888888", "--")]
    )
    assert [axes.get_xlabel() for axes in figure.axes] == ["simulated steps", "seconds"]
    marks = [Mark("a", 1.0, (0.9, 1.1), PALETTE[0]), Mark("b", float("nan"), None, PALETTE[1])]
    as_svg(interval_figure({"loss": marks}))
    as_svg(figure)


def test_colours_are_stable_and_distinct() -> None:
    found = colours(["a", "b", "c"], ["law"])
    assert found["a"] == PALETTE[0] and len(set(found.values())) == 4
    strategies = [
        "lbfgs",
        "adjoint",
        "policy",
        "planner",
        "shac",
        "mpc",
        "ppo",
        "sac",
        "cmaes",
        "cem",
        "mppi",
        "evolved_policy",
    ]
    assert len(set(colours(strategies, ["law", "other"]).values())) == len(strategies) + 2


def test_a_shared_scale_is_not_set_by_the_wildest() -> None:
    usual = [np.linspace(-1, 1, 100)] * 3
    assert shared_scale([*usual, np.linspace(-50, 50, 100)])["vmax"] < 2


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert as_svg(solution_figure(trajectory(2), HISTORY)) == as_svg(solution_figure(trajectory(2), HISTORY))
