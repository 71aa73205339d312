"""Figure: does a choice that tells a text's domain matter for the loss? Information against causal cost, by layer.

A point is one selector of one finished run: across, what its choices tell of the domain; up, what it costs to replace
them by random choices of the same load. A selector can have much of one and nothing of the other.
"""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "Do the choices that tell a text’s domain matter for the loss?"
TABLES = {
    "effects": (
        "ablation",
        "seed",
        "selector",
        "layer",
        "matched_nats",
        "matched_low_nats",
        "matched_high_nats",
        "use",
    ),
    "selectors": ("ablation", "seed", "selector", "layer", "probe", "information_bits", "null_mean_bits"),
}
DEPTHS = LinearSegmentedColormap.from_list("depths", ["#C98A1B", "#D0562A", "#B04A8F", "#5B6BD5"])
"""Colours from the first layer to the last; all are seen on light and on dark pages."""
LIMITS = (
    "The model was trained with its selector, so a cost shows that it relies on it, not that another model would do"
    " worse without."
)
LEVELS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Costs with a tick, besides the margin."""
NOTHING = "No selector of this study was intervened on, so there is no cost to show."


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_arms: int = Field(9, ge=1)
    """Largest number of arms drawn, each with a marker of its own; the caption names the others."""

    reads: ClassVar[str] = "interventions"


def _points(tables: style.Tables) -> pd.DataFrame:
    """Return the selectors inside the layers, with the information and the cost of each."""
    key = ["ablation", "seed", "selector"]
    full = tables["selectors"][tables["selectors"]["probe"] == "full"]
    bits = full.assign(bits=full["information_bits"] - full["null_mean_bits"])[[*key, "bits"]]
    points = tables["effects"].merge(bits, on=key)
    return points[points["layer"] >= 0].dropna(subset=["bits", "matched_nats"])


def _arms(points: pd.DataFrame, subject: style.Subject, limit: int) -> list[str]:
    """Return the arms that are drawn: those with the most information, the controls among them."""
    most = points.groupby("ablation")["bits"].max().to_dict()
    return choosing.choose_arms(choosing.arms_with_selectors(points, subject), limit, most, subject)


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return how many of the selectors that learned matter, and how many do not."""
    points = _points(tables)
    if points.empty:
        return ""
    learned = points[[style.learns(arm, subject) for arm in points["ablation"]]]
    learned = learned if len(learned) else points
    used, idle = (int((learned["use"] == use).sum()) for use in ("used", "idle"))
    rest = len(learned) - used - idle
    unsure = f", and {rest} can be judged neither way" if rest else ""
    controls = points[points["ablation"].isin(list(subject.controls))]
    beside = f"; of {len(controls)} in the controls, {(controls['use'] == 'used').sum()} do" if len(controls) else ""
    return (
        f"Of {len(learned)} selectors that learned, {used} cost more than {subject.margin:g} nats per token when they"
        f" choose at random, {idle} less{unsure}{beside}"
    )


def _colours(points: pd.DataFrame) -> dict[int, Any]:
    """Return a colour for each layer, spread over the layers that have a selector: often only the last ones do."""
    layers = sorted(int(layer) for layer in points["layer"].unique())
    return {layer: DEPTHS(place / max(1, len(layers) - 1)) for place, layer in enumerate(layers)}


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a point a selector, its interval, and the margin."""
    points = _points(tables)
    if points.empty:
        return style.message_figure(NOTHING)
    arms = _arms(points, subject, options.max_arms)
    drawn = style.new_figure(3.4 if not style.is_narrow() else 4.2)
    axes = drawn.subplots()
    colours = _colours(points)
    for arm, marker in zip(arms, style.MARKERS, strict=False):
        for row in points[points["ablation"] == arm].itertuples():
            colour = colours[int(row.layer)]
            face = colour if style.learns(arm, subject) else style.PAPER
            axes.plot([row.bits] * 2, [row.matched_low_nats, row.matched_high_nats], color=colour, linewidth=0.5)
            axes.plot(row.bits, row.matched_nats, marker, color=colour, markerfacecolor=face, markersize=4.5)
    linear = subject.margin or 0.01
    axes.set_yscale("symlog", linthresh=linear, linscale=0.6)
    axes.set_yticks([sign * size for sign in (-1, 1) for size in (*LEVELS, linear)] + [0.0])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.axhspan(-linear, linear, color=style.HAIR, linewidth=0, zorder=0)
    top = float(np.nanmax(points[["matched_nats", "matched_high_nats"]].to_numpy()))
    axes.set_ylim(min(-1.5 * linear, 1.2 * float(points["matched_nats"].min())), max(2 * linear, 1.3 * top))
    axes.set_xlabel("I(E;D) beyond the null’s mean, bits")
    axes.set_ylabel("cost of load-matched random choice, nats per token")
    _draw_legends(drawn, arms, colours, subject)
    return drawn


def _draw_legends(drawn: Figure, arms: list[str], colours: dict[int, Any], subject: style.Subject) -> None:
    """Say outside the axes which marker is which arm, and which colour is which layer."""
    handles = [
        Line2D(
            *([], []),
            marker=marker,
            linestyle="",
            color=style.QUIET,
            markersize=4.5,
            markerfacecolor=style.QUIET if style.learns(arm, subject) else style.PAPER,
            label=style.plain_name(arm),
        )
        for arm, marker in zip(arms, style.MARKERS, strict=False)
    ]
    layers = list(colours)
    shown = layers if len(layers) <= 6 else [layers[round(place * (len(layers) - 1) / 4)] for place in range(5)]
    handles += [
        Line2D([], [], marker="o", linestyle="", color=colours[layer], markersize=4.5, label=f"layer {layer}")
        for layer in shown
    ]
    if style.is_narrow():
        drawn.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=6.5)
    else:
        drawn.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=6.5)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    points = _points(tables)
    if points.empty:
        return NOTHING
    arms = _arms(points, subject, options.max_arms)
    idle, used = ((points["use"] == use).sum() for use in ("idle", "used"))
    hollow = [arm for arm in arms if not style.learns(arm, subject)]
    controls = f" Hollow: {style.join_names(hollow)}, whose selectors do not learn." if hollow else ""
    return (
        "A point is one selector of one finished model, coloured by its depth. Up: how much the loss rises where random"
        " choices of the same load replace its own (for a router, the choices of other tokens), with the"
        f" {subject.confidence:.0%} interval of a bootstrap over documents; linear within the grey band, which is plus"
        f" and minus the margin of {subject.margin:g} nats, and logarithmic beyond it. Of {len(points)} selectors"
        f" {used} cost more than the margin by the whole interval, and {idle} stay inside it by the whole interval:"
        f" these are idle.{controls} Selectors outside the layers are not shown."
        + choosing.note_left_out((choosing.arms_with_selectors(points, subject), arms))
    )
