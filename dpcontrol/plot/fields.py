"""Trajectories as pictures: lines over time, space-time images of 1-D fields, rows of images of 2-D fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol import tree
from dpcontrol.engine.trajectory import Trajectory
from dpcontrol.plot.curves import draw_history
from dpcontrol.plot.style import PALETTE, colour_scale, new_figure, shared_scale, styled
from dpcontrol.tree import Tree

LINES, PROFILE, IMAGE = "lines", "profile", "image"
FEW = 8  # up to so many entries are drawn as lines over time; more of them are a field
CHANNELS = 4  # an axis up to this long beside a field axis counts components
SNAPSHOTS = 5


@dataclass(frozen=True)
class Quantity:
    """A part of a state or control that is drawn as one thing.

    ``values`` are ``(times, scenarios, components)`` for ``lines``, ``(times, scenarios, cells)`` for a ``profile``
    and ``(times, scenarios, rows, columns)`` for an ``image``.
    """

    name: str
    kind: str
    values: np.ndarray


def quantities(value: Tree, name: str, limit: int = 3) -> list[Quantity]:
    """What can be drawn of a tree with leaves ``(times, scenarios, ...)``, the first ``limit`` of it."""
    found: list[Quantity] = []
    for path, leaf in tree.named_leaves(value):
        found += _of_leaf(f"{name}{_tidy(path)}", leaf.detach().to("cpu").double().numpy())
    return found[:limit]


def _tidy(path: str) -> str:
    for mark in "[]'.":
        path = path.replace(mark, " ")
    return "".join(f" {word}" for word in path.split())


def _of_leaf(name: str, values: np.ndarray) -> list[Quantity]:
    if values.ndim == 1:
        values = values[:, None]
    sizes = values.shape[2:]
    if int(np.prod(sizes)) <= FEW:
        return [Quantity(name, LINES, values.reshape(*values.shape[:2], -1))]
    if len(sizes) == 1:
        return [Quantity(name, PROFILE, values)]
    for axis in (2, values.ndim - 1):
        if values.shape[axis] <= CHANNELS:
            parts = np.moveaxis(values, axis, 0)
            names = [name] if len(parts) == 1 else [f"{name} {index + 1}" for index in range(len(parts))]
            return [quantity for n, part in zip(names, parts, strict=True) for quantity in _of_leaf(n, part)]
    if len(sizes) == 2:
        return [Quantity(name, IMAGE, values)]
    return _of_leaf(f"{name} (middle slice)", values[:, :, sizes[0] // 2])


def solution_figure(
    trajectory: Trajectory,
    history: Mapping[str, Sequence[Any]],
    *,
    title: str = "",
    scenario: int = 0,
) -> Any:
    """One solution on one page: how the loss fell, the states, the controls.

    Args:
        trajectory: states ``(horizon + 1, scenarios, ...)`` and controls ``(horizon, scenarios, ...)``, trees.
        history: columns ``simulated_steps, loss, latest`` as in a solution; may be empty.
        title: above the figure.
        scenario: the one whose fields are drawn; lines over time show the others faintly.

    Returns:
        A matplotlib ``Figure`` (not known to pyplot).
    """
    shown = quantities(trajectory.states, "state") + quantities(trajectory.controls, "control", limit=2)
    times = trajectory.times.double().numpy()
    told = len(history.get("loss", ())) > 1
    with styled():
        wide = [quantity for quantity in shown if quantity.kind == IMAGE]
        small = [quantity for quantity in shown if quantity.kind != IMAGE]
        top = int(told) + len(small)
        deep = any(quantity.kind == PROFILE for quantity in small)
        upper = (5.6 if deep else 3.3) if top else 0.0
        figure = new_figure(max(4.3 * top, 10.5 if wide else 5.0), 0.55 + upper + 2.3 * len(wide))
        figure.suptitle(title, x=0.012, ha="left")
        parts = figure.subfigures(
            bool(top) + len(wide), 1, height_ratios=[upper] * bool(top) + [2.3] * len(wide), squeeze=False
        )[:, 0]
        if top:
            columns = parts[0].subfigures(1, top, squeeze=False)[0]
            if told:
                draw_history(columns[0].subplots(), history)
            for part, quantity in zip(columns[int(told) :], small, strict=True):
                _draw_small(part, quantity, times, scenario)
        for part, quantity in zip(parts[int(bool(top)) :], wide, strict=True):
            draw_images(part, {"": quantity}, times, scenario)
    return figure


def _draw_small(part: Any, quantity: Quantity, times: np.ndarray, scenario: int) -> None:
    if quantity.kind == LINES:
        axes = part.subplots()
        draw_lines(axes, quantity, times, scenario)
        axes.set_title(quantity.name)
        return
    upper, lower = part.subplots(2, 1)
    image = draw_space_time(upper, quantity, times, scenario)
    part.colorbar(image, ax=upper, pad=0.02, aspect=18)
    upper.set(xlabel="cell", ylabel="time")
    upper.set_title(f"{quantity.name}, scenario {scenario}")
    draw_snapshots(lower, quantity, times, scenario)


def draw_lines(axes: Any, quantity: Quantity, times: np.ndarray, scenario: int) -> None:
    """Components over time: one scenario boldly, up to twenty others faintly behind it."""
    values, count = quantity.values, quantity.values.shape[2]
    at, values, style = staircase(times, values)
    for component in range(count):
        colour = PALETTE[component % len(PALETTE)]
        others = [s for s in range(min(values.shape[1], 21)) if s != scenario]
        if others:
            axes.plot(at, values[:, others, component], color=colour, alpha=0.16, lw=0.9, drawstyle=style)
        label = f"{component + 1}" if count > 1 else None
        axes.plot(at, values[:, scenario, component], color=colour, drawstyle=style, label=label)
    axes.set_xlabel("time")
    axes.margins(x=0.01)
    if count > 1:
        axes.legend(ncols=min(count, 4), loc="best", handlelength=1.2, columnspacing=1.0)


def staircase(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Times, values and the drawing style: a control holds over its step, so it is drawn until the end of the last."""
    if len(values) == len(times):
        return times, values, "default"
    return times[: len(values) + 1], np.concatenate([values, values[-1:]]), "steps-post"


def draw_space_time(axes: Any, quantity: Quantity, times: np.ndarray, scenario: int, **scale: Any) -> Any:
    """A 1-D field as an image: cells to the right, time upwards."""
    field = quantity.values[:, scenario]
    extent = (-0.5, field.shape[1] - 0.5, float(times[0]), float(times[-1]))
    axes.grid(False)
    return axes.imshow(field, aspect="auto", extent=extent, **(scale or colour_scale(field)))


def draw_snapshots(axes: Any, quantity: Quantity, times: np.ndarray, scenario: int) -> None:
    """A 1-D field at a few times, from light (first) to dark (last)."""
    from matplotlib import colormaps

    moments = np.unique(np.linspace(0, len(quantity.values) - 1, SNAPSHOTS).round().astype(int))
    for place, k in zip(np.linspace(0.82, 0.05, len(moments)), moments, strict=True):
        axes.plot(
            quantity.values[k, scenario],
            color=colormaps["viridis"](place),
            lw=1.6,
            label=f"{times[k]:.3g}" if k else "t = 0",
        )
    axes.set(xlabel="cell")
    axes.margins(x=0.01)
    axes.legend(
        fontsize=8.5, handlelength=0.9, handletextpad=0.4, columnspacing=0.9, ncols=len(moments), borderaxespad=0.2,
        loc="lower center", bbox_to_anchor=(0.5, 1.0),
    )  # fmt: skip


def draw_images(
    part: Any, found: Mapping[str, Quantity], times: np.ndarray, scenario: int, *, titled: bool = True
) -> None:
    """2-D fields at six times, first axis to the right, second upwards: a row for each label, one colour scale."""
    first = next(iter(found.values()))
    moments = np.unique(np.linspace(0, len(first.values) - 1, 6).round().astype(int))
    scale = shared_scale([quantity.values[:, scenario] for quantity in found.values()])
    grid = part.subplots(len(found), len(moments), squeeze=False)
    for row, (label, quantity) in zip(grid, found.items(), strict=True):
        for axes, k in zip(row, moments, strict=True):
            image = axes.imshow(quantity.values[k, scenario].T, **scale)
            axes.grid(False)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
        row[0].set_ylabel(label)
    for axes, k in zip(grid[0], moments, strict=True):
        axes.set_title(f"t = {times[k]:.3g}", fontsize=10, fontweight="normal", loc="center")
    if titled:
        part.suptitle(first.name, x=0.012, ha="left", fontsize=11.5)
    part.colorbar(image, ax=grid, pad=0.01, aspect=16 * len(found), shrink=0.9)
