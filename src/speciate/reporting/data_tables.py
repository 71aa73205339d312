"""The data card's tables as a reader sees them: on the page of the data, and a few of them in the report."""

from collections.abc import Iterable

import pandas as pd

from speciate.reporting.findings import Tables
from speciate.reporting.formats import (
    DASH,
    Table,
    format_number,
    format_percent,
    format_bytes,
    plain_name,
    make_table,
    format_count,
)

REPORT_TABLES = ("data_sources", "data_domains", "data_drops", "data_warnings")
"""The tables that the report reads."""
SPLITS = ("train", "validation", "test", "probe")


def domain_names(tables: Tables) -> list[str]:
    """In the order of the study file."""
    return list(dict.fromkeys(tables["data_sources"]["domain"]))


def sources_table(tables: Tables) -> Table:
    """Where the texts come from."""
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
    note = "Kept: by the filters; duplicates are taken out later. Text in bytes of UTF-8."
    return make_table("Sources", words, numbers, rows, note)


def source_digests(tables: Tables) -> list[tuple[str, str]]:
    """(source, sha256) of every pinned file."""
    rows = tables["data_sources"]
    return [(row.source, row.sha256) for row in rows[rows["sha256"] != ""].itertuples()]


def flow_table(tables: Tables) -> Table:
    """From what was read to what is trained on, a column a stage."""
    split = tables["data_domains"]
    train = split[split["split"] == "train"].set_index("domain")
    sums = split.groupby("domain")[["documents", "encoded"]].sum()
    read = tables["data_sources"].groupby("domain")[["documents_read", "documents_kept"]].sum()
    rows = []
    for domain in domain_names(tables):
        mine = train.loc[domain]
        numbers = [read["documents_read"][domain], read["documents_kept"][domain], sums["documents"][domain]]
        numbers += [mine["documents"], mine["encoded"], mine["tokens"], mine["blocks"], mine["blocks_used"]]
        rows.append(
            [plain_name(domain), *(format_count(float(value)) for value in numbers), format_number(mine["epochs"], 2)]
        )
    labels = ["kept by filters", "without duplicates", "in training split", "encoded", "training tokens"]
    labels += ["blocks packed", "blocks used"]
    labels = ["documents read", *(f"→\N{NO-BREAK SPACE}{label}" for label in labels), "epochs"]
    note = "Documents up to the arrow to tokens. Epochs: blocks used over blocks packed; above 1, text is repeated."
    return make_table("From the sources to the mixture", ["domain"], labels, rows, note)


def describe_imbalance(tables: Tables) -> str:
    """How uneven the domains are before balancing."""
    train = tables["data_domains"]
    blocks = train[train["split"] == "train"]["blocks"]
    ratio = blocks.max() / blocks.min() if blocks.min() else float("nan")
    return (
        f"Before balancing, the largest domain has {format_number(ratio, 2)} times the training tokens of the smallest."
    )


def splits_table(tables: Tables) -> Table:
    """What every split holds."""
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
    numbers = ["documents", "groups", "text", "tokens", "bytes a token", "blocks", "tokens in no block"]
    numbers += ["blocks used", "tokens used"]
    note = "A document is in one split only, and so is its group (an article, a template). Used: in the mixture, or in"
    return make_table("Splits", ["domain", "split"], numbers, rows, f"{note} the fixed held-out set.")


def drop_tables(tables: Tables) -> list[Table]:
    """Every reason for a drop, by domain; nothing where nothing was dropped."""
    found = tables["data_drops"]
    stages = {"clean": "filters", "cluster": "duplicates", "encode": "token limit"}
    names = domain_names(tables)
    wide = found.set_index(["stage", "reason", "domain"])
    keys = list(dict.fromkeys(zip(found["stage"], found["reason"], strict=True)))
    keys.sort(key=lambda key: list(stages).index(key[0]))
    rows = []
    for stage, reason in keys:
        row = [stages[stage], plain_name(reason)]
        for domain in names:
            there = (stage, reason, domain) in wide.index
            row += [format_count(wide["documents"][stage, reason, domain]) if there else "0"]
            row += [format_percent(wide["share"][stage, reason, domain], 2) if there else DASH]
        rows.append(row)
    numbers = [label for domain in names for label in (plain_name(domain), "of those read")]
    note = "Documents. Each has one reason, the first; another order of the filters would give other counts."
    return [make_table("Dropped, by reason", ["by", "reason"], numbers, rows, note)] if rows else []


def edit_tables(tables: Tables) -> list[Table]:
    """What filters altered."""
    rows = [
        [plain_name(row.domain), plain_name(row.filter), format_count(row.documents), format_percent(row.share, 2)]
        for row in tables["data_edits"].itertuples()
    ]
    note = "Kept documents that a filter altered."
    return [make_table("Edited", ["domain", "filter"], ["documents", "of those kept"], rows, note)] if rows else []


def duplicate_tables(tables: Tables) -> list[Table]:
    """How many clusters of duplicates there are, and how large."""
    rows = []
    for (scope, reason, domains), mine in tables["data_duplicates"].groupby(["scope", "reason", "domains"], sort=False):
        documents = mine["size"] * mine["clusters"]
        numbers = [mine["clusters"].sum(), documents.sum(), mine["size"].max()]
        rows.append(
            [
                _scope_name(scope),
                plain_name(reason),
                plain_name(domains),
                *(format_count(float(value)) for value in numbers),
            ]
        )
    words, numbers = ["compared", "reason", "domains of the documents"], ["clusters", "documents", "largest cluster"]
    note = "What equals a kept document, or is similar to it, is dropped; a chain of similar texts may keep several."
    return [make_table("Clusters of duplicates", words, numbers, rows, note)] if rows else []


def _scope_name(scope: str) -> str:
    return "all domains together" if scope == "domains" else plain_name(scope)


def overlap_tables(tables: Tables) -> list[Table]:
    """How much of the held-out text, and of the other domains' training text, is in each domain's training text."""
    found = tables["data_overlaps"]
    trained = found[found["in_split"] == "train"]
    names = domain_names(tables)
    held_out = [(domain, split) for domain in names for split in SPLITS[1:]]
    rows = [[plain_name(domain), split, *_overlap_cells(trained, domain, split, names)] for domain, split in held_out]
    labels = [f"in {plain_name(name)}" for name in names]
    note = "Part of the distinct runs of 13 words that are in the training text too, ± one standard error (%)."
    found_tables = [make_table("Held-out text in training text", ["domain", "split"], labels, rows, note)]
    if len(names) > 1:
        rows = [[plain_name(name), *_overlap_cells(trained, name, "train", names)] for name in names]
        found_tables.append(make_table("Training text in other training text", ["domain"], labels, rows, note))
    return found_tables


def _overlap_cells(found: pd.DataFrame, domain: str, split: str, names: Iterable[str]) -> list[str]:
    mine = found[(found["domain"] == domain) & (found["split"] == split)].set_index("in_domain")
    return [_format_overlap(mine.loc[name]) if name in mine.index else DASH for name in names]


def _format_overlap(row: pd.Series) -> str:
    if not row["compared"]:
        return "too few to tell"
    # nothing found among n is no zero: below 3/n with 95 % confidence
    if not row["share"]:
        return f"none of {format_count(row['compared'])}"
    error = f" ± {format_number(100 * row['standard_error'], 2)}" if row["standard_error"] else ""
    return f"{format_percent(row['share'], 2)}{error}"


def formatting_tables(tables: Tables) -> list[Table]:
    """What the documents of a domain have in common that is no language, before and after cleaning."""
    found = tables["data_formatting"]
    labels = {
        "leading_space": "begins with white space",
        "trailing_space": "ends with white space",
        "unseen": "holds an invisible or control character",
        "first": "begins with the character",
        "prefix": "begins with",
        "suffix": "ends with",
    }
    rows = []
    for (domain, measure), mine in found.groupby(["domain", "measure"], sort=False):
        wide = mine.pivot_table(index="value", columns="text", values="share", sort=False)
        wide = wide.reindex(columns=["raw", "clean"]).sort_values("clean", ascending=False, na_position="last")
        # of what is counted to the end, what is not there is none
        wide = wide.fillna(0.0) if measure in ("leading_space", "trailing_space", "unseen") else wide
        # a beginning that fewer than one document in a hundred has says nothing of the domain
        telling = wide[(wide.max(axis=1) >= 0.01) | (measure == "unseen")]
        for value, shares in telling.head(6).iterrows():
            shown = value if measure == "unseen" else repr(value) if value else ""
            row = [plain_name(domain), labels[measure], shown]
            rows.append([*row, *(format_percent(shares[text], 1) for text in ("raw", "clean"))])
    note = "Share of the documents, as the sources gave them and as they were kept. Of first characters, beginnings and"
    note += " ends the six commonest, from 1% on; a dash: not among the commonest."
    words = ["domain", "the document", "what"]
    return [make_table("Formatting", words, ["as read", "as kept"], rows, note)] if rows else []


def warning_sentences(tables: Tables) -> list[str]:
    """What to know first, in sentences."""
    return [
        f"{plain_name(row.domain)}: {row.warning}." if row.domain else f"{row.warning}."
        for row in tables["data_warnings"].itertuples()
    ]
