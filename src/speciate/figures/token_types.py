"""Figure: do experts of code serve keywords, names, operators? Lift by token type and expert, for domains of code.

Lift is P(e|type) / P(e) over the code tokens in the finished model; a column is as wide as the expert's share of them.
"""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, mosaic, style

QUESTION = "Do experts of code serve keywords, names, operators?"
TABLES = {"types": ("ablation", "seed", "selector", "layer", "type", "slot", "tokens", "share", "lift")}


LIMITS = (
    "A type consists of few different tokens, so a frozen or hash router serves some of them without having learned"
    " anything: only what exceeds theirs was learned."
)


class Options(FigureOptions):
    """Limits of what one page can hold."""

    reads: ClassVar[str] = "types"
    """Studies without a domain of code have no lexical types, and not this figure."""

    max_arms: int = Field(5, ge=1)
    """Largest number of arms drawn; the caption names the others."""
    max_selectors: int = Field(4, ge=1)
    """Largest number of selectors drawn, spread over the depth."""


def _with_mass(tables: style.Tables) -> pd.DataFrame:
    """Add `mass`, the expected log-lift of each cell, whose sum over a selector is I(E;type) in bits."""
    types = tables["types"]
    known = types[types["tokens"] > 0]
    total = known.groupby(["ablation", "seed", "selector", "slot"])["tokens"].transform("sum")
    safe = known["lift"].where(known["share"] > 0, 1.0)
    return known.assign(mass=known["tokens"] / total * known["share"] * np.log2(safe))


def _bits_by_arm(weighed: pd.DataFrame) -> pd.Series:
    """Return I(E;type) of each arm in bits, averaged over selectors and seeds."""
    return weighed.groupby(["ablation", "seed", "selector"])["mass"].sum().groupby("ablation").mean()


def _choose_drawn(
    weighed: pd.DataFrame, subject: style.Subject, options: Any
) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the arms and selectors to draw, and every selector's name."""
    arms = choosing.arms_with_selectors(weighed, subject)
    kept = choosing.choose_arms(arms, options.max_arms, _bits_by_arm(weighed).to_dict(), subject)
    names = choosing.selector_names(weighed)
    heavy = weighed.groupby("selector")["mass"].sum().to_dict()
    return kept, choosing.choose_names(choosing.column_selectors(names), options.max_selectors, heavy), names


def _order_types(weighed: pd.DataFrame) -> list[str]:
    """Return the types, the most frequent first and 'other' last."""
    tokens = weighed.groupby("type")["tokens"].max().sort_values(ascending=False, kind="stable")
    return sorted(tokens.index, key=lambda name: name == "other")


def _top_row(weighed: pd.DataFrame, subject: style.Subject) -> pd.Series | None:
    """Return the row that tells most of a lexical type, of arms that learn; None where there is none."""
    typed = weighed[weighed["type"] != "other"]
    learned = typed[~typed["ablation"].isin([*subject.controls, *subject.fixed])]
    typed = learned if len(learned) else typed
    return typed.loc[typed["mass"].idxmax()] if len(typed) else None


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which type of code goes to one expert most, and how much the choices tell of the type."""
    weighed = _with_mass(tables)
    top = _top_row(weighed, subject) if len(weighed) else None
    if top is None:
        return ""
    bits = _bits_by_arm(weighed)
    arm = str(top["ablation"])
    controls = [name for name in subject.controls if name in bits.index]
    by_seed = weighed.groupby(["ablation", "seed", "selector"])["mass"].sum().groupby(["ablation", "seed"]).mean()
    told = {name: style.with_interval(by_seed[name], subject.confidence) for name in (arm, *controls[:1])}
    beside = f"; {style.plain_name(controls[0])}, which never learned, {told[controls[0]]}" if controls else ""
    return (
        f"One expert of {style.plain_name(arm)} gets {top['share']:.0%} of the {top['type']} tokens of code,"
        f" {top['lift']:.1f} times its part of all; the arm’s choices tell {told[arm]} bits of the type{beside}"
    )


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a row per arm and a column per layer, for the first seed."""
    weighed = _with_mass(tables)
    if weighed.empty:
        return style.message_figure("No tokens of this study have a lexical type.")
    arms, selectors, names = _choose_drawn(weighed, subject, options)
    types = _order_types(weighed)
    seed = weighed["seed"].min()
    drawn = style.new_figure(0.75 + len(arms) * (0.115 * len(types) + 0.12))
    grid = drawn.subplots(len(arms), len(selectors), squeeze=False)
    style.pack_axes(drawn, h_pad=0.04, left=0.004)
    mesh = None
    for row, arm in enumerate(arms):
        paths = list(weighed[weighed["ablation"] == arm]["selector"].unique())
        for column, selector in enumerate(choosing.selectors_of_columns(paths, selectors)):
            axes = grid[row, column]
            if row == 0:
                axes.set_title(names[selectors[column]], pad=3)
            if column == 0:
                _label_rows(axes, style.plain_name(arm), types)
            cell = weighed[(weighed["ablation"] == arm) & (weighed["selector"] == selector) & (weighed["seed"] == seed)]
            if cell.empty:
                axes.set_axis_off()
                continue
            lift = cell.pivot(index="type", columns="slot", values="lift").reindex(types).to_numpy(dtype=float)
            mass = (cell["tokens"] * cell["share"]).groupby(cell["slot"]).sum().sort_index().to_numpy()
            mesh = mosaic.draw_mosaic(axes, lift, mass / mass.sum())
            if column == 0:
                axes.set_yticks(np.arange(len(types)) + 0.5, types)
            if selector is not None and selector not in selectors:
                above: dict[str, Any] = {"xycoords": "axes fraction", "ha": "right", "va": "bottom"}
                text = axes.annotate(names[selector], (1, 1.01), fontsize=5.5, color=style.QUIET, **above)
                text.set_in_layout(False)  # the gap above is wide enough
    if mesh is not None:
        mosaic.draw_lift_key(drawn, mesh, list(grid.flat))
    return drawn


def _label_rows(axes: Any, arm: str, types: list[str]) -> None:
    """Label a row on its left with the arm, whose name stays where the axes have nothing to show."""
    axes.tick_params(axis="y", labelsize=5.5, pad=1)
    left: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "center"}
    axes.annotate(arm, (0, 0.5), (-10 - 3.6 * max(map(len, types)), 0), weight="bold", **left)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    weighed = _with_mass(tables)
    if weighed.empty:
        return "No domain of this study has a programming language, so no token has a lexical type."
    arms, selectors, names = _choose_drawn(weighed, subject, options)
    bits = _bits_by_arm(weighed)
    counts = weighed.groupby("type")["tokens"].max()
    shares = ", ".join(f"{name} {counts[name] / counts.sum():.0%}" for name in _order_types(weighed))
    seeds = sorted(weighed["seed"].unique())
    shown_seed = f" (one of {len(seeds)} seeds, seed {seeds[0]})" if seeds[1:] else ""
    information = ", ".join(f"{style.plain_name(arm)} {bits[arm]:.3f}" for arm in arms)
    return (
        f"How much more often than on average each expert{shown_seed} is chosen for a code token of each lexical type."
        " A column is as wide as the expert’s share of the code tokens. Columns are sorted by the type that they serve"
        f" most, which alone makes a diagonal. Types of the probe set’s code tokens: {shares}. Information between"
        f" expert and type, in bits, as means over layers and seeds: {information}. No null is"
        " subtracted from it; a hash router, for one, sends every “return” to one expert."
        + choosing.note_left_out(
            (choosing.arms_with_selectors(weighed, subject), arms),
            choosing.all_and_drawn(names, choosing.drawn_selectors(weighed, arms, selectors)),
        )
    )
