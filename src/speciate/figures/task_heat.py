"""Figure: where in how long a context does each arm find what it needs? A map of depth by length for each arm."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, scored, style

QUESTION = "Where in how long a context does each arm find what it needs?"
TABLES = {"tasks": scored.COLUMNS}
LIMITS = "A cell has few questions, and its interval may be wide."
EMPTY = "No task of this study varies both the length of the context and the place of the answer in it."
SHADES = LinearSegmentedColormap.from_list("shades", ["#FBF7F3", "#F0C9A8", style.ACCENT, "#4A1700"])
LARGEST_MAP = 12
"""Largest number of rows or columns of a map whose cells hold numbers that can be read."""


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_scores: int = Field(3, ge=1)
    """Largest number of scores drawn, each with a map for every arm."""
    max_arms: int = Field(6, ge=1)
    """Largest number of arms drawn."""

    reads: ClassVar[str] = "tasks"


def _panels(tables: style.Tables) -> list[scored.Panel]:
    return scored.panels(scored.scored_rows(tables), "lengths and depths")


def _drawn_arms(tables: style.Tables, subject: style.Subject, options: Any) -> tuple[list[str], list[str]]:
    """Return all arms that have a map, and those that are drawn."""
    scores = scored.scored_rows(tables)
    wholes = pd.concat([scored.whole(panel.rows(scores)) for panel in _panels(tables)])
    arms = scored.arms_of(wholes.reset_index(), subject)
    far = (wholes - wholes.mean()).abs().groupby(level=0).max()
    weight = {str(arm): float(value) for arm, value in far.items()}
    return arms, choosing.choose_arms(arms, options.max_arms, weight, subject)


def _maps(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of single cells of a map."""
    return rows[(rows["over"] == "") & (rows["length"] >= 0) & rows["depth"].notna()]


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return where the best arm of the first score scores most and least."""
    drawn = _panels(tables)
    if not drawn:
        return ""
    rows = drawn[0].rows(scored.scored_rows(tables))
    best = str(scored.whole(rows).idxmax())
    cells = _maps(rows[rows["ablation"] == best])
    most, least = cells.loc[cells["value"].idxmax()], cells.loc[cells["value"].idxmin()]
    name = f"{style.sentence(drawn[0].title)}: {style.plain_name(best)}"
    if most["value"] == least["value"]:
        return f"{name} scores {most['value']:.2f} at every length and depth".replace("-", "−")
    return (
        f"{name} scores most, {most['value']:.2f}, in {most['length']:,} tokens at depth {most['depth']:.2g},"
        f" and least, {least['value']:.2f}, in {least['length']:,} at depth {least['depth']:.2g}"
    ).replace("-", "−")


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a map for each score and arm, as many side by side as fit."""
    shown = _panels(tables)[: options.max_scores]
    if not shown:
        return style.message_figure(EMPTY)
    _, arms = _drawn_arms(tables, subject, options)
    scores = scored.scored_rows(tables)
    maps = {panel: _maps(panel.rows(scores)) for panel in shown}
    width = max(_distinct(rows, "length") for rows in maps.values())
    height = max(_distinct(rows, "depth") for rows in maps.values())
    room = 9 if style.is_narrow() else 18
    columns = max(1, min(len(arms), room // max(3, width), 2 if style.is_narrow() else 4))
    lines = -(-len(arms) // columns)
    drawn = style.new_figure(0.3 + len(shown) * lines * (0.42 + 0.17 * height), 0.8 + columns * (0.5 + 0.34 * width))
    grid = drawn.subplots(len(shown) * lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for index, (panel, rows) in enumerate(maps.items()):
        low, high = float(min(0.0, rows["value"].min())), float(max(rows["value"].max(), 1e-9))
        high = max(high, 1.0) if low == 0 and high <= 1 else high
        for place, arm in enumerate(arms):
            axes = grid[index * lines + place // columns, place % columns]
            axes.set_axis_on()
            _draw_map(axes, rows, arm, (low, high))
            name = style.plain_name(arm)
            axes.set_title(
                f"{panel.title}\n{name}" if place == 0 else f"\n{name}" if place < columns else name, loc="left"
            )
            axes.title.set_fontsize(7)
            if place % columns:
                axes.set_yticklabels([])
    drawn.supxlabel("tokens of the context", fontsize=7.5)
    drawn.supylabel("depth of the answer", fontsize=7.5)
    return drawn


def _distinct(rows: pd.DataFrame, column: str) -> int:
    return int(rows[column].nunique())


def _draw_map(axes: Axes, rows: pd.DataFrame, arm: str, limits: tuple[float, float]) -> None:
    """Draw the map of one arm: a square for each length and depth, with its value where there is room."""
    lengths, depths = sorted(rows["length"].unique()), sorted(rows["depth"].unique())
    low, high = limits
    numbered = max(len(lengths), len(depths)) <= LARGEST_MAP
    for cell in rows[rows["ablation"] == arm].itertuples():
        x, y = lengths.index(cell.length), depths.index(cell.depth)
        shade = (float(cell.value) - low) / (high - low)
        square = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=SHADES(shade), edgecolor=style.HAIR, linewidth=0.4)
        axes.add_patch(square)
        if numbered:
            colour = style.ON_DARK if shade > 0.6 else style.ON_LIGHT
            axes.text(x, y, _short(float(cell.value)), ha="center", va="center", fontsize=5.5, color=colour)
    axes.set(xlim=(-0.5, len(lengths) - 0.5), ylim=(len(depths) - 0.5, -0.5))
    axes.set_xticks(range(len(lengths)), [scored.thousands(float(length)) for length in lengths], fontsize=6)
    axes.set_yticks(range(len(depths)), [f"{depth:.2g}" for depth in depths], fontsize=6)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(value: float) -> str:
    """Return a value in few letters: .25, 1.0, −.3."""
    text = f"{value:.2f}" if abs(value) < 0.995 else f"{value:.1f}"
    return text.replace("-", "−").replace("0.", ".", 1) if abs(value) < 0.995 else text.replace("-", "−")


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    every = _panels(tables)
    if not every:
        return EMPTY
    scores = scored.scored_rows(tables)
    arms, kept = _drawn_arms(tables, subject, options)
    chances = []
    for panel in every[: options.max_scores]:
        chance = _maps(panel.rows(scores))["chance"].dropna()
        if len(chance):
            low, high = float(chance.min()), float(chance.max())
            value = f"{low:.3f}" if np.isclose(low, high) else f"{low:.3f} to {high:.3f}"
            chances.append(f"{panel.name} {value}")
    guessing = f" Guessing scores, in {'; '.join(chances)}." if chances else ""
    names = [panel.name for panel in every]
    constant = scored.note_constant(scores, every, "lengths and depths")
    return (
        "Each cell is the mean over questions and seeds, as dark as it is large: rows are where in the context the"
        f" answer stands, from 0, the beginning, to 1, the end.{guessing} tables/tasks.csv has the interval of each"
        f" cell.{constant}{choosing.note_left_out((names, names[: options.max_scores]), (arms, kept))}"
    )
