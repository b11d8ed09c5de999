"""Trajectories as pictures: lines over time, space-time images of 1-D fields, rows of images of 2-D fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol import tree
from dpcontrol.plot.style import INK, MUTED, PALETTE, colour_scale, extend_of, shared_scale
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


@dataclass(frozen=True)
class Wanted:
    """What a quantity should be: ``values`` like those of a :class:`Quantity`, one row for each of ``steps``."""

    steps: tuple[int, ...]
    values: np.ndarray

    def at(self, step: int) -> np.ndarray | None:
        """The row of a step, ``(scenarios, ...)``; ``None`` where nothing is wanted."""
        return self.values[self.steps.index(step)] if step in self.steps else None


def wanted_quantities(path: str, steps: Sequence[int], values: Any, name: str = "state") -> dict[str, Wanted]:
    """What parts of a leaf of a trajectory should be, by the names that :func:`quantities` gives to them.

    Args:
        path: of the leaf in its tree.
        steps: when something is wanted.
        values: a tensor ``(len(steps), scenarios, ...)``.
        name: of the tree.
    """
    found = _of_leaf(f"{name}{_tidy(path)}", values.detach().to("cpu").double().numpy())
    return {quantity.name: Wanted(tuple(steps), quantity.values) for quantity in found}


def quantities(value: Tree, name: str, limit: int = 3) -> list[Quantity]:
    """What can be drawn of a tree with leaves ``(times, scenarios, ...)``, the first ``limit`` of it."""
    found: list[Quantity] = []
    for path, leaf in tree.named_leaves(value):
        found += _of_leaf(f"{name}{_tidy(path)}", leaf.detach().to("cpu").double().numpy())
    return found[:limit]


def _tidy(path: str) -> str:
    for mark in "[]'._":
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


def draw_lines(
    axes: Any,
    quantity: Quantity,
    times: np.ndarray,
    scenario: int,
    *,
    wanted: Wanted | None = None,
    names: Sequence[str] = (),
) -> None:
    """Components over time: one scenario boldly, up to twenty others faintly behind it; circles where it should be."""
    values, count = quantity.values, quantity.values.shape[2]
    at, values, style = staircase(times, values)
    labels = names if len(names) == count else [f"{component + 1}" for component in range(count)]
    for component in range(count):
        colour = PALETTE[component % len(PALETTE)]
        others = [s for s in range(min(values.shape[1], 21)) if s != scenario]
        if others:
            axes.plot(at, values[:, others, component], color=colour, alpha=0.16, lw=0.9, drawstyle=style)
        label = labels[component] if count > 1 else None
        axes.plot(at, values[:, scenario, component], color=colour, drawstyle=style, label=label)
        if wanted is not None:
            _draw_wanted(axes, times[list(wanted.steps)], wanted.values[:, scenario, component], colour)
    if wanted is not None:
        axes.plot([], [], "o", mfc="none", color=MUTED, label="target")
    axes.set_xlabel("time")
    axes.margins(x=0.02)
    if count > 1 or wanted is not None:
        entries = count + (wanted is not None)
        axes.legend(
            ncols=min(entries, 5), fontsize=9, handlelength=1.2, columnspacing=1.0, borderaxespad=0.1,
            loc="lower right", bbox_to_anchor=(1.0, 1.0),
        )  # fmt: skip


def _draw_wanted(axes: Any, at: np.ndarray, values: np.ndarray, colour: str) -> None:
    """A few circles, or dots along the way."""
    marker = {"marker": "o", "ms": 7, "mfc": "none", "mew": 1.5} if len(at) <= FEW else {"ls": ":", "lw": 1.4}
    axes.plot(at, values, **{"ls": "none", "color": colour, "clip_on": False, "zorder": 4, **marker})


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


def draw_snapshots(
    axes: Any, quantity: Quantity, times: np.ndarray, scenario: int, *, wanted: Wanted | None = None
) -> None:
    """A 1-D field at a few times, from light (first) to dark (last); dotted what it should be at the end."""
    from matplotlib import colormaps

    moments = np.unique(np.linspace(0, len(quantity.values) - 1, SNAPSHOTS).round().astype(int))
    for place, k in zip(np.linspace(0.82, 0.05, len(moments)), moments, strict=True):
        axes.plot(
            quantity.values[k, scenario],
            color=colormaps["viridis"](place),
            lw=1.6,
            label=f"{times[k]:.3g}" if k else "t = 0",
        )
    target = None if wanted is None else wanted.at(len(quantity.values) - 1)
    if target is not None:
        axes.plot(target[scenario], ls=(0, (1, 1.5)), color=PALETTE[1], lw=2.2, label="target")
    axes.set(xlabel="cell")
    axes.margins(x=0.01)
    axes.legend(
        fontsize=8.5, handlelength=0.9, handletextpad=0.4, columnspacing=0.9, ncols=len(moments) + 1, borderaxespad=0.2,
        loc="lower center", bbox_to_anchor=(0.5, 1.0),
    )  # fmt: skip


def draw_images(
    part: Any,
    found: Mapping[str, Quantity],
    times: np.ndarray,
    scenario: int,
    *,
    titled: bool = True,
    wanted: Wanted | None = None,
    columns: int = 0,
) -> None:
    """2-D fields at six times, first axis to the right, second upwards: a row for each label, one colour scale.

    What the field should be at the end stands behind them, in a frame. With ``columns`` there is room for so many
    panels, so that several of these stand below each other.
    """
    first = next(iter(found.values()))
    moments = np.unique(np.linspace(0, len(first.values) - 1, 6).round().astype(int))
    target = None if wanted is None else wanted.at(len(first.values) - 1)
    shown = [quantity.values[:, scenario] for quantity in found.values()]
    scale = colour_scale(shown[0]) if len(shown) == 1 else shared_scale(shown)
    count = len(moments) + (target is not None)
    grid = part.subplots(len(found), max(columns, count), squeeze=False)
    for axes in grid[:, count:].flat:
        axes.set_axis_off()
    grid = grid[:, :count]
    for row, (label, quantity) in zip(grid, found.items(), strict=True):
        panels = [quantity.values[k, scenario] for k in moments]
        panels += [] if target is None else [target[scenario]]
        for axes, panel in zip(row, panels, strict=True):
            image = axes.imshow(panel.T, **scale)
            axes.grid(False)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
        if target is not None:
            for spine in row[-1].spines.values():
                spine.set(visible=True, color=INK, linewidth=1.6)
        row[0].set_ylabel(label)
    titles = [f"t = {times[k]:.3g}" for k in moments] + ([] if target is None else ["target"])
    for axes, title in zip(grid[0], titles, strict=True):
        weight = "bold" if title == "target" else "normal"
        axes.set_title(title, fontsize=10, fontweight=weight, loc="center")
    if titled:
        part.suptitle(first.name, x=0.012, ha="left", fontsize=11.5)
    ends = extend_of(np.stack(shown), (scale["vmin"], scale["vmax"]))
    if len(found) == 1:  # as high as the images
        part.colorbar(image, cax=grid[0, -1].inset_axes((1.08, 0.0, 0.07, 1.0)), extend=ends)
    else:
        part.colorbar(image, ax=grid, pad=0.01, aspect=16 * len(found), shrink=0.9, extend=ends)
