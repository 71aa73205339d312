"""Figure: which expert serves which domain, layer by layer, and would shuffled documents look the same?

The upper strip is the lift f(e|d) / f(e) of each expert and domain, on hard choices of the finished model. The lower
strip is the same after the documents' domain labels were shuffled once, so any pattern in it is chance. A column is as
wide as the expert's share of the tokens, so a collapsed router is one wide, pale column.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, mosaic, style

MIN_SHARE = 0.01
"""Experts with a smaller share of the choices are never marked."""
QUESTION = "Which expert serves which domain, layer by layer, and would shuffled documents look the same?"
TABLES = {
    "experts": ("ablation", "seed", "selector", "layer", "probe", "domain", "slot", "share", "lift", "placebo_lift"),
    "runs": ("ablation", "seed", "excess_information_bits", "unevenness"),
    "selectors": ("selector", "num_slots"),
}


LIMITS = "A lift does not show that the router learned it (compare the controls), nor that the expert is needed."


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_arms: int = Field(8, ge=1)
    """Largest number of arms drawn; the caption names the others."""
    max_selectors: int = Field(4, ge=1)
    """Largest number of selectors drawn, spread over the depth."""


def _finished_rows(tables: style.Tables) -> pd.DataFrame:
    experts = tables["experts"]
    return experts[experts["probe"] == "full"]


def _choose_drawn(
    tables: style.Tables, subject: style.Subject, options: Any
) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the arms and selectors to draw, and every selector's name."""
    full = _finished_rows(tables)
    means = tables["runs"].groupby("ablation")[["excess_information_bits", "unevenness"]].mean()
    # always the most uneven arm, then those that know most
    weight = {**means["excess_information_bits"].abs().to_dict(), str(means["unevenness"].idxmax()): np.inf}
    arms = choosing.choose_arms(choosing.arms_with_selectors(full, subject), options.max_arms, weight, subject)
    names = choosing.selector_names(full)
    named = full[full["domain"] != "all"]
    spread = (named["lift"] - 1).abs().groupby(named["selector"]).mean().to_dict()
    return arms, choosing.choose_names(choosing.column_selectors(names), options.max_selectors, spread), names


def strongest(full: pd.DataFrame, subject: style.Subject) -> pd.Series | None:
    """Return the row of the largest lift of the first seed, of arms that learn; None where there is none."""
    named = full[(full["domain"] != "all") & (full["seed"] == full["seed"].min())]
    # an expert that hardly any token chose can have a lift of any size
    used = named[named["share"] / named["lift"] > 0.01]
    learned = used[~used["ablation"].isin([*subject.controls, *subject.fixed])]
    used = learned if len(learned) else used
    return used.loc[used["lift"].idxmax()] if len(used) else None


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which domain chooses one slot most beyond the average, and what shuffled documents reach there."""
    full = _finished_rows(tables)
    top = strongest(full, subject) if len(full) else None
    if top is None:
        return ""
    names = choosing.selector_names(full)
    word = choosing.slot_words_of(full[full["selector"] == top["selector"]], tables["selectors"])[0]
    cell = _cell(full, str(top["ablation"]), str(top["selector"]))
    return (
        f"The strongest preference that was learned: {style.plain_name(top['domain'])} chooses one {word} of"
        f" {style.plain_name(top['ablation'])}, {names[top['selector']]}, {top['lift']:.2f} times as often as the"
        f" average domain; with shuffled documents it is at most {_chance_range(cell)[1]:.2f} times"
    )


def _cell(full: pd.DataFrame, arm: str, selector: str) -> pd.DataFrame:
    return full[(full["ablation"] == arm) & (full["selector"] == selector)]


def _chance_range(cell: pd.DataFrame) -> tuple[float, float]:
    """Return the smallest and the largest of all seeds' shuffled lifts of a selector.

    By chance alone, a selector's largest lift in one seed exceeds that of S seeds' shuffles in one case of S + 1.
    """
    placebo = _frequent(cell)["placebo_lift"].dropna()
    return (float(placebo.min()), float(placebo.max())) if len(placebo) else (-np.inf, np.inf)


def _frequent(cell: pd.DataFrame) -> pd.DataFrame:
    """Return the rows by domain of the experts with more than `MIN_SHARE` of the choices; rarer ones have any lift."""
    shares = cell.loc[cell["domain"] == "all", ["seed", "slot", "share"]].rename(columns={"share": "load"})
    named = cell[cell["domain"] != "all"].merge(shares, on=["seed", "slot"])
    return named[named["load"] > MIN_SHARE]


def significant_cells(cell: pd.DataFrame, seed: int) -> set[tuple[str, int]]:
    """Return (domain, slot) of a seed's lifts that are above or below every shuffled one of all seeds."""
    low, high = _chance_range(cell)
    named = _frequent(cell)
    named = named[(named["seed"] == seed) & ((named["lift"] > high) | (named["lift"] < low))]
    return {(str(domain), int(slot)) for domain, slot in zip(named["domain"], named["slot"], strict=True)}


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a row per arm and a column per layer, with real above placebo, for the first seed."""
    full = _finished_rows(tables)
    if full.empty:
        return style.message_figure("No run of this study has a selector.")
    arms, selectors, names = _choose_drawn(tables, subject, options)
    seed = full["seed"].min()
    rows = len(subject.domains)
    strip = 0.075 * rows + 0.1
    drawn = style.new_figure(0.75 + len(arms) * (2 * strip + 0.1))
    heights = [1.0, 1.0, 0.12] * len(arms)
    grid = drawn.subplots(len(heights), len(selectors), squeeze=False, gridspec_kw={"height_ratios": heights})
    style.pack_axes(drawn, h_pad=0.012, left=0.016)
    mesh = None
    for row, arm in enumerate(arms):
        paths = list(full[full["ablation"] == arm]["selector"].unique())
        for column, selector in enumerate(choosing.selectors_of_columns(paths, selectors)):
            real, placebo, gap = (grid[3 * row + part, column] for part in range(3))
            gap.set_axis_off()
            cell = full[(full["ablation"] == arm) & (full["selector"] == selector) & (full["seed"] == seed)]
            mesh = _draw_pair(real, placebo, cell, subject.domains) or mesh
            if len(cell):
                marked = significant_cells(_cell(full, arm, str(selector)), int(seed))
                _mark_significant(real, cell, marked, subject.domains)
            if row == 0:
                real.set_title(names[selectors[column]], pad=3)
            if selector is not None and selector not in selectors:
                above: dict[str, Any] = {"xycoords": "axes fraction", "ha": "right", "va": "bottom"}
                text = real.annotate(names[selector], (1, 1.04), fontsize=5.5, color=style.QUIET, **above)
                text.set_in_layout(False)  # the gap above is wide enough
            if column == 0:
                _label_rows(real, style.plain_name(arm), "real", subject.domains)
                _label_rows(placebo, "", "shuffled", subject.domains)
    if mesh is not None:
        mosaic.draw_lift_key(drawn, mesh, list(grid.flat))
    return drawn


def _label_rows(axes: Any, arm: str, kind: str, domains: Any) -> None:
    """Label a strip on its left: the domains, the arm, and 'real' or 'shuffled'."""
    axes.set_yticks(np.arange(len(domains)) + 0.5, [style.plain_name(domain) for domain in domains])
    axes.tick_params(axis="y", labelsize=5.5, pad=1)
    gutter = -10 - 3.6 * max(len(domain) for domain in domains)
    left: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "center"}
    axes.annotate(arm, (0, 0.72), (gutter, 0), weight="bold", **left)
    axes.annotate(kind, (0, 0.22 if arm else 0.5), (gutter, 0), color=style.QUIET, fontsize=6, **left)


def _draw_pair(real: Any, placebo: Any, cell: pd.DataFrame, domains: Any) -> Any:
    """Draw one selector's two strips; an arm without the selector leaves them empty."""
    if cell.empty:
        real.set_axis_off()
        placebo.set_axis_off()
        return None
    width_E = cell[cell["domain"] == "all"].sort_values("slot")["share"].to_numpy()
    mesh = None
    for axes, column in ((real, "lift"), (placebo, "placebo_lift")):
        wide = cell[cell["domain"] != "all"].pivot(index="domain", columns="slot", values=column)
        mesh = mosaic.draw_mosaic(axes, wide.reindex(list(domains)).to_numpy(dtype=float), width_E)
    return mesh


def _mark_significant(axes: Any, cell: pd.DataFrame, marked: set[tuple[str, int]], domains: Any) -> None:
    """Put a dot on the cells that chance does not explain."""
    wide = cell[cell["domain"] != "all"].pivot(index="domain", columns="slot", values="lift").reindex(list(domains))
    width_E = cell[cell["domain"] == "all"].sort_values("slot")["share"].to_numpy()
    dots: dict[str, list[tuple[float, float]]] = {style.ON_DARK: [], style.ON_LIGHT: []}
    for row, column, middle in mosaic.centres(wide.to_numpy(dtype=float), width_E):
        if (str(domains[row]), int(wide.columns[column])) in marked:
            dark = mosaic.lift_shade(wide.iloc[row, column]) > 0.75
            dots[style.ON_DARK if dark else style.ON_LIGHT].append((middle, row + 0.5))
    for colour, places in dots.items():
        # all dots are one path, of lines so short that they are only their round caps: a marker each takes five times
        # the bytes
        across = [x for middle, _ in places for x in (middle - 0.001, middle + 0.001, np.nan)]
        up = [y for _, height in places for y in (height, height, np.nan)]
        if places:
            axes.plot(across, up, color=colour, linewidth=1.3, solid_capstyle="round", clip_on=False)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    full = _finished_rows(tables)
    if full.empty:
        return "No run of this study has a selector, so there is no lift to show."
    arms, selectors, names = _choose_drawn(tables, subject, options)
    shown = choosing.drawn_selectors(full, arms, selectors)
    word, words = choosing.slot_words_of(full[full["ablation"].isin(arms)], tables["selectors"])
    seeds = sorted(full["seed"].unique())
    marks = (
        f" Dots: cells above or below every shuffled cell of the selector in all seeds; by chance alone, one"
        f" selector in {len(seeds) + 1} has a dot above, and one in as many below."
    )
    one_of = f" One of {len(seeds)} seeds is shown, seed {seeds[0]}: {words} of different seeds have no common order."
    others = one_of if seeds[1:] else ""
    return (
        f"How much more often than on average each {word} (a column, as wide as its share of the tokens) is chosen for"
        " tokens of each domain (a row), in the finished model on the whole probe set."
        f"{others} Upper strip: real; lower strip: with the documents’ domains shuffled once, sorted by the same rule,"
        " so that sorting alone makes its order. A lower strip as strong as the upper one would mean that the upper one"
        f" is chance.{marks} One wide, pale column is a collapsed router."
        + choosing.note_left_out(
            (choosing.arms_with_selectors(full, subject), arms), choosing.all_and_drawn(names, shown)
        )
    )
