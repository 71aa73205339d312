"""Style of all figures: readable in print, in grey and by the colour-blind, with the same bytes on every machine.

Each figure is a file of this folder: `Options` (its limits), `QUESTION`, `TABLES` (the tables and columns that it
reads), `LIMITS` (what it does not show), and functions of (tables, subject, options): `finding`, `figure`, `caption`.
Colour never carries meaning alone: lines are labelled where they end, markers differ, and the colours of a lift grow
darker from less to more. Every figure is drawn twice, `WIDTH` and `NARROW` inches wide.
"""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy.special import stdtrit

Tables = Mapping[str, pd.DataFrame]

WIDTH = 7.2
"""Width of a figure in inches: the text width of a page; the report's column shows it twice as large."""
NARROW = 3.7
"""Width of the second rendering, for telephones: at 400 px its text is as large as that of the page."""
PAPER, ON_DARK, ON_LIGHT = "#FFFFFF", "#FEFEFE", "#1B1B1B"
"""Colour of the page, and of text on dark and light cells, which have the same colours on a dark page."""
INK, QUIET, FAINT, HAIR = "#1A1A1A", "#6B6B6B", "#B4B4B4", "#DDDDDD"
ACCENT = "#B3400B"
COLOURS = ("#1F2EA0", "#8A1709", "#A2910F", "#398D5E", "#BE489D", "#947EF7")
"""Colours of categories, chosen so that the closest two are as far apart as possible under normal, protan, deutan and
tritan vision."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.0,
    "hatch.linewidth": 0.5,
    "figure.figsize": (WIDTH, 3.0),
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "speciate",
    "path.simplify": False,
}


class Subject(Protocol):
    """What a figure must know about the study beyond its tables (a `speciate.config.stage_specs.DrawSpec`)."""

    @property
    def arms(self) -> Sequence[str]:
        """Return every ablation, in the study's order."""

    @property
    def domains(self) -> Sequence[str]:
        """Return the domains, in the study's order."""

    @property
    def reference(self) -> str:
        """Return the arm that the others are compared with."""

    @property
    def incomparable(self) -> Sequence[str]:
        """Return the arms whose loss is of another kind than the reference's."""

    @property
    def controls(self) -> Sequence[str]:
        """Return the arms whose selectors do not learn."""

    @property
    def fixed(self) -> Sequence[str]:
        """Return the arms whose routers cannot learn, whether the study names them as controls or not."""

    @property
    def confidence(self) -> float:
        """Return the confidence of every interval and null band."""

    @property
    def margin(self) -> float:
        """Return the cost above which a selector's choice matters, in nats per token."""


@contextlib.contextmanager
def figure_style(width: float = WIDTH) -> Iterator[None]:
    """Use matplotlib's own defaults with this style to draw and save; afterwards restore whatever a user has set.

    Args:
        width: width of the figures in inches, `WIDTH` or `NARROW`.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        cast(dict[str, Any], matplotlib.rcParams).update({**RC, "figure.figsize": (width, 3.0)})
        yield


def page_width() -> float:
    """Return the width in inches of the rendering that is being drawn."""
    return float(matplotlib.rcParams["figure.figsize"][0])


def is_narrow() -> bool:
    """Return whether the rendering for narrow screens is being drawn."""
    return page_width() < WIDTH


def columns_of(wanted: int) -> int:
    """Return how many panels stand side by side: as many as wanted, but at most two on a narrow screen."""
    return min(wanted, 2) if is_narrow() else wanted


def new_figure(height: float, width: float | None = None) -> Figure:
    """Return an empty figure, in inches, without pyplot's global state; its layout avoids overlaps.

    It is as wide as the page, or as `width` where that is less.
    """
    figure = Figure(figsize=(min(width or WIDTH, page_width()), height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def pack_axes(figure: Figure, h_pad: float, left: float) -> None:
    """Set the axes of a dense grid close together: `h_pad` inches above and below each, a free share at the `left`."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(h_pad=h_pad, w_pad=0.03, hspace=0.0, wspace=0.0, rect=(left, 0, 1 - left, 1))


def message_figure(text: str) -> Figure:
    """Return a figure that says why it shows nothing."""
    figure = new_figure(0.8)
    figure.set_layout_engine("none")  # it has no axes to lay out
    figure.text(0.5, 0.5, text, ha="center", va="center", color=QUIET, style="italic")
    return figure


def lay_out(figure: Figure) -> None:
    """Compute the places of all axes, once, so that every format of a figure has the same."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    for axes in figure.axes:
        for line in axes.lines:
            # a line without points counts as one at the corner of the figure, and pushes everything out of it
            line.set_in_layout(line.get_in_layout() and np.size(line.get_xdata()) > 0)
    engine.execute(figure)
    figure.set_layout_engine("none")
    # the solver's last digits sometimes differ between processes, and with them the names of clip paths
    for axes in figure.axes:
        axes.set_position(tuple(np.round(axes.get_position(original=True).bounds, 6)))


def save(figure: Figure, target: pathlib.Path) -> None:
    """Write the figure in the format of the target's suffix; the bytes depend only on the figure."""
    lay_out(figure)
    metadata = {"Date": None, "Creator": None} if target.suffix == ".svg" else {"Software": None}
    figure.savefig(target, metadata=metadata)


def plain_name(name: str) -> str:
    """Return a config key as figures print it: with spaces for underscores."""
    return name.replace("_", " ")


def format_signed(value: float) -> str:
    """Format a difference with its sign and three digits."""
    return f"{value:+.3f}".replace("-", "−")


def with_interval(values: pd.Series, confidence: float, digits: int = 3, unit: str = "") -> str:
    """Return the mean of one value a seed with Student's interval: '0.106 [0.096, 0.116] bits'.

    Without the interval where there is one seed, or where all have the same value.
    """
    known = values.dropna().to_numpy(dtype=float)
    mean, unit = float(known.mean()), f" {unit}" if unit else ""
    shown = f"{mean:.{digits}f}".replace("-", "−")
    if len(known) < 2 or np.ptp(known) == 0:
        return f"{shown}{unit}"
    half = float(stdtrit(len(known) - 1, (1 + confidence) / 2)) * float(known.std(ddof=1)) / len(known) ** 0.5
    bounds = f"[{mean - half:.{digits}f}, {mean + half:.{digits}f}]".replace("-", "−")
    return f"{shown} {bounds}{unit}"


def worth(runs: pd.DataFrame, subject: Subject) -> str:
    """Return ', and are worth ...' with what load-matched random choice costs these runs; nothing where unmeasured."""
    if not runs["matched_nats"].notna().any():
        return ""
    return f", and are worth {with_interval(runs['matched_nats'], subject.confidence, unit='nats per token')}"


def sentence(text: str) -> str:
    """Return a text with its first letter as a capital, the others as they are."""
    return f"{text[:1].upper()}{text[1:]}"


def join_names(names: Iterable[str]) -> str:
    """Join names as 'a, b and c'; 'none' where there are none."""
    words = [plain_name(name) for name in names]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "none"


def colours(subject: Subject) -> dict[str, str]:
    """Return every arm's colour: grey for those that cannot learn, ink for the reference, else the palette."""
    unlearned = [arm for arm in subject.arms if not learns(arm, subject)]
    others = [arm for arm in subject.arms if arm not in unlearned and arm != subject.reference]
    palette = {arm: COLOURS[index % len(COLOURS)] for index, arm in enumerate(others)}
    return {**palette, **dict.fromkeys(unlearned, QUIET), subject.reference: INK}


def learns(arm: str, subject: Subject) -> bool:
    """Return whether an arm's selectors, if it has any, can learn."""
    return arm not in subject.controls and arm not in subject.fixed


def hide_axes(axes: Axes) -> None:
    """Hide axes where an arm has nothing to show, but keep the labels next to them."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    # transparent rather than absent, so that a label next to these axes is placed like the others
    axes.tick_params(length=0, labelbottom=False, labelcolor=(0, 0, 0, 0))


def label_ends(
    axes: Axes, x: float, ends: Sequence[tuple[float, str, str]], *, size: float = 6.5, dx: float = 3
) -> None:
    """Label lines at their right ends, given as (height, name, colour), without overlap, `dx` points right of `x`."""
    low, high = axes.get_ylim()
    gap = 1.15 * size / 72 * (high - low) / axes.get_position().height / cast(Figure, axes.figure).get_size_inches()[1]
    heights = spread_apart([height for height, _, _ in ends], gap, low + 0.4 * gap, high)
    for height, (_, name, colour) in zip(heights, ends, strict=True):
        axes.annotate(
            name,
            (x, height),
            (dx, 0),
            textcoords="offset points",
            annotation_clip=False,
            va="center",
            fontsize=size,
            color=colour,
        )


def spread_apart(values: Sequence[float], gap: float, lowest: float = -np.inf, highest: float = np.inf) -> list[float]:
    """Return `values` moved as little as keeps neighbours `gap` apart, in their order and within the bounds.

    Where there is no room for all, the lower bound holds.
    """
    order = np.argsort(values, kind="stable")
    moved = np.array(values, dtype=float)
    for _ in range(200):
        steps = np.diff(moved[order])
        close = np.flatnonzero(steps < gap - 1e-9)
        if not len(close):
            break
        for index in close:
            push = (gap - (moved[order[index + 1]] - moved[order[index]])) / 2
            if push > 0:
                moved[order[index]] -= push
                moved[order[index + 1]] += push
    places = np.arange(len(moved))
    moved[order] = np.minimum(moved[order], highest - gap * places[::-1])
    moved[order] = np.maximum(moved[order], lowest + gap * places)
    return [float(value) for value in moved]
