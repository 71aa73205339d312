"""Verdicts in plain sentences, with their numbers and intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from speciate.analysis.routing.states import Finding

Row = Mapping[str, Any]
STATE_PHRASES = {
    "collapsed": ("has collapsed", "have collapsed"),
    "specialised": ("is specialised", "are specialised"),
    "token": ("follows the identity of the tokens", "follow the identity of the tokens"),
    "untrained": ("tells labels no better than an untrained router", "tell labels no better than an untrained router"),
    "telling": (
        "tells labels apart, for reasons that this record cannot show",
        "tell labels apart, for reasons that this record cannot show",
    ),
    "indifferent": ("is indifferent to the label", "are indifferent to the label"),
    "undecided": ("is undecided as to its labels", "are undecided as to their labels"),
    "unlabelled": ("has not collapsed", "have not collapsed"),
}
MOST_LAYERS = 6
"""Layers that a headline names for a state."""


def percent(share: float) -> str:
    """Return a share as a percentage of three digits or so."""
    value = 100 * share
    return f"{value:.1f} %" if value >= 1 or value == 0 else f"{value:.2g} %"


def bits(value: float) -> str:
    """Return bits with two digits after the point, or with two that count."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}" if abs(value) >= 1e-4 else "0.00"


def probability(value: float) -> str:
    """Return a p- or q-value."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def layer_name(row: Row, repeated: bool) -> str:
    """Return how a sentence calls a layer; by its path where several selectors are of one layer."""
    name = f"Layer {int(row['layer'])}" if row["layer"] >= 0 and not repeated else str(row["path"])
    return f"{name} ({row['phase']})" if row["phase"] else name


def verdict_sentence(name: str, row: Row, finding: Finding, *, top: Row | None, unit: str) -> str:
    """Return the verdict on one layer.

    Args:
        name: what the layer is called.
        row: its row of table `layers`.
        finding: its state.
        top: its most significant row of table `lifts`; None without one.
        unit: `documents` or `windows`.
    """
    written = {
        "collapsed": _collapsed,
        "unlabelled": _unlabelled,
        "undecided": _undecided,
        "indifferent": _indifferent,
    }.get(finding.state, _telling)
    return f"{name} {written(row, finding, top, unit)}"


def _load(row: Row) -> str:
    interval = "" if math.isnan(row["max_share_low"]) else _range(row, "max_share_low", "max_share_high")
    return (
        f"expert {int(row['max_expert'])} takes {percent(row['max_share'])} of the choices"
        f" ({interval}an even router gives {percent(1 / row['num_slots'])}, the limit is"
        f" {percent(row['max_share_limit'])}; MaxVio {row['max_vio']:.2f}), and {row['effective_experts']:.1f} of"
        f" {int(row['num_slots'])} experts are in effective use"
    )


def _range(row: Row, low: str, high: str) -> str:
    return f"{percent(row[low])[:-2]} to {percent(row[high])}; "


def _collapsed(row: Row, finding: Finding, top: Row | None, unit: str) -> str:
    return f"has collapsed: {_load(row)}{_dead(row)}."


def _short_load(row: Row) -> str:
    """Return the load of a layer that has not collapsed."""
    high = "" if math.isnan(row["max_share_high"]) else f", {percent(row['max_share_high'])} at most"
    return (
        f"Its load has not collapsed (largest share {percent(row['max_share'])}{high}; MaxVio {row['max_vio']:.2f};"
        f" {row['effective_experts']:.1f} of {int(row['num_slots'])} experts in effective use{_dead(row)})."
    )


def _dead(row: Row) -> str:
    dead = int(row["dead_experts"])
    if not dead:
        return ""
    return f"; {dead} {'was' if dead == 1 else 'were'} never chosen"


def _unlabelled(row: Row, finding: Finding, top: Row | None, unit: str) -> str:
    return f"has not collapsed: {_load(row)}{_dead(row)}. Without labels, nothing can be said of specialisation."


def _excess(row: Row) -> str:
    return (
        f"{bits(row['excess_bits'])} bits about the label beyond chance ({bits(row['excess_low_bits'])} to"
        f" {bits(row['excess_high_bits'])}; q = {probability(row['q_value'])})"
    )


def _undecided(row: Row, finding: Finding, top: Row | None, unit: str) -> str:
    needed = ""
    if not math.isnan(finding.documents_needed):
        needed = f" About {int(finding.documents_needed):,} {unit} would settle it, not {int(row['documents']):,}."
    if finding.reason == "load":
        return f"may have collapsed, and the texts are too few to tell: {_load(row)}.{needed}"
    if finding.reason == "untested":
        known = not math.isnan(row["information_bits"])
        shared = f"; its choices share {bits(row['information_bits'])} bits with the label, chance included"
        return (
            f"has not collapsed: {_load(row)}{_dead(row)}. Whether it is specialised cannot be tested, since no two"
            f" labels have two {unit} each{shared if known else ''}."
        )
    if finding.reason == "text":
        return (
            f"is undecided: its choices tell {_excess(row)}; the texts are too few to tell.{needed} {_short_load(row)}"
        )
    control = {
        "tokens": f"the identity of the tokens explains {bits(row['token_explained_bits'])} of them, and beyond the"
        f" token nothing is shown (q = {probability(row['beyond_token_q'])})",
        "shadows": f"untrained routers tell {bits(row['shadow_bits'])}, {bits(row['shadow_high_bits'])} at most, which"
        f" is too near to tell (q = {probability(row['beyond_shadow_q'])})",
    }[finding.reason]
    return f"is undecided: its choices tell {_excess(row)}, but {control}. {_short_load(row)}"


def _indifferent(row: Row, finding: Finding, top: Row | None, unit: str) -> str:
    return f"is indifferent to the label: its choices tell {_excess(row)}, too little to matter. {_short_load(row)}"


def _telling(row: Row, finding: Finding, top: Row | None, unit: str) -> str:
    parts = [f"{STATE_PHRASES[finding.state][0]}: its choices tell {_excess(row)}"]
    if not math.isnan(row["token_explained_bits"]):
        beyond = ""
        if not math.isnan(row["beyond_token_q"]):
            beyond = f"; beyond the token, {bits(row['beyond_token_bits'])} (q = {probability(row['beyond_token_q'])})"
        parts.append(f"the identity of the tokens explains {bits(row['token_explained_bits'])}{beyond}")
    if not math.isnan(row["shadow_bits"]):
        parts.append(f"untrained routers tell {bits(row['shadow_bits'])}, {bits(row['shadow_high_bits'])} at most")
    if top is not None:
        interval = "" if math.isnan(top["lift_low"]) else f"{top['lift_low']:.2g} to {top['lift_high']:.2g}, "
        parts.append(
            f"most of all, expert {int(top['expert'])} is chosen {top['lift']:.2g} times as often for {top['label']} as"
            " for the mean label"
            f" ({interval}q = {probability(top['q_value'])})"
        )
    return f"{'; '.join(parts)}. {_short_load(row)}"


def headline(verdicts: Sequence[tuple[str, Finding]]) -> str:
    """Return the verdict on the whole: how many layers have collapsed, and what the choices of the others tell.

    Args:
        verdicts: name and finding of each layer.
    """
    number = len(verdicts)
    if number == 1 and verdicts[0][1].state != "collapsed":
        first = "" if verdicts[0][1].reason == "load" else f"{verdicts[0][0]} has not collapsed. "
    elif any(found.state == "collapsed" for _, found in verdicts):
        first = ""
    else:
        may = sum(found.reason == "load" for _, found in verdicts)
        first = (
            f"No layer of {number} is shown to have collapsed. " if may else f"None of {number} layers has collapsed. "
        )
    parts = []
    for phrase in dict.fromkeys(
        _phrase(found) for state in STATE_PHRASES for _, found in verdicts if found.state == state
    ):
        names = [name for name, found in verdicts if _phrase(found) == phrase]
        if phrase == STATE_PHRASES["unlabelled"]:
            continue
        count = f"{len(names)} of {number} layers" if len(names) < number else f"all {number} layers"
        some = len(names) < number and len(names) <= MOST_LAYERS
        which = f" ({', '.join(name[:1].lower() + name[1:] for name in names)})" if some else ""
        parts.append(f"{names[0] if number == 1 else count} {phrase[0] if len(names) == 1 else phrase[1]}{which}")
    rest = "; ".join(parts)
    if not rest:
        return f"{first}Without labels, nothing can be said of specialisation."
    return f"{first}{rest[:1].upper()}{rest[1:]}."


def _phrase(finding: Finding) -> tuple[str, str]:
    """Return what a headline says of layers with this finding: of one, of several."""
    if finding.state != "undecided":
        return STATE_PHRASES[finding.state]
    return {
        "load": ("may have collapsed", "may have collapsed"),
        "untested": ("cannot be tested for specialisation", "cannot be tested for specialisation"),
    }.get(finding.reason, STATE_PHRASES["undecided"])


def top_lift(lifts: pd.DataFrame, level: float) -> Row | None:
    """Return the row with the largest lift among those that are significant; None without one."""
    significant = lifts[(lifts["q_value"] <= level) & (lifts["lift"] > 1)]
    if significant.empty:
        return None
    row: Row = significant.loc[significant["lift_low"].fillna(significant["lift"]).idxmax()].to_dict()
    return row
