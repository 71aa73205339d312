"""What a reader of the card should know before using its numbers: found in its tables, or said by the mixture."""

from collections.abc import Iterable
from typing import Any

from speciate.data.card.counts import Rows

OVERLAP = 0.05
"""Part of a held-out text's word runs in training text from which that is said."""
ALIKE = 0.1
"""Part of a domain's documents that begin, or end, alike from which that is said."""


def of_study(rows: Rows, said: Iterable[str]) -> Rows:
    """The table of warnings: those that the mixture said, then those that the other tables give."""
    found = [{"domain": "", "stage": "balance", "warning": warning} for warning in said]
    card = [*_sources(rows["data_sources"]), *_overlaps(rows["data_overlaps"]), *_formatting(rows["data_formatting"])]
    return {"data_warnings": found + [{"domain": domain, "stage": "card", "warning": text} for domain, text in card]}


def _sources(sources: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for row in sources:
        if not row["licence"]:
            yield row["domain"], f"the study file states no licence of source {row['source']}"
        if not row["pin"] and not row["sha256"]:
            yield row["domain"], f"source {row['source']} has no pin: it is whatever its files held when they were read"
        if not row["documents_kept"]:
            yield row["domain"], f"nothing is kept of the {row['documents_read']} documents of source {row['source']}"


def _overlaps(overlaps: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for row in overlaps:
        if (
            row["split"] != "train"
            and row["in_split"] == "train"
            and row["share"] - 2 * row["standard_error"] > OVERLAP
        ):
            where = "its own" if row["in_domain"] == row["domain"] else f"{row['in_domain']}'s"
            told = f"{row['share']:.1%} of the 13-word runs of {row['domain']}'s {row['split']} documents"
            yield row["domain"], f"{told} are in {where} training text too"


def _formatting(formatting: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for row in formatting:
        if row["text"] == "clean" and row["measure"] in ("prefix", "suffix") and row["share"] > ALIKE:
            how = "begin" if row["measure"] == "prefix" else "end"
            yield row["domain"], f"{row['share']:.0%} of the documents {how} alike, with {row['value']!r}"
