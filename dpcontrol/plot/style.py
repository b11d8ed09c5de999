"""How every figure of dpcontrol looks: colours that colour-blind readers tell apart, fonts, and how it is written."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Okabe and Ito's colours without the yellow, which is too faint on white; then darker ones for long lists.
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255", "#999933",
    "#8B6CEF", "#661100", "#14532D",
)  # fmt: skip
INK = "#1d2433"
MUTED = "#6b7485"
FAINT = "#e3e7ee"
# References and simple laws are greys, told apart by their dashes: colours belong to what is compared.
GREYS = ("#3c4454", "#8a93a3", "#5d6675", "#aab1bd")
DASHES = ((0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)), (0, (3, 1.2)))

SETTINGS: Any = {  # Any: matplotlib types its keys one by one
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.titlecolor": INK,
    "axes.labelsize": 10.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "text.color": INK,
    "figure.facecolor": "white",
    "figure.titlesize": 13.5,
    "figure.titleweight": "bold",
    "image.origin": "lower",
    "image.interpolation": "nearest",
    "svg.fonttype": "path",
    "svg.hashsalt": "dpcontrol",
}


@contextlib.contextmanager
def styled(*, grid: bool = True) -> Iterator[None]:
    """Inside, figures are made in this style; matplotlib's settings are as before afterwards."""
    import matplotlib

    with matplotlib.rc_context({**SETTINGS, "axes.grid": grid}):
        yield


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, without pyplot's list of open figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_svg(figure: Any) -> bytes:
    """The figure as SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def write(figure: Any, path: str | Path) -> None:
    """Store a figure; the ending of the name says how (PNG, PDF, SVG)."""
    with styled():
        figure.savefig(path, dpi=150)


def colours(labels: Sequence[str], greys: Sequence[str] = ()) -> dict[str, str]:
    """One colour for each label, the same wherever the same list is given; ``greys`` are references."""
    found = {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(labels)}
    return found | {label: GREYS[index % len(GREYS)] for index, label in enumerate(greys)}


def shared_scale(parts: Sequence[np.ndarray]) -> dict[str, Any]:
    """One colour scale for several arrays, in which those with far larger numbers than usual may saturate."""
    finite = [part[np.isfinite(part)] for part in parts]
    sizes = [float(np.abs(part).max(initial=0.0)) for part in finite]
    usual = [size for size in sizes if size > 0]
    limit = max((size for size in usual if size <= 3 * float(np.median(usual))), default=1.0)
    together = np.concatenate([np.clip(part, -limit, limit) for part in finite])
    return _scale(float(together.min()), float(together.max())) if together.size else _scale(0.0, 1.0)


def colour_scale(values: np.ndarray) -> dict[str, Any]:
    """Colour map and limits for images: diverging about zero where both signs occur, else sequential."""
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.002, 0.998]) if finite.size else (0.0, 1.0)
    return _scale(float(low), float(high))


def _scale(low: float, high: float) -> dict[str, Any]:
    size = max(abs(low), abs(high))
    if low < -0.02 * size and high > 0.02 * size:
        return {"cmap": "RdBu_r", "vmin": -size, "vmax": size}
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def extend_of(values: np.ndarray, limits: tuple[float, float]) -> str:
    """Which ends of a colour bar are pointed, because numbers lie beyond the scale by more than a hair."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "neither"
    margin = 0.02 * (limits[1] - limits[0])
    ends = finite.min() < limits[0] - margin, finite.max() > limits[1] + margin
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get(ends, "neither")
