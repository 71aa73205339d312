"""Build the tables of the data page from the data card; the report shows a few of them too."""

from collections.abc import Iterable

import pandas as pd

from speciate.config.stage import SPLITS
from speciate.reporting.finding import Tables
from speciate.reporting.formats import (
    DASH,
    Table,
    format_bytes,
    format_count,
    format_number,
    format_percent,
    make_table,
    plain_name,
)

REPORT_TABLES = ("data_sources", "data_domains", "data_drops", "data_warnings")
"""The tables that the report reads."""


def domain_names(tables: Tables) -> list[str]:
    """Return the domains in the order of the study file."""
    return list(dict.fromkeys(tables["data_sources"]["domain"]))


def sources_table(tables: Tables) -> Table:
    """Return a table of the sources: where the texts come from, their licence, and how much was read and kept."""
    rows = [
        [plain_name(row.domain), row.source, row.kind, row.what, row.pin or DASH, row.licence or "not stated"]
        + [
            format_count(row.documents_read),
            format_count(row.documents_kept),
            format_bytes(row.bytes_read),
            format_bytes(row.bytes_kept),
        ]
        for row in tables["data_sources"].itertuples()
    ]
    words = ["domain", "source", "kind", "what it reads", "version", "licence of the texts"]
    numbers = ["documents read", "documents kept", "text read", "text kept"]
    note = "“Kept” means kept by the filters; duplicates are removed later. Text is in bytes of UTF-8."
    return make_table("Sources", words, numbers, rows, note=note)


def source_digests(tables: Tables) -> list[tuple[str, str]]:
    """Return (source, sha256) of every pinned file."""
    rows = tables["data_sources"]
    return [(row.source, row.sha256) for row in rows[rows["sha256"] != ""].itertuples()]


def flow_table(tables: Tables) -> Table:
    """Return a table of what is left after each stage, from the documents read to the blocks used."""
    split = tables["data_domains"]
    train = split[split["split"] == "train"].set_index("domain")
    sums = split.groupby("domain")[["documents", "encoded"]].sum()
    read = tables["data_sources"].groupby("domain")[["documents_read", "documents_kept"]].sum()
    rows = []
    for domain in domain_names(tables):
        counts = train.loc[domain]
        numbers = [read["documents_read"][domain], read["documents_kept"][domain], sums["documents"][domain]]
        numbers += [counts[name] for name in ("documents", "encoded", "tokens", "blocks", "blocks_used")]
        cells = [*(format_count(float(value)) for value in numbers), format_number(counts["epochs"], 2)]
        rows.append([plain_name(domain), *cells])
    labels = ["kept by filters", "without duplicates", "in training split", "encoded", "training tokens"]
    labels += ["blocks packed", "blocks used"]
    labels = ["documents read", *(f"→\N{NO-BREAK SPACE}{label}" for label in labels), "epochs"]
    note = (
        "The columns count documents up to “encoded”. Epochs are blocks used over blocks packed; above 1, text is"
        " repeated."
    )
    return make_table("From the sources to the mixture", ["domain"], labels, rows, note=note)


def describe_imbalance(tables: Tables) -> str:
    """Return a sentence on how uneven the domains are before balancing."""
    train = tables["data_domains"]
    blocks = train[train["split"] == "train"]["blocks"]
    ratio = blocks.max() / blocks.min() if blocks.min() else float("nan")
    return (
        f"Before balancing, the largest domain has {format_number(ratio, 2)} times the training tokens of the smallest."
    )


def splits_table(tables: Tables) -> Table:
    """Return a table of the contents of every split."""
    rows = []
    for row in tables["data_domains"].itertuples():
        lost = row.tokens_lost / (row.tokens + row.encoded) if row.tokens else float("nan")
        numbers = [
            format_count(row.documents),
            format_count(row.groups),
            format_bytes(row.bytes),
            format_count(row.tokens),
        ]
        numbers += [
            format_number(row.bytes_per_token, 2),
            format_count(row.blocks),
            format_percent(lost, 2),
            format_count(row.blocks_used),
        ]
        rows.append([plain_name(row.domain), row.split, *numbers, format_count(row.tokens_used)])
    numbers = ["documents", "groups", "text", "tokens", "bytes per token", "blocks", "tokens in no block"]
    numbers += ["blocks used", "tokens used"]
    note = (
        "A document is in one split only, and so is its group (an article, a template). “Used” means in the mixture, or"
        " in the fixed held-out set."
    )
    return make_table("Splits", ["domain", "split"], numbers, rows, note=note)


def drop_tables(tables: Tables) -> list[Table]:
    """Return a table of every reason for a drop, by domain; nothing where nothing was dropped."""
    drops = tables["data_drops"]
    stages = {"clean": "filters", "sort": "byte limit", "cluster": "duplicates", "pack": "token limit"}
    names = domain_names(tables)
    wide = drops.set_index(["stage", "reason", "domain"])
    keys = list(dict.fromkeys(zip(drops["stage"], drops["reason"], strict=True)))
    keys.sort(key=lambda key: list(stages).index(key[0]))
    rows = []
    for stage, reason in keys:
        row = [stages[stage], plain_name(reason)]
        for domain in names:
            has_drops = (stage, reason, domain) in wide.index
            row += [format_count(wide["documents"][stage, reason, domain]) if has_drops else "0"]
            row += [format_percent(wide["share"][stage, reason, domain], 2) if has_drops else DASH]
        rows.append(row)
    numbers = [label for domain in names for label in (plain_name(domain), "of those read")]
    note = (
        "Numbers of documents. Each document has one reason, the first that applied; another order of the filters would"
        " give other counts."
    )
    return [make_table("Dropped, by reason", ["by", "reason"], numbers, rows, note=note)] if rows else []


def edit_tables(tables: Tables) -> list[Table]:
    """Return a table of the documents that filters altered; nothing where there are none."""
    rows = [
        [plain_name(row.domain), plain_name(row.filter), format_count(row.documents), format_percent(row.share, 2)]
        for row in tables["data_edits"].itertuples()
    ]
    note = "Kept documents that a filter altered."
    return [make_table("Edited", ["domain", "filter"], ["documents", "of those kept"], rows, note=note)] if rows else []


def duplicate_tables(tables: Tables) -> list[Table]:
    """Return a table of the number and size of the clusters of duplicates; nothing where there are none."""
    rows = []
    clusters = tables["data_duplicates"].groupby(["scope", "reason", "domains"], sort=False)
    for (scope, reason, domains), group in clusters:
        documents = group["size"] * group["clusters"]
        numbers = [group["clusters"].sum(), documents.sum(), group["size"].max()]
        rows.append(
            [
                _scope_name(scope),
                plain_name(reason),
                plain_name(domains),
                *(format_count(float(value)) for value in numbers),
            ]
        )
    words, numbers = ["compared", "reason", "domains of the documents"], ["clusters", "documents", "largest cluster"]
    note = (
        "A document that equals a kept one, or is similar to it, is dropped; a chain of similar texts may keep several"
        " documents."
    )
    return [make_table("Clusters of duplicates", words, numbers, rows, note=note)] if rows else []


def _scope_name(scope: str) -> str:
    return "all domains together" if scope == "domains" else plain_name(scope)


def overlap_tables(tables: Tables) -> list[Table]:
    """Return tables of how much held-out text, and other domains' training text, is in each domain's training text."""
    overlaps = tables["data_overlaps"]
    trained = overlaps[overlaps["in_split"] == "train"]
    names = domain_names(tables)
    held_out = [(domain, split) for domain in names for split in SPLITS[1:]]
    rows = [[plain_name(domain), split, *_overlap_cells(trained, domain, split, names)] for domain, split in held_out]
    labels = [f"in {plain_name(name)}" for name in names]
    note = "The share of distinct 13-word runs that are also in the training text, ± one standard error (%)."
    overlap = [make_table("Held-out text in training text", ["domain", "split"], labels, rows, note=note)]
    if len(names) > 1:
        rows = [[plain_name(name), *_overlap_cells(trained, name, "train", names)] for name in names]
        overlap.append(make_table("Training text in other training text", ["domain"], labels, rows, note=note))
    return overlap


def _overlap_cells(overlaps: pd.DataFrame, domain: str, split: str, names: Iterable[str]) -> list[str]:
    rows = overlaps[(overlaps["domain"] == domain) & (overlaps["split"] == split)].set_index("in_domain")
    return [_format_overlap(rows.loc[name]) if name in rows.index else DASH for name in names]


def _format_overlap(row: pd.Series) -> str:
    if not row["compared"]:
        return "too few to tell"
    # nothing among n is not zero: with 95 % confidence it is below 3/n
    if not row["share"]:
        return f"none of {format_count(row['compared'])}"
    error = f" ± {format_number(100 * row['standard_error'], 2)}" if row["standard_error"] else ""
    return f"{format_percent(row['share'], 2)}{error}"


def formatting_tables(tables: Tables) -> list[Table]:
    """Return a table of the formatting that a domain's documents share, before and after cleaning."""
    counts = tables["data_formatting"]
    labels = {
        "leading_space": "begins with white space",
        "trailing_space": "ends with white space",
        "unseen": "holds an invisible or control character",
        "first": "begins with the character",
        "prefix": "begins with",
        "suffix": "ends with",
    }
    rows = []
    for (domain, measure), rows_of_measure in counts.groupby(["domain", "measure"], sort=False):
        wide = rows_of_measure.pivot_table(index="value", columns="text", values="share", sort=False)
        wide = wide.reindex(columns=["raw", "clean"]).sort_values("clean", ascending=False, na_position="last")
        # these measures are counted completely, so a missing value is zero
        wide = wide.fillna(0.0) if measure in ("leading_space", "trailing_space", "unseen") else wide
        # a beginning that fewer than one document in a hundred has says nothing about the domain
        common = wide[(wide.max(axis=1) >= 0.01) | (measure == "unseen")]
        for value, shares in common.head(6).iterrows():
            shown = value if measure == "unseen" else repr(value) if value else ""
            row = [plain_name(domain), labels[measure], shown]
            rows.append([*row, *(format_percent(shares[text], 1) for text in ("raw", "clean"))])
    note = (
        "The share of documents, as the sources gave them and as they were kept. First characters, beginnings and ends"
    )
    note += " show the six most common, from 1% on; a dash means that it is not among the most common."
    words = ["domain", "the document", "what"]
    return [make_table("Formatting", words, ["as read", "as kept"], rows, note=note)] if rows else []


def warning_sentences(tables: Tables) -> list[str]:
    """Return the card's warnings as sentences."""
    return [
        f"{plain_name(row.domain)}: {row.warning}." if row.domain else f"{row.warning}."
        for row in tables["data_warnings"].itertuples()
    ]
