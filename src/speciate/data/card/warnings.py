"""Collect the card's warnings: from its own tables, and from the mixture."""

from collections.abc import Iterable
from typing import Any

from speciate.data.card.counts import Rows

OVERLAP = 0.05
"""Warn if more than this share of a held-out text's word n-grams is in training text."""
SAME_EDGE = 0.1
"""Warn if more than this share of a domain's documents has the same beginning or end."""


def warning_table(rows: Rows, mixture_warnings: Iterable[str]) -> Rows:
    """Build the table of warnings: first the mixture's, then those that follow from the other tables."""
    balance = [{"domain": "", "stage": "balance", "warning": warning} for warning in mixture_warnings]
    card = [
        *_source_warnings(rows["data_sources"]),
        *_overlap_warnings(rows["data_overlaps"]),
        *_formatting_warnings(rows["data_formatting"]),
    ]
    return {"data_warnings": balance + [{"domain": domain, "stage": "card", "warning": text} for domain, text in card]}


def _source_warnings(sources: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for row in sources:
        if not row["licence"]:
            yield row["domain"], f"the study file states no licence of source {row['source']}"
        if not row["pin"] and not row["sha256"]:
            yield row["domain"], f"source {row['source']} has no pin: it is whatever its files held when they were read"
        if not row["documents_kept"]:
            yield row["domain"], f"nothing is kept of the {row['documents_read']} documents of source {row['source']}"


def _overlap_warnings(overlaps: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for row in overlaps:
        if (
            row["split"] != "train"
            and row["in_split"] == "train"
            and row["share"] - 2 * row["standard_error"] > OVERLAP
        ):
            whose = "its own" if row["in_domain"] == row["domain"] else f"{row['in_domain']}'s"
            share = f"{row['share']:.1%} of the 13-word runs of {row['domain']}'s {row['split']} documents"
            yield row["domain"], f"{share} are in {whose} training text too"


def _formatting_warnings(formatting: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for row in formatting:
        if row["text"] == "clean" and row["measure"] in ("prefix", "suffix") and row["share"] > SAME_EDGE:
            verb = "begin" if row["measure"] == "prefix" else "end"
            yield row["domain"], f"{row['share']:.0%} of the documents {verb} alike, with {row['value']!r}"
