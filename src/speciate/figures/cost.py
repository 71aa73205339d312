"""Figure: what does a mixer cost as blocks grow longer? Time of a training step and of one more token, and memory."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import style

QUESTION = "What does a mixer cost as blocks grow longer?"
TABLES = {"cost": ("ablation", "mixer", "layer", "length", "kept_bytes", "train_ms", "decode_ms")}
LIMITS = "The times hold for this small width and for one thread; a wide model or a GPU needs a measurement of its own."
PANELS = {
    "train_ms": "training,\nms per thousand tokens",
    "decode_ms": "decoding,\nms per token",
    "kept_bytes": "memory kept,\nkB per token",
}


class Options(FigureOptions):
    """No options."""

    reads: ClassVar[str] = "cost"
    """Which tables the figure reads; see speciate.graph.study_graph."""


def _cost_per_token(rows: pd.DataFrame, name: str) -> pd.Series:
    """Return the cost per token where a whole block was measured, so that a linear cost is a flat line."""
    factor = {"train_ms": 1000 / rows["length"], "decode_ms": 1.0, "kept_bytes": 1 / rows["length"] / 1e3}[name]
    return rows[name] * factor


def _slopes(tables: style.Tables, subject: style.Subject) -> dict[str, tuple[float, float]]:
    """Return the slopes of log time and of log memory of every mixer, over its longer blocks."""
    slopes = {}
    for name, of_mixer in mixers_of_arms(tables["cost"], subject).items():
        if len(of_mixer) > 1:
            # the longer half, because fixed costs dominate in short blocks
            late = of_mixer.iloc[len(of_mixer) // 2 - 1 :]
            slopes[name] = (log_slope(late, "train_ms"), log_slope(late, "kept_bytes"))
    return slopes


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which mixer's training time grows slowest with the length of blocks, and which fastest."""
    slopes = {name: time for name, (time, _) in _slopes(tables, subject).items()}
    if not slopes:
        return ""
    slowest, fastest = min(slopes, key=lambda name: slopes[name]), max(slopes, key=lambda name: slopes[name])
    text = f"Training time grows with the length of blocks to the power {slopes[slowest]:.2f} in {slowest}"
    return text if slowest == fastest else f"{text}, and {slopes[fastest]:.2f} in {fastest}"


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per cost, on logarithmic axes, with a line per arm and mixer."""
    rows = tables["cost"]
    shape = (len(PANELS), 1) if style.is_narrow() else (1, len(PANELS))
    drawn = style.new_figure(2.2 * len(PANELS) if style.is_narrow() else 2.6)
    for axes, (name, title) in zip(drawn.subplots(*shape), PANELS.items(), strict=True):
        lines = mixers_of_arms(rows.assign(value=_cost_per_token(rows, name)), subject)
        _draw_panel(axes, lines, style.colours(subject))
        what, unit = title.split(",\n")
        axes.set_title(what, loc="left", weight="bold")
        axes.set_ylabel(unit)
    drawn.supxlabel("tokens in a block", fontsize=7.5)
    return drawn


def mixers_of_arms(rows: pd.DataFrame, subject: style.Subject) -> dict[str, pd.DataFrame]:
    """Return the rows of each arm's mixers, by increasing length; the names tell an arm's mixers apart."""
    lines: dict[str, pd.DataFrame] = {}
    for arm in subject.arms:
        of_arm = rows[rows["ablation"] == arm].sort_values("length")
        for layer, of_mixer in of_arm.groupby("layer"):
            kind, several = of_mixer["mixer"].iloc[0], of_arm.groupby("mixer")["layer"].nunique()
            name = style.plain_name(arm)
            if len(several) > 1:
                name += f", {kind}"
            if several[kind] > 1:
                name += f", layer {int(layer) + 1}"
            lines[name] = of_mixer
    return lines


def _draw_panel(axes: Axes, lines: dict[str, pd.DataFrame], colours: dict[str, str]) -> None:
    """Draw a line per mixer, named where it ends."""
    lengths = sorted({length for rows in lines.values() for length in rows["length"]})
    ends: list[tuple[float, str, str]] = []
    for index, (name, rows) in enumerate(lines.items()):
        height, colour = np.log10(rows["value"].to_numpy(dtype=float)), colours[rows["ablation"].iloc[0]]
        marker = style.MARKERS[index % len(style.MARKERS)]
        axes.plot(np.log2(rows["length"]), height, color=colour, marker=marker, markersize=3)
        ends.append((float(height[-1]), name, colour))
    axes.set_xticks(np.log2(lengths), [f"{length // 1024}k" if length >= 1024 else str(length) for length in lengths])
    low, high = axes.get_ylim()
    ticks = [t for e in range(int(np.floor(low)), int(np.ceil(high)) + 1) for t in (1 * 10.0**e, 3 * 10.0**e)]
    ticks = [tick for tick in ticks if low <= np.log10(tick) <= high]
    axes.set_yticks(np.log10(ticks), [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    style.label_ends(axes, float(np.log2(lengths[-1])), ends)


def log_slope(rows: pd.DataFrame, name: str) -> float:
    """Return the least-squares slope of log cost against log length: 1 for linear growth, 2 for quadratic."""
    return float(np.polyfit(np.log(rows["length"]), np.log(rows[name]), 1)[0])


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    slopes = [f"{name} {time:.2f} and {memory:.2f}" for name, (time, memory) in _slopes(tables, subject).items()]
    return (
        "Each mixer of an arm alone, with initial weights, on one block and one thread: median processor time on"
        " this machine. In the outer panels a flat line means linear growth. Slopes of log time and of log memory"
        f" against log length, over the longest blocks: {'; '.join(slopes)}."
    )
