"""Figure: where in a sweep do routers collapse, and what does it cost? The phase diagram.

A row per sweep. Left, each cell of the grid is as dark as its share of collapsed runs (effective experts below their
limit in some layer); the line is the fitted critical value of one parameter at each value of the other. Right,
the same cells by test loss above the sweep's lowest. A sweep of one parameter, or of named choices, has points with
intervals instead.
"""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import style

QUESTION = "Where do routers collapse, and what does it cost?"
TABLES = {
    "cells": ("sweep", "ablation", "parameter", "label"),
    "sweeps": ("sweep", "ablation", "runs", "collapsed", "share", "low", "high", "loss"),
    "critical": ("sweep", "parameter", "at", "estimate", "low", "high"),
}
LIMITS = "The diagram holds for this model, text and length of training; it does not say where larger ones tip over."
SHADES = LinearSegmentedColormap.from_list("shades", ["#FBF7F3", "#F0C9A8", style.ACCENT, "#4A1700"])


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_sweeps: int = Field(12, ge=1)
    """Largest number of sweeps drawn; the caption names the others."""

    reads: ClassVar[str] = "sweeps"


def _grid_of(tables: style.Tables, sweep: str) -> tuple[pd.DataFrame, list[str]]:
    """Return a sweep's arms with a column per parameter's label beside their outcomes, and the parameters in order."""
    cells = tables["cells"][tables["cells"]["sweep"] == sweep]
    parameters = list(dict.fromkeys(cells["parameter"]))
    labels = cells.pivot(index="ablation", columns="parameter", values="label")
    outcomes = tables["sweeps"][tables["sweeps"]["sweep"] == sweep].set_index("ablation")
    return outcomes.join(labels), parameters


def _labels(tables: style.Tables, sweep: str, parameter: str) -> list[str]:
    """Return a parameter's labels in the order of the study file."""
    cells = tables["cells"]
    return list(dict.fromkeys(cells[(cells["sweep"] == sweep) & (cells["parameter"] == parameter)]["label"]))


def _axes_of(tables: style.Tables, sweep: str, parameters: list[str]) -> tuple[str, str]:
    """Return the parameters of a grid's columns and rows; the critical one, if there is one, is that of the rows."""
    critical = tables["critical"]
    critical = critical[critical["sweep"] == sweep]
    rows = str(critical["parameter"].iloc[0]) if len(critical) else parameters[1]
    (columns,) = (name for name in parameters if name != rows)
    return columns, rows


def _drawn(tables: style.Tables, options: Any) -> tuple[list[str], list[str]]:
    """Return the sweeps to draw, and all sweeps."""
    every = list(dict.fromkeys(tables["sweeps"]["sweep"]))
    return every[: options.max_sweeps], every


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return how many runs collapsed, and between which arms the share goes from none to all."""
    outcomes = tables["sweeps"]
    if outcomes.empty or not outcomes["runs"].sum():
        return ""
    sweep = str(outcomes.loc[outcomes["runs"] > 0, "sweep"].iloc[0])
    rows = outcomes[outcomes["sweep"] == sweep]
    none, every = int((rows["collapsed"] == 0).sum()), int((rows["collapsed"] == rows["runs"]).sum())
    text = (
        f"In sweep {style.plain_name(sweep)}, {int(rows['collapsed'].sum())} of {int(rows['runs'].sum())} runs"
        f" collapsed: every run in {every} of {len(rows)} arms, none in {none}"
    )
    critical = tables["critical"]
    critical = critical[(critical["sweep"] == sweep) & critical["estimate"].notna()]
    if critical.empty:
        return text
    name = style.plain_name(str(critical["parameter"].iloc[0]))
    return f"{text}; half collapse at a {name} of {critical['estimate'].min():.2g} to {critical['estimate'].max():.2g}"


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a row per sweep: collapse at the left, loss at the right."""
    sweeps, _ = _drawn(tables, options)
    if tables["sweeps"].empty or not tables["sweeps"]["runs"].sum():
        return style.message_figure("No run of a sweep has a selector.")
    heights = [1.0 + 0.27 * _rows_needed(tables, sweep) for sweep in sweeps]
    if style.is_narrow():
        heights = [height for height in heights for _ in range(2)]
    drawn = style.new_figure(sum(heights))
    columns = 1 if style.is_narrow() else 2
    grid = drawn.subplots(len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    grid = grid.reshape(len(sweeps), 2)
    for row, sweep in enumerate(sweeps):
        _, parameters = _grid_of(tables, sweep)
        draw = _draw_map if len(parameters) == 2 else _draw_points
        draw(grid[row, 0], tables, sweep, "share")
        draw(grid[row, 1], tables, sweep, "loss")
        grid[row, 0].set_title(f"{style.plain_name(sweep)}: runs that collapsed", loc="left", weight="bold")
        grid[row, 1].set_title("test loss above the lowest, nats", loc="left", weight="bold")
    return drawn


def _rows_needed(tables: style.Tables, sweep: str) -> int:
    """Return the number of rows of a sweep's panel."""
    outcomes, parameters = _grid_of(tables, sweep)
    return (
        len(_labels(tables, sweep, _axes_of(tables, sweep, parameters)[1])) if len(parameters) == 2 else len(outcomes)
    )


def _draw_map(axes: Any, tables: style.Tables, sweep: str, what: str) -> None:
    """Draw one quantity of a grid of two parameters, with its value in each cell."""
    outcomes, parameters = _grid_of(tables, sweep)
    across, down = _axes_of(tables, sweep, parameters)
    columns, rows = _labels(tables, sweep, across), _labels(tables, sweep, down)
    value = outcomes["share"] if what == "share" else outcomes["loss"] - outcomes["loss"].min()
    limit = 1.0 if what == "share" else max(float(value.max()), 1e-9)
    for (_, arm), shown in zip(outcomes.iterrows(), value, strict=True):
        x, y = columns.index(arm[across]), rows.index(arm[down])
        shade = SHADES(shown / limit) if np.isfinite(shown) else style.HAIR
        axes.add_patch(_square(x, y, shade))
        text = f"{arm['collapsed']:.0f}/{arm['runs']:.0f}" if what == "share" else f"{shown:.3f}"
        dark = np.isfinite(shown) and shown / limit > 0.45
        axes.text(
            x, y - 0.02, text, ha="center", va="center", fontsize=6, color=style.ON_DARK if dark else style.ON_LIGHT
        )
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=style.plain_name(across), ylabel=style.plain_name(down))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if what == "share":
        _draw_critical(axes, tables["critical"][tables["critical"]["sweep"] == sweep], columns, rows)


def _square(x: float, y: float, colour: Any) -> Rectangle:
    """Return the square of one cell of the grid, centred at (x, y)."""
    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=style.HAIR, linewidth=0.6)


def _draw_critical(axes: Any, critical: pd.DataFrame, columns: list[str], rows: list[str]) -> None:
    """Draw the fitted critical values over the cells, with their intervals as whiskers beside the numbers."""
    if critical.empty:
        return
    numbers = np.array([float(label) for label in rows])
    positive = numbers > 0
    # by size, as interpolation needs them, whatever the order in the study file
    order = np.argsort(numbers[positive])
    places, logs = np.arange(len(rows))[positive][order], np.log(numbers[positive][order])
    outside = 0.42 * (1 if places[-1] >= places[0] else -1)

    def place(value: Any) -> Any:
        """Return where a value is between the rows' centres; beyond the grid, half a cell outside."""
        logged = np.log(np.clip(value, numbers[positive].min() / 1e3, numbers[positive].max() * 1e3))
        return np.interp(logged, logs, places, left=places[0] - outside, right=places[-1] + outside)

    at = {float(label): index for index, label in enumerate(columns)}
    x = np.array([at[value] for value in critical["at"]]) + 0.33
    middle, low, high = (place(critical[name].to_numpy()) for name in ("estimate", "low", "high"))
    axes.plot(x, middle, color=style.COLOURS[0], marker="o", markersize=3.5, zorder=3)
    axes.vlines(x, low, high, color=style.COLOURS[0], linewidth=1.2, zorder=3)


def _draw_points(axes: Any, tables: style.Tables, sweep: str, what: str) -> None:
    """Draw one quantity of each arm of a sweep that is no grid of two parameters."""
    outcomes, parameters = _grid_of(tables, sweep)
    names = [
        ", ".join(f"{style.plain_name(name)} {arm[name]}" for name in parameters) for _, arm in outcomes.iterrows()
    ]
    y = np.arange(len(outcomes))[::-1]
    if what == "share":
        axes.hlines(y, outcomes["low"], outcomes["high"], color=style.INK, linewidth=0.8)
        axes.plot(outcomes["share"], y, "o", color=style.ACCENT)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.5, 1], ["0", "half", "all"])
    else:
        axes.plot(outcomes["loss"] - outcomes["loss"].min(), y, "o", color=style.INK)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.set_yticks(y, names if what == "share" else [""] * len(names))
    axes.set_ylim(-0.6, len(outcomes) - 0.4)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    drawn, every = _drawn(tables, options)
    outcomes = tables["sweeps"]
    if outcomes.empty or not outcomes["runs"].sum():
        return "No run of a sweep has a selector, so none can collapse."
    sizes = sorted({int(count) for count in outcomes["runs"] if count})
    runs = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    lines = [
        f"Each cell is an arm of {runs} runs, one a seed. A run has collapsed if, in some layer of the finished model,"
        " the effective number of experts is below its limit, which is half of the experts for small k."
    ]
    critical = tables["critical"]
    if len(critical):
        lines.append(
            f" Line: the value at which half of the runs collapse, by a logistic fit over both logarithms; its whiskers"
            f" are {subject.confidence:.0%} intervals over seeds. A value of 0 has no logarithm and does not take part"
            " in the fit. Beyond the grid the line ends at its edge, and tables/critical.csv has the number."
        )
    lines.append(" Losses are means over the seeds.")
    if len(drawn) < len(every):
        lines.append(f" Not shown for lack of room: {style.join_names(every[len(drawn) :])}.")
    return "".join(lines)
