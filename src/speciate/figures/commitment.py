"""Figure: is a router indifferent, collapsed or specialised? Its distance from an unlearned router, in two parts.

commitment = drift + information (chain rule of KL against the null): drift is a preference that is the same for every
token, information is one that depends on the token.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "Is a router indifferent, collapsed or specialised?"
TABLES = {
    "selectors": (
        *("ablation", "seed", "selector", "layer", "probe", "num_slots"),
        *("commitment_nats", "drift_nats", "information_nats", "unevenness"),
    ),
    "runs": ("ablation", "seed", "state"),
}
LIMITS = (
    "The scale of the probabilities counts too, so arms whose routers sharpen differ here even where their choices do"
    " not; the states follow from the rule in the definitions, not from these bars."
)
INFORMATION, HATCH = "#A9C4E0", "#35507A"


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_selectors: int = Field(12, ge=1)
    """Largest number of selectors drawn: the most uneven ones."""
    max_seeds: int = Field(4, ge=1)
    """Largest number of seeds with a bar each; with more, a bar is the mean over the seeds, and a dot is a seed."""


def _finished_rows(tables: style.Tables) -> pd.DataFrame:
    selectors = tables["selectors"]
    return selectors[selectors["probe"] == "full"]


def _drawn_selectors(tables: style.Tables, subject: style.Subject, options: Any) -> tuple[list[str], dict[str, str]]:
    """Return the selectors to draw, and every selector's name."""
    full = _finished_rows(tables)
    names = choosing.selector_names(full)
    # drift grows with the scale of the probabilities, so the layer that collapsed most may not have the most of it
    return choosing.most_uneven(full, choosing.column_selectors(names), options.max_selectors, subject), names


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which arm that learns is farthest from an unlearned router, and how much of that is drift."""
    full = _finished_rows(tables)
    if full.empty:
        return ""
    means = full.groupby("ablation")[["commitment_nats", "drift_nats"]].mean()
    learned = [arm for arm in means.index if style.learns(str(arm), subject)] or list(means.index)
    most = str(means.loc[learned, "commitment_nats"].idxmax())
    commitment, drift = means.loc[most]
    by_seed = full[full["ablation"] == most].groupby("seed")["commitment_nats"].mean()
    return (
        f"{style.sentence(style.plain_name(most))} is {style.with_interval(by_seed, subject.confidence)} nats from an"
        f" unlearned router,"
        f" {drift / commitment if commitment else 0:.0%} of them drift: the same preference for every token"
    )


def _bar_parts(cell: pd.DataFrame, options: Any) -> list[tuple[float, float]]:
    """Return (drift, information) of each bar: the seeds in order, or their mean where there are many."""
    parts = cell.sort_values("seed")[["drift_nats", "information_nats"]]
    if cell["seed"].nunique() > options.max_seeds:
        parts = parts.mean().to_frame().T
    return [(float(drift), float(information)) for drift, information in parts.to_numpy()]


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a column per layer, with a group of bars per arm and a bar per seed."""
    full = _finished_rows(tables)
    if full.empty:
        return style.message_figure("No run of this study has a selector.")
    arms = choosing.arms_with_selectors(full, subject)
    selectors, names = _drawn_selectors(tables, subject, options)
    num_bars = full["seed"].nunique()
    num_bars = 1 if num_bars > options.max_seeds else num_bars
    columns = min(style.columns_of(4), len(selectors))
    lines = -(-len(selectors) // columns)
    drawn = style.new_figure(0.75 + lines * (0.15 + len(arms) * max(0.24, 0.13 * num_bars + 0.06)))
    grid = drawn.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    thick = 0.8 / num_bars
    for axes in grid[len(selectors) :]:
        axes.set_axis_off()
    paths = {arm: list(full[full["ablation"] == arm]["selector"].unique()) for arm in arms}
    shown = {arm: choosing.selectors_of_columns(paths[arm], selectors) for arm in arms}
    for column, (axes, title) in enumerate(zip(grid, selectors, strict=False)):
        for row, arm in enumerate(arms):
            selector = shown[arm][column]
            cell = full[(full["ablation"] == arm) & (full["selector"] == selector)]
            for bar, (drift, information) in enumerate(_bar_parts(cell, options)):
                y = row - 0.4 + thick * (bar + 0.5)
                axes.barh(y, drift, 0.86 * thick, color=style.ACCENT, linewidth=0)
                axes.barh(y, information, 0.86 * thick, left=drift, color=INFORMATION, hatch="/////", edgecolor=HATCH)
                axes.patches[-1].set_linewidth(0)
            if cell["seed"].nunique() > options.max_seeds:
                reach = cell["drift_nats"] + cell["information_nats"]
                axes.plot(reach, [row] * len(cell), "o", markersize=2, color=style.INK, markeredgewidth=0, alpha=0.6)
            if selector is not None and selector not in selectors:
                place: Any = ("axes fraction", "data")
                axes.annotate(names[selector], (0.99, row), xycoords=place, ha="right", va="center", fontsize=5.5)
        axes.set_title(names[title])
        axes.tick_params(axis="y", length=0)
    grid[0].set(ylim=(len(arms) - 0.5, -0.5), xlim=(0, None))
    grid[0].set_yticks(range(len(arms)), [style.plain_name(arm) for arm in arms])
    _label_states(grid[min(columns, len(selectors)) - 1], tables["runs"], arms)
    unit = "distance from an unlearned router, nats"
    if full["seed"].nunique() > options.max_seeds:
        unit += " (bar: mean over seeds; dot: a seed)"
    drawn.supxlabel(unit if not style.is_narrow() else unit.replace(" (", "\n("), fontsize=7.5)
    _add_legend(drawn)
    return drawn


def _label_states(axes: Any, runs: pd.DataFrame, arms: list[str]) -> None:
    """Write the states of each arm's runs, with their numbers, to the right of its bars."""
    for row, arm in enumerate(arms):
        states = runs[runs["ablation"] == arm]["state"].dropna()
        counts = [f"{state} {count}/{len(states)}" for state, count in states.value_counts().sort_index().items()]
        axes.annotate(
            "\n".join(counts), (1, row), (6, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=6.5
        )


def _add_legend(drawn: Figure) -> None:
    """Add a legend of the two parts of the bars."""
    handles = [
        Patch(color=style.ACCENT, linewidth=0),
        Patch(facecolor=INFORMATION, edgecolor=HATCH, hatch="/////", linewidth=0),
    ]
    texts = ["drift: the same preference for every token", "information: preferences that depend on the token"]
    drawn.legend(
        handles,
        texts,
        loc="outside upper center",
        ncols=1 if style.is_narrow() else 2,
        frameon=False,
        fontsize=7,
        handlelength=1.4,
    )


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    full = _finished_rows(tables)
    if full.empty:
        return "No run of this study has a selector, so there is no commitment to show."
    selectors, names = _drawn_selectors(tables, subject, options)
    means = full.groupby("ablation")[["commitment_nats", "drift_nats"]].mean()
    part = (means["drift_nats"] / means["commitment_nats"]).dropna()
    most = str(part.idxmax()) if len(part) else None
    drifting = (
        f" Drift has its largest part in {style.plain_name(most)}: {part[most]:.0%} of"
        f" {means.loc[most, 'commitment_nats']:.2f} nats (means over layers and seeds)."
        if most
        else ""
    )
    sizes = np.unique(full["num_slots"])
    limit = f"; the maximum is ln {int(sizes[0])} = {np.log(sizes[0]):.2f}" if len(sizes) == 1 else ""
    num_seeds = full["seed"].nunique()
    bars = (
        "as means over the seeds, with a dot for each"
        if num_seeds > options.max_seeds
        else f"with a bar for each of the {num_seeds} seeds"
    )
    bars = "for one seed" if num_seeds == 1 else bars
    return (
        "How far the router’s probabilities are from those of an unlearned router (uniform, for experts), in the"
        f" finished model on the whole probe set, {bars}{limit}. Short bars mean indifferent; mostly drift means"
        " collapsed; mostly information means specialised, by token if not by domain."
        f"{drifting} The states at the right count seeds. A control’s information is that of the token itself: a"
        " hash router is certain about each token and"
        " has learned nothing."
        + choosing.note_left_out(
            choosing.all_and_drawn(
                names, choosing.drawn_selectors(full, choosing.arms_with_selectors(full, subject), selectors)
            )
        )
    )
