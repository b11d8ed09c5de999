"""One state as a picture, an array of pixels: what an environment renders."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpcontrol import tree
from dpcontrol.plot.style import INK, colour_scale, new_figure, styled
from dpcontrol.tree import Tree


def state_picture(state: Tree, title: str) -> np.ndarray:
    """The leaves of one scenario's state side by side, ``(height, width, 3)``, uint8.

    Vectors are bars, long vectors and 1-D fields curves, 2-D fields images (of three dimensions the middle slice, of
    several components the first).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    leaves = [
        (path, leaf.detach().double().cpu().numpy())
        for path, leaf in tree.named_leaves(state)
        if leaf.numel()
    ]
    with styled(grid=False):
        figure = new_figure(3.2 * max(1, len(leaves)), 3.2)
        figure.suptitle(title, fontsize=9)
        for axes, (path, values) in zip(np.atleast_1d(figure.subplots(1, len(leaves))), leaves, strict=True):
            _draw(axes, values)
            axes.set_title(path.strip("[]'.") or "state", fontsize=8)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw(axes: Any, values: np.ndarray) -> None:
    values = np.squeeze(values)
    while values.ndim > 2:
        values = values[values.shape[0] // 2]
    if values.ndim == 2:
        axes.imshow(values.T, origin="lower", **colour_scale(values))
        axes.set_axis_off()
    elif values.size > 8:
        axes.plot(values.ravel(), color=INK)
    else:
        axes.bar(np.arange(values.size), np.atleast_1d(values), color=INK)
        axes.axhline(0.0, color=INK, linewidth=0.5)
