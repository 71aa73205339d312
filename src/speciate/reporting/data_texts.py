"""Texts of the data page: sample documents, formatting that gives a domain away, and how the data were made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from speciate.config.components import ComponentOptions
from speciate.config.stage import SPLITS
from speciate.config.stage_specs import CardSpec
from speciate.reporting.data_tables import domain_names
from speciate.reporting.finding import Tables
from speciate.reporting.formats import format_count, format_percent, plain_name, pluralise


@dataclass(frozen=True)
class SampleText:
    """A document to read."""

    head: str
    """Its name, its length, and what was measured in it."""
    excerpt: str
    of_head: str = ""
    of_excerpt: str = ""
    """For a duplicate: the document that was kept."""


@dataclass(frozen=True)
class SampleGroup:
    """Documents to read under one heading."""

    title: str
    texts: Sequence[SampleText]


def describe_marks(tables: Tables) -> list[tuple[str, str]]:
    """Return (domain, sentence): the commonest beginning of its documents, and how many hold an invisible character."""
    formatting = tables["data_formatting"]
    kept = formatting[formatting["text"] == "clean"]
    sentences = []
    for domain in domain_names(tables):
        rows = kept[kept["domain"] == domain].sort_values("share", ascending=False, kind="stable")
        begins, unseen = (rows[rows["measure"] == measure] for measure in ("prefix", "unseen"))
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
        sentences.append((domain, f"{text}."))
    return sentences


def sample_groups(tables: Tables, what: str) -> list[SampleGroup]:
    """Return sample documents: kept by domain and split, dropped and duplicates by domain and reason."""
    samples = tables["data_samples"]
    samples = samples[samples["what"] == what]
    by = {"kept": ["domain", "split"], "dropped": ["domain", "reason"], "duplicate": ["domain", "reason"]}[what]
    counts = tables["data_drops"].set_index(["domain", "reason"])["documents"]
    groups = []
    for key, rows in samples.groupby(by, sort=False):
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
    """Return how the data were made, as (setting, value), from the study file."""
    shares = ", ".join(f"{name} {getattr(spec.split, name):.0%}" for name in SPLITS[1:])
    facts = [(f"filters of {plain_name(domain.name)}", _describe_components(domain.filters)) for domain in spec.domains]
    treatments = {"keep": "kept", "exact": "equal texts dropped", "near": "equal and similar texts dropped"}
    compared = "across all domains" if spec.across_domains else "within each domain"
    treated = ", ".join(f"{plain_name(domain.name)} {treatments[domain.duplicates]}" for domain in spec.domains)
    facts += [("duplicates", f"{compared}: {treated}")]
    for name, unit in (("max_bytes", "bytes"), ("max_tokens", "training tokens")):
        limits = [(domain.name, getattr(domain, name)) for domain in spec.domains if getattr(domain, name)]
        limited = ", ".join(f"{plain_name(domain)} {format_count(limit)} {unit}" for domain, limit in limits)
        facts += [("at most", limited)] if limited else []
    own = [f"{domain.probe_share:.0%} of {plain_name(domain.name)}" for domain in spec.domains if domain.probe_share]
    other = f"; probe {', '.join(own)}" if own else ""
    facts += [("held out", f"{shares} of the text, by a hash of each group, seed {spec.split.seed}{other}")]
    kinds = (("tokenizer", spec.tokenizer), ("packing", spec.packing), ("mixture", spec.mixture))
    facts += [(name, _describe_components([options])) for name, options in kinds]
    return [*facts, ("block", f"{spec.block_length} tokens")]


def _describe_components(kinds: Iterable[ComponentOptions]) -> str:
    """Return components with their options: 'length (min_characters 200), gopher_quality'."""
    described = []
    for options in kinds:
        values = options.model_dump(mode="json")
        kind = values.pop("kind")
        shown = ", ".join(f"{key} {_format_value(value)}" for key, value in values.items() if value is not None)
        described.append(f"{kind} ({shown})" if shown else kind)
    return ", ".join(described) or "none"


def _format_value(value: object) -> str:
    """Format the value of an option."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_format_value(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_format_value, value)) + "]"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
