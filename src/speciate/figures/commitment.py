"""Is a router indifferent, collapsed or specialised? How far from an unlearned one, and in which of two ways.

commitment = drift + information (chain rule of KL against the null): drift is a preference that is the same for every
token, information one that depends on the token.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import style

QUESTION = "Is a router indifferent, collapsed or specialised?"
TABLES = {
    "selectors": (
        *("ablation", "seed", "selector", "layer", "probe", "num_slots"),
        *("commitment_nats", "drift_nats", "information_nats"),
    ),
    "runs": ("ablation", "seed", "state"),
}
INFORMATION, HATCH = "#A9C4E0", "#35507A"


class Options(FigureOptions):
    """How much one page takes."""

    max_selectors: int = Field(4, ge=1)
    """Selectors drawn at most, spread over the depth."""
    max_seeds: int = Field(4, ge=1)
    """Bars for each seed up to so many; beyond, the mean over the seeds."""


def _finished_rows(tables: style.Tables) -> pd.DataFrame:
    selectors = tables["selectors"]
    return selectors[selectors["probe"] == "full"]


def _drawn_selectors(tables: style.Tables, options: Any) -> tuple[list[str], dict[str, str]]:
    """The selectors that are shown, and every selector's name."""
    full = _finished_rows(tables)
    names = style.selector_names(full)
    weight = full.groupby("selector")["drift_nats"].max().to_dict()
    return style.choose_names(list(names), options.max_selectors, weight), names


def _bar_parts(cell: pd.DataFrame, options: Any) -> list[tuple[float, float]]:
    """(drift, information) of each bar: the seeds in order, or their mean where there are many."""
    parts = cell.sort_values("seed")[["drift_nats", "information_nats"]]
    if cell["seed"].nunique() > options.max_seeds:
        parts = parts.mean().to_frame().T
    return [(float(drift), float(information)) for drift, information in parts.to_numpy()]


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """A column a layer, a group of bars an arm, a bar a seed."""
    full = _finished_rows(tables)
    if full.empty:
        return style.message_figure("No run of this study has a selector.")
    arms = style.arms_with_selectors(full, subject)
    selectors, names = _drawn_selectors(tables, options)
    num_bars = full["seed"].nunique()
    num_bars = 1 if num_bars > options.max_seeds else num_bars
    drawn = style.new_figure(0.75 + len(arms) * max(0.24, 0.13 * num_bars + 0.06))
    grid = drawn.subplots(1, len(selectors), sharex=True, sharey=True, squeeze=False)[0]
    thick = 0.8 / num_bars
    for axes, selector in zip(grid, selectors, strict=True):
        for row, arm in enumerate(arms):
            cell = full[(full["ablation"] == arm) & (full["selector"] == selector)]
            for bar, (drift, information) in enumerate(_bar_parts(cell, options)):
                at = row - 0.4 + thick * (bar + 0.5)
                axes.barh(at, drift, 0.86 * thick, color=style.ACCENT, linewidth=0)
                axes.barh(at, information, 0.86 * thick, left=drift, color=INFORMATION, hatch="/////", edgecolor=HATCH)
                axes.patches[-1].set_linewidth(0)
        axes.set_title(names[selector])
        axes.tick_params(axis="y", length=0)
    grid[0].set(ylim=(len(arms) - 0.5, -0.5), xlim=(0, None))
    grid[0].set_yticks(range(len(arms)), [style.plain_name(arm) for arm in arms])
    _label_states(grid[-1], tables["runs"], arms)
    drawn.supxlabel("distance from an unlearned router, nats", fontsize=7.5)
    _add_legend(drawn)
    return drawn


def _label_states(axes: Any, runs: pd.DataFrame, arms: list[str]) -> None:
    """Behind each arm's bars, what its runs are called and in how many seeds."""
    for row, arm in enumerate(arms):
        states = runs[runs["ablation"] == arm]["state"].dropna()
        counted = [f"{state} {count}/{len(states)}" for state, count in states.value_counts().sort_index().items()]
        axes.annotate(
            "\n".join(counted), (1, row), (6, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=6.5
        )


def _add_legend(drawn: Figure) -> None:
    """The two parts of the bars, named above them."""
    handles = [
        Patch(color=style.ACCENT, linewidth=0),
        Patch(facecolor=INFORMATION, edgecolor=HATCH, hatch="/////", linewidth=0),
    ]
    texts = ["drift: the same preference for every token", "information: preferences that depend on the token"]
    drawn.legend(handles, texts, loc="outside upper center", ncols=2, frameon=False, fontsize=7, handlelength=1.4)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """What is seen and what is not."""
    full = _finished_rows(tables)
    if full.empty:
        return "No run of this study has a selector, so there is no commitment to show."
    selectors, names = _drawn_selectors(tables, options)
    means = full.groupby("ablation")[["commitment_nats", "drift_nats"]].mean()
    part = (means["drift_nats"] / means["commitment_nats"]).dropna()
    most = str(part.idxmax()) if len(part) else None
    drifting = (
        f" The largest part of drift is in {style.plain_name(most)}: {part[most]:.0%} of"
        f" {means.loc[most, 'commitment_nats']:.2f} nats (means over layers and seeds)."
        if most
        else ""
    )
    sizes = np.unique(full["num_slots"])
    limit = f"; the most there can be is ln {int(sizes[0])} = {np.log(sizes[0]):.2f}" if len(sizes) == 1 else ""
    num_seeds = full["seed"].nunique()
    bars = "mean over the seeds" if num_seeds > options.max_seeds else f"a bar for each of the {num_seeds} seeds"
    bars = "one seed" if num_seeds == 1 else bars
    return (
        "How far the router's probabilities are from an unlearned router's (uniform, for experts), in the finished"
        f" model on the whole probe set, {bars}{limit}. Short bars: indifferent; mostly drift: collapsed; mostly"
        f" information: specialised, in the token if not in its domain.{drifting} The verdicts at the right count"
        " seeds and come from the rule in the definitions, not from this picture. A control's information is the"
        " token's own (a hash router is certain of each token and has learned nothing), and the scale of the"
        " probabilities enters: arms whose routers sharpen differ here even where their choices do not."
        + style.note_left_out(style.all_and_drawn(names, selectors))
    )
