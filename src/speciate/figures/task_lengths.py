"""Figure: how does what a model can do change with the length of its context? A panel per task, with a line per arm."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, scored, style

QUESTION = "How does what a model can do change with the length of its context?"
TABLES = {"tasks": scored.COLUMNS}
LIMITS = "It does not show how a model would do on texts that are longer than the tasks’."
EMPTY = "No task of this study varies the length of the context."
SHIFT = 0.035
"""How far arms stand apart, as a share of the axis, so that their intervals do not hide one another."""


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_panels: int = Field(8, ge=1)
    """Largest number of scores drawn."""
    max_arms: int = Field(8, ge=1)
    """Largest number of arms drawn."""

    reads: ClassVar[str] = "tasks"


def _panels(tables: style.Tables) -> list[scored.Panel]:
    return scored.panels(scored.scored_rows(tables), "lengths", "lengths and depths")


def _drawn_arms(tables: style.Tables, subject: style.Subject, options: Any) -> tuple[list[str], list[str]]:
    """Return all arms that have a score that varies with the length, and those that are drawn."""
    scores = scored.scored_rows(tables)
    rows = pd.concat([panel.rows(scores) for panel in _panels(tables)])
    wholes = rows[rows["length"] < 0]
    far = (wholes["value"] - wholes.groupby(["task", "metric", "part"])["value"].transform("mean")).abs()
    weight = {str(arm): float(value) for arm, value in far.groupby(wholes["ablation"]).max().items()}
    arms = scored.arms_of(rows, subject)
    return arms, choosing.choose_arms(arms, options.max_arms, weight, subject)


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return the best arm's score of the first task in its shortest and in its longest context."""
    drawn = _panels(tables)
    if not drawn:
        return ""
    rows = drawn[0].rows(scored.scored_rows(tables))
    best = str(scored.whole(rows).idxmax())
    ends = scored.by_length(rows[rows["ablation"] == best]).sort_values("length").iloc[[0, -1]]
    (short, long), (first, last) = ends["length"], ends["value"]
    at_chance = bool(scored.by_length(rows)["at_chance"].all())
    text = (
        f"{style.sentence(drawn[0].title)}: {style.plain_name(best)} scores {first:.3f} in contexts of {short:,} tokens"
    )
    text = f"{text}, and {last:.3f} in {long:,}".replace("-", "−")
    return f"{text}; every arm is at chance" if at_chance else text


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per score: a line per arm with intervals, and what guessing scores."""
    every = _panels(tables)
    if not every:
        return style.message_figure(EMPTY)
    _, arms = _drawn_arms(tables, subject, options)
    shown = every[: options.max_panels]
    columns = min(1 if style.is_narrow() else 2, len(shown))
    rows = -(-len(shown) // columns)
    drawn = style.new_figure(0.35 + 2.1 * rows, style.WIDTH if columns == 2 else 4.6)
    grid = drawn.subplots(rows, columns, squeeze=False)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    scores = scored.scored_rows(tables)
    for axes, panel in zip(grid.flat, shown, strict=False):
        of_panel = panel.rows(scores)
        _draw_panel(axes, scored.by_length(of_panel), arms, subject)
        axes.set_title(panel.title, loc="left", weight="bold")
        axes.set_ylabel(style.plain_name(panel.metric))
    drawn.supxlabel("tokens of the context", fontsize=7.5)
    return drawn


def _draw_panel(axes: Axes, rows: pd.DataFrame, arms: list[str], subject: style.Subject) -> None:
    """Draw a line per arm, each a little beside the others."""
    colours = style.colours(subject)
    lengths = sorted(rows["length"].unique())
    span = float(np.log2(lengths[-1] / lengths[0]))
    ends: list[tuple[float, str, str]] = []
    chance = rows.groupby("length")["chance"].mean().dropna()
    if len(chance):
        axes.plot(np.log2(chance.index.to_numpy(dtype=float)), chance, color=style.QUIET, linestyle=(0, (3, 2)), lw=0.8)
        ends.append((float(chance.iloc[-1]), "guessing", style.QUIET))
    present = [arm for arm in arms if arm in set(rows["ablation"])]
    for index, arm in enumerate(present):
        of_arm = rows[rows["ablation"] == arm].sort_values("length")
        x = np.log2(of_arm["length"].to_numpy(dtype=float)) + SHIFT * span * (index / max(1, len(present) - 1) - 0.5)
        marker = style.MARKERS[list(subject.arms).index(arm) % len(style.MARKERS)]
        axes.plot(x, of_arm["value"], color=colours[arm], marker=marker, markersize=3)
        axes.vlines(x, of_arm["low"], of_arm["high"], color=colours[arm], linewidth=0.8)
        ends.append((float(of_arm["value"].iloc[-1]), style.plain_name(arm), colours[arm]))
    axes.set_xticks(np.log2(lengths), [scored.thousands(float(length)) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.03, y=0.08)
    style.label_ends(axes, float(np.log2(lengths[-1])) + SHIFT * span, ends)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    every = _panels(tables)
    if not every:
        return EMPTY
    scores = scored.scored_rows(tables)
    rows = pd.concat([scored.by_length(panel.rows(scores)) for panel in every])
    arms, kept = _drawn_arms(tables, subject, options)
    guessing = " Dashed: what guessing scores." if rows["chance"].notna().any() else ""
    names = [panel.name for panel in every]
    constant = scored.note_constant(scores, every, "lengths", "lengths and depths")
    return (
        "Finished models on the study’s tasks: means over questions, over depths where a task varies them, and over"
        f" seeds.{scored.intervals_in_words(rows, subject)} Arms stand a little apart, so that each can be seen; all"
        f" have the lengths that the axis names.{guessing}{constant}"
        f"{choosing.note_left_out((names, names[: options.max_panels]), (arms, kept))}"
    )
