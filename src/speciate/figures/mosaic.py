"""Draw lifts as a mosaic: domains or lexical types are rows, and experts are columns as wide as their share."""

from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from speciate.figures.style import is_narrow

# Lightness falls from 'much less' to 'much more', so that a grey print still reads in one direction.
LIFT = LinearSegmentedColormap.from_list(
    "lift",
    [(0, "#A6DBF2"), (0.5, "#D8D6D3"), (0.62, "#DFAE7D"), (0.75, "#CF7A26"), (0.88, "#963B06"), (1, "#4A1700")],
    N=41,  # a tenth of an octave each; more shades cannot be told apart, and each is a rule in the file
)


LIFT_LIMIT = 4.0
"""Lifts above it, and below its inverse, take the last colour of the scale."""


def lift_shade(lift: Any) -> Any:
    """Map a lift to 0..1 for the colour map, in octaves: 1/4 and below to 0, 1 to the middle, 4 and above to 1."""
    octaves = np.log2(np.clip(lift, 1 / LIFT_LIMIT, LIFT_LIMIT))
    return 0.5 + octaves / (2 * np.log2(LIFT_LIMIT))


def _order_columns(lift_RE: Any) -> Any:
    """Return the experts sorted by the row of their largest lift, and among those by its size."""
    sharpest_E = np.nanargmax(np.nan_to_num(lift_RE, nan=-1.0), axis=0)
    return np.lexsort((-np.nanmax(np.nan_to_num(lift_RE, nan=-1.0), axis=0), sharpest_E))


def centres(lift_RE: Any, width_E: Any) -> list[tuple[int, int, float]]:
    """Return (row, expert, horizontal middle) of every cell that `draw_mosaic` draws."""
    order = _order_columns(lift_RE)
    edges = np.concatenate([[0.0], np.cumsum(np.nan_to_num(width_E)[order])])
    middles = (edges[1:] + edges[:-1]) / 2
    cells = [(int(expert), float(middle)) for expert, middle in zip(order, middles, strict=True)]
    return [(row, expert, middle) for row in range(lift_RE.shape[0]) for expert, middle in cells]


def draw_mosaic(axes: Axes, lift_RE: Any, width_E: Any) -> QuadMesh:
    """Draw lifts as colours; experts are columns as wide as their share, sorted by the row of their largest lift."""
    order = _order_columns(lift_RE)
    edges = np.concatenate([[0.0], np.cumsum(np.nan_to_num(width_E)[order])])
    rows = np.arange(lift_RE.shape[0] + 1)
    shown = np.ma.masked_invalid(lift_shade(lift_RE[:, order]))
    few = len(order) <= 16
    mesh = axes.pcolormesh(
        edges, rows, shown, cmap=LIFT, vmin=0, vmax=1, edgecolors="white" if few else "none", linewidth=0.4
    )
    if not few:
        # thousands of paths look the same as pixels, at a hundredth of the size; borders would hide thin columns
        mesh.set_rasterized(True)
        axes.hlines(rows[1:-1], 0, edges[-1], color="white", linewidth=0.5)
    # the mesh fills the axes, and a clip path for each of its cells would take half of the file
    mesh.set_clip_on(False)
    axes.set(xlim=(0, max(edges[-1], 1e-9)), ylim=(lift_RE.shape[0], 0), xticks=[], yticks=[])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return mesh


def draw_lift_key(figure: Figure, mesh: QuadMesh, axes: Any) -> None:
    """Draw the colour bar of `draw_mosaic` under the axes."""
    bar = figure.colorbar(mesh, ax=axes, orientation="horizontal", aspect=60, fraction=0.02, pad=0.01, shrink=0.5)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["≤ ¼", "½", "1", "2", "≥ 4"])
    bar.set_label("lift" if is_narrow() else "lift: how much more often than on average (1: no preference)")
    cast(Any, bar.outline).set_visible(False)
