"""The state of one layer, from its row of table `layers`; and about how many documents would settle it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from speciate.analysis import collapse, information

MATERIAL = 0.02
"""Share of what a router that knows the label would tell, below which a dependence is too small to matter."""
MOST_NEEDED = 1e7
"""More documents than this are not worth naming."""
NAN = float("nan")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """A state, the reason in a word, and about how many documents would settle it (NaN: it is settled, or none would).

    Reasons of `undecided`: load, untested, text, tokens, shadows. Of `telling`: what is missing.
    """

    state: str
    reason: str = ""
    documents_needed: float = NAN


def material_bits(num_labels: int, num_slots: int, num_chosen: float) -> float:
    """Return the information below which a dependence on the label is too small to matter."""
    if num_labels < 2 or num_slots < 2:
        return 0.0
    return MATERIAL * max(information.oracle_bits(num_labels, num_slots, max(num_chosen, 1.0)), 0.0)


def find_state(row: Row, *, num_labels: int, level: float) -> Finding:
    """Return the state of a layer.

    Args:
        row: its row of table `layers`.
        num_labels: number of labels that the record has.
        level: largest q-value that counts.
    """
    found = _of_load(row)
    if found is not None:
        return found
    if num_labels < 2:
        return Finding("unlabelled")
    if math.isnan(row["p_value"]):
        return Finding("undecided", "untested")
    material = material_bits(num_labels, int(row["num_slots"]), float(row["num_chosen"]))
    if row["excess_high_bits"] <= material:
        return Finding("indifferent")
    if not row["q_value"] <= level:
        return Finding("undecided", "text", _needed_for_information(row, material))
    return _of_controls(row, level)


def _of_load(row: Row) -> Finding | None:
    limits = {"max_share_limit": row["max_share_limit"], "effective_limit": row["effective_experts_limit"]}
    point_beyond = collapse.is_beyond_limits(row["max_share"], row["effective_experts"], **limits)
    if math.isnan(row["max_share_low"]):
        return Finding("collapsed") if point_beyond else None
    if collapse.is_beyond_limits(row["max_share_low"], row["effective_experts_high"], **limits):
        return Finding("collapsed")
    if not point_beyond:
        return None
    distance = row["max_share"] - row["max_share_limit"]
    width = row["max_share"] - row["max_share_low"]
    if distance <= 0:
        distance = row["effective_experts_limit"] - row["effective_experts"]
        width = row["effective_experts_high"] - row["effective_experts"]
    return Finding("undecided", "load", _needed(row["documents"], width, distance))


def _of_controls(row: Row, level: float) -> Finding:
    missing = []
    if math.isnan(row["beyond_shadow_q"]):
        missing.append("shadows")
    elif not row["beyond_shadow_q"] <= level:
        explained = max(2 * row["shadow_bits"], row["shadow_high_bits"]) >= row["excess_bits"]
        return Finding("untrained") if explained else Finding("undecided", "shadows")
    if math.isnan(row["beyond_token_q"]):
        missing.append("tokens")
    elif not row["beyond_token_q"] <= level:
        explained = 2 * row["token_explained_bits"] >= row["excess_bits"]
        return Finding("token") if explained else Finding("undecided", "tokens")
    return Finding("telling", " ".join(missing)) if missing else Finding("specialised")


def _needed_for_information(row: Row, material: float) -> float:
    """Return how many documents would part the excess from 0, or from what matters, whichever is nearer to be told."""
    excess = row["excess_bits"]
    width = row["excess_high_bits"] - row["excess_low_bits"]
    return _needed(row["documents"], width / 2, max(excess, material - excess))


def _needed(documents: float, width: float, distance: float) -> float:
    """Return the documents whose interval would be narrower than the distance: its width falls with the square root."""
    if not (documents > 0 and width > 0 and distance > 0):
        return NAN
    needed = documents * max((width / distance) ** 2, (documents + 1) / documents)
    return math.ceil(needed) if needed <= MOST_NEEDED else NAN
