"""Bands of what a posterior predicts over what was measured, and fields with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpcontrol.plot.framed import Head, framed
from dpcontrol.plot.marginals import POSTERIOR, TRUTH
from dpcontrol.plot.style import INK, MUTED, colour_scale, shared_scale, styled

OUTER, INNER = (0.05, 0.95), (0.25, 0.75)


@dataclass(frozen=True)
class Band:
    """Predictions over one axis.

    Attributes:
        label: of the panel.
        across: name of the axis.
        at: places on the axis ``(points,)``.
        measured: ``(points,)``, NaN where nothing was measured.
        predicted, replicated: ``(draws, points)``, without and with noise.
        connected: whether points follow each other, so that they are joined by lines.
    """

    label: str
    across: str
    at: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    replicated: np.ndarray
    connected: bool = True


def bands_figure(bands: Sequence[Band], head: Head) -> Any:
    """Predictive bands over data, a panel for each."""
    with styled():
        columns = min(3, len(bands)) if len(bands) != 4 else 2
        rows = math.ceil(len(bands) / columns)
        figure, body = framed(head, max(7.5, 4.1 * columns), 2.75 * rows + 0.35)
        draw_bands(body, bands, columns)
    return figure


def draw_bands(part: Any, bands: Sequence[Band], columns: int) -> None:
    """Panels of bands in a (sub)figure, with one legend below them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    grid = part.subplots(math.ceil(len(bands) / columns), columns, squeeze=False)
    for axes, band in zip(grid.flat, bands, strict=False):
        _draw_band(axes, band)
    for axes in list(grid.flat)[len(bands) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=INK, marker="o", ms=4.5, ls="none", label="measured"),
        Line2D([], [], color=POSTERIOR, lw=2, label="predicted, median"),
        Patch(color=POSTERIOR, alpha=0.42, lw=0, label="predicted, 90 %"),
        Patch(color=POSTERIOR, alpha=0.16, lw=0, label="with noise, 90 %"),
    ]
    part.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9.5)


def _draw_band(axes: Any, band: Band) -> None:
    axes.set_title(band.label)
    axes.set_xlabel(band.across)
    noisy = _quantiles(band.replicated, OUTER)
    clean = _quantiles(band.predicted, (OUTER[0], 0.5, OUTER[1]))
    if band.connected:
        axes.fill_between(band.at, noisy[0], noisy[1], color=POSTERIOR, alpha=0.16, lw=0)
        axes.fill_between(band.at, clean[0], clean[2], color=POSTERIOR, alpha=0.42, lw=0)
        axes.plot(band.at, clean[1], color=POSTERIOR, lw=1.6)
    else:
        axes.vlines(band.at, noisy[0], noisy[1], color=POSTERIOR, alpha=0.22, lw=4)
        axes.vlines(band.at, clean[0], clean[2], color=POSTERIOR, alpha=0.55, lw=4)
        axes.plot(band.at, clean[1], "_", color=POSTERIOR, ms=7, mew=1.6)
    size = 4.5 if len(band.at) < 60 else 2.8
    axes.plot(band.at, band.measured, "o", color=INK, ms=size, mew=0.7, mec="white", zorder=4)
    axes.margins(x=0.03)
    axes.locator_params(nbins=5)


def _quantiles(values: np.ndarray, which: Sequence[float]) -> np.ndarray:
    """Quantiles over draws; NaN where nothing was measured."""
    found = np.full((len(which), values.shape[1]), np.nan)
    there = np.isfinite(values).all(0)
    found[:, there] = np.quantile(values[:, there], which, axis=0)
    return found


# -- fields ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FieldDraws:
    """A field that is not known exactly.

    Attributes:
        label: its name.
        values: draws ``(draws, cells)`` or ``(draws, rows, columns)``.
        prior: mean and sd of the prior, each like a draw, or ``None``.
        truth: like a draw, or ``None``.
        lengths: of the box along each axis, cell centres in it; without, axes count entries.
    """

    label: str
    values: np.ndarray
    prior: tuple[np.ndarray, np.ndarray] | None = None
    truth: np.ndarray | None = None
    lengths: tuple[float, ...] | None = None

    @property
    def places(self) -> np.ndarray:
        """Along the last axis."""
        cells = np.arange(self.values.shape[-1])
        return cells if self.lengths is None else (cells + 0.5) * (self.lengths[-1] / len(cells))


def field_figure(field: FieldDraws, head: Head) -> Any:
    """A field with its uncertainty: a curve with bands in 1-D; in 2-D images of truth, mean, sd and a draw."""
    with styled():
        if field.values.ndim == 2:
            figure, body = framed(head, 9.0, 3.5)
            draw_profile(body, field)
        else:
            count = 3 + 2 * (field.truth is not None)
            figure, body = framed(head, 2.75 * count, 2.75)
            _draw_images(body, field, count)
    return figure


def draw_profile(part: Any, field: FieldDraws, columns: int = 6) -> None:
    """A curve with bands of 50 and 90 %, and three draws; the legend has so many columns."""
    axes = part.subplots()
    cells = field.places
    low, inner_low, middle, inner_high, high = np.quantile(
        field.values, (OUTER[0], INNER[0], 0.5, INNER[1], OUTER[1]), axis=0
    )
    if field.prior is not None:
        mean, sd = field.prior
        for bound, label in ((mean - 1.645 * sd, "prior, 90 %"), (mean + 1.645 * sd, None)):
            axes.plot(cells, bound, color=MUTED, ls=(0, (4, 2)), lw=1.3, label=label)
    axes.fill_between(cells, low, high, color=POSTERIOR, alpha=0.18, lw=0, label="posterior, 90 %")
    axes.fill_between(cells, inner_low, inner_high, color=POSTERIOR, alpha=0.38, lw=0, label="50 %")
    axes.plot(cells, middle, color=POSTERIOR, label="median")
    for k, place in enumerate(np.linspace(0, len(field.values) - 1, 3).round().astype(int)):
        axes.plot(
            cells, field.values[place], color=INK, lw=0.6, alpha=0.55, label=None if k else "three draws"
        )
    if field.truth is not None:
        axes.plot(cells, field.truth, color=TRUTH, lw=1.8, label="truth")
    axes.set_title(field.label)
    axes.set_xlabel("entry" if field.lengths is None else "x")
    axes.margins(x=0.01)
    handles, labels = axes.get_legend_handles_labels()
    part.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9.5)


def _draw_images(part: Any, field: FieldDraws, count: int) -> None:
    mean, sd = field.values.mean(0), field.values.std(0)
    shown = [mean, field.values[len(field.values) // 2]]
    if field.truth is not None:
        shown.insert(0, field.truth)
    scale = shared_scale(shown)
    names = ["truth"] * (field.truth is not None) + ["mean", "one draw"]
    grid = part.subplots(1, count, squeeze=False)[0]
    if field.lengths is not None:  # images are transposed: the first axis goes to the right
        scale = {**scale, "extent": (0, field.lengths[0], 0, field.lengths[1])}
    for axes, name, image in zip(grid, names, shown, strict=False):
        _image(part, axes, name, image, scale)
    extent = {"extent": scale["extent"]} if "extent" in scale else {}
    spread = {"cmap": "magma", "vmin": 0.0, "vmax": float(sd.max()) or 1.0, **extent}
    _image(part, grid[len(shown)], "sd", sd, spread)
    if field.truth is not None:
        wrong = (mean - field.truth) / np.where(sd > 0, sd, np.nan)
        limit = max(3.0, float(np.nanmax(np.abs(colour_scale(wrong)["vmax"]))))
        colours = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit, **extent}
        _image(part, grid[-1], "(mean - truth) / sd", wrong, colours)


def _image(part: Any, axes: Any, name: str, image: np.ndarray, scale: dict[str, Any]) -> None:
    drawn = axes.imshow(image.T, **scale)
    axes.grid(False)
    if "extent" in scale:
        axes.set(xticks=scale["extent"][:2], yticks=scale["extent"][2:])
        axes.tick_params(labelsize=8.5)
    else:
        axes.set(xticks=[], yticks=[])
    axes.set_title(name, fontsize=10.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    part.colorbar(drawn, ax=axes, orientation="horizontal", pad=0.03, aspect=22, shrink=0.92)
