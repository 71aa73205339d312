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
TABLES = {"cost": ("ablation", "mixer", "length", "kept_bytes", "train_ms", "decode_ms")}
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


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per cost, on logarithmic axes, with a line per arm."""
    rows = tables["cost"]
    arms = [arm for arm in subject.arms if arm in set(rows["ablation"])]
    drawn = style.new_figure(2.6)
    for axes, (name, title) in zip(drawn.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        _draw_panel(axes, rows.assign(value=_cost_per_token(rows, name)), arms, style.colours(subject))
        axes.set_title(title, loc="left", weight="bold")
    drawn.supxlabel("tokens in a block", fontsize=7.5)
    return drawn


def _draw_panel(axes: Axes, rows: pd.DataFrame, arms: list[str], colours: dict[str, str]) -> None:
    """Draw a line per arm, named where it ends."""
    lengths = sorted(rows["length"].unique())
    ends: list[tuple[float, str, str]] = []
    for index, arm in enumerate(arms):
        arm_rows = rows[rows["ablation"] == arm].sort_values("length")
        height = np.log10(arm_rows["value"].to_numpy(dtype=float))
        marker = style.MARKERS[index % len(style.MARKERS)]
        axes.plot(np.log2(arm_rows["length"]), height, color=colours[arm], marker=marker, markersize=3)
        ends.append((float(height[-1]), style.plain_name(arm), colours[arm]))
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
    rows = tables["cost"]
    slopes = []
    for arm in subject.arms:
        arm_rows = rows[rows["ablation"] == arm].sort_values("length")
        if len(arm_rows) > 1:
            # the longer half, because fixed costs dominate in short blocks
            late = arm_rows.iloc[len(arm_rows) // 2 - 1 :]
            slopes.append(
                f"{style.plain_name(arm)} {log_slope(late, 'train_ms'):.2f} and {log_slope(late, 'kept_bytes'):.2f}"
            )
    return (
        "The first layer’s mixer alone, with initial weights, on one block and one thread: median processor time on"
        " this machine. In the outer panels a flat line means linear growth. Slopes of log time and of log memory"
        f" against log length, over the longest blocks: {'; '.join(slopes)}. The times hold for this small width; a"
        " wide model or a GPU needs a measurement of its own."
    )
