"""What the data page says in words: documents to read, marks of formatting, and how the data were made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from speciate.config.components import ComponentOptions
from speciate.config.stage_specs import CardSpec
from speciate.reporting.findings import Tables
from speciate.reporting.formats import pluralise, format_percent, plain_name, format_count
from speciate.reporting.data_tables import SPLITS, domain_names


@dataclass(frozen=True)
class SampleText:
    """A document to read."""

    head: str
    """Its name, its length, and what was measured in it."""
    excerpt: str
    of_head: str = ""
    of_excerpt: str = ""
    """Of a duplicate: the one that was kept."""


@dataclass(frozen=True)
class SampleGroup:
    """Documents to read that belong together."""

    title: str
    texts: Sequence[SampleText]


def describe_marks(tables: Tables) -> list[tuple[str, str]]:
    """(domain, sentence): the commonest beginning of the kept documents, and how many hold an invisible character."""
    found = tables["data_formatting"]
    kept = found[found["text"] == "clean"]
    told = []
    for domain in domain_names(tables):
        mine = kept[kept["domain"] == domain].sort_values("share", ascending=False, kind="stable")
        begins, unseen = (mine[mine["measure"] == measure] for measure in ("prefix", "unseen"))
        text = "no two documents begin alike"
        if len(begins):
            text = f"at most {format_percent(begins.iloc[0]['share'])} of the documents begin alike"
            text += f" ({begins.iloc[0]['value']!r})"
        if len(unseen):
            text += (
                f"; {format_percent(unseen.iloc[0]['share'])} hold an invisible character ({unseen.iloc[0]['value']})"
            )
        else:
            text += "; none holds an invisible character"
        told.append((domain, f"{text}."))
    return told


def sample_groups(tables: Tables, what: str) -> list[SampleGroup]:
    """The documents to read: kept by domain and split, dropped by domain and reason, duplicates by domain."""
    found = tables["data_samples"]
    mine = found[found["what"] == what]
    by = {"kept": ["domain", "split"], "dropped": ["domain", "reason"], "duplicate": ["domain", "reason"]}[what]
    counts = tables["data_drops"].set_index(["domain", "reason"])["documents"]
    groups = []
    for key, rows in mine.groupby(by, sort=False):
        title = ": ".join(plain_name(word) for word in key)
        title += f", {len(rows)} of {format_count(counts[key])}" if what == "dropped" and key in counts else ""
        groups.append(SampleGroup(title, [_make_text(row) for _, row in rows.iterrows()]))
    return groups


def _make_text(row: pd.Series) -> SampleText:
    length = pluralise(int(row["characters"]), "character")
    head = ", ".join(dict.fromkeys(filter(None, (row["id"], length, row["note"]))))
    of_head = f"kept: {row['of_id']}" if row["of_id"] else ""
    return SampleText(f"dropped: {head}" if of_head else head, row["excerpt"], of_head, row["of_excerpt"])


def describe_settings(spec: CardSpec) -> list[tuple[str, str]]:
    """How the data were made, as (what, how), from the study file."""
    shares = ", ".join(f"{name} {getattr(spec.split, name):.0%}" for name in SPLITS[1:])
    facts = [(f"filters of {plain_name(domain.name)}", _describe_components(domain.filters)) for domain in spec.domains]
    looked = {"keep": "kept", "exact": "equal texts dropped", "near": "equal and similar texts dropped"}
    compared = "across all domains" if spec.across_domains else "within each domain"
    found = ", ".join(f"{plain_name(domain.name)} {looked[domain.duplicates]}" for domain in spec.domains)
    facts += [("duplicates", f"{compared}: {found}")]
    for name, unit in (("max_bytes", "bytes"), ("max_tokens", "training tokens")):
        limits = [(domain.name, getattr(domain, name)) for domain in spec.domains if getattr(domain, name)]
        told = ", ".join(f"{plain_name(domain)} {format_count(limit)} {unit}" for domain, limit in limits)
        facts += [("at most", told)] if told else []
    facts += [("held out", f"{shares} of the text, by a hash of each group, seed {spec.split.seed}")]
    kinds = (("tokenizer", spec.tokenizer), ("packing", spec.packing), ("mixture", spec.mixture))
    facts += [(name, _describe_components([options])) for name, options in kinds]
    return [*facts, ("block", f"{spec.block_length} tokens")]


def _describe_components(kinds: Iterable[ComponentOptions]) -> str:
    """Components with their options: 'length (min_characters 200), gopher_quality'."""
    told = []
    for options in kinds:
        values = options.model_dump(mode="json")
        kind = values.pop("kind")
        shown = ", ".join(f"{key} {_format_value(value)}" for key, value in values.items() if value is not None)
        told.append(f"{kind} ({shown})" if shown else kind)
    return ", ".join(told) or "none"


def _format_value(value: object) -> str:
    """A setting as a reader sees it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.items() if each is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
