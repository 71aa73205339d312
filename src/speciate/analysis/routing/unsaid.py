"""A sentence for each thing that a record does not allow to be said, with what would settle it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from speciate.analysis.routing.grouping import DocumentGroups
from speciate.analysis.routing.single_tokens import within
from speciate.analysis.routing.single_tokens.sample import SampledTokens
from speciate.selection.routing_record import Note, RoutingRecord

FEW_SHADOWS = 3
MOST_NAMES = 8


@dataclass(frozen=True, eq=False)
class Seen:
    """What one phase of a record offered."""

    record: RoutingRecord
    groups: DocumentGroups
    tokens: SampledTokens | None
    layers: list[dict[str, Any]]


def unsaid_notes(parts: Sequence[Seen], layers: pd.DataFrame) -> tuple[Note, ...]:
    """Return the notes on a record, the same ones once."""
    found: list[Note] = []
    for part in parts:
        found += [*_of_documents(part), *_of_labels(part), *_of_tokens(part), *_of_controls(part), *_of_selectors(part)]
    found += _of_text(layers)
    found.append(
        Note(
            "need",
            "Whether the model needs what its experts do: choices that tell labels apart may matter little for the"
            " loss. Masking experts and rerouting their tokens shows it (--knock-out, where the model is at hand).",
        )
    )
    return tuple(dict.fromkeys(found))


def _of_documents(part: Seen) -> list[Note]:
    notes = []
    if not part.record.has_documents:
        if part.groups.num_groups > 1 and not part.groups.is_sums:
            text = (
                "How far chance in the choice of texts goes: the record does not tell documents apart. Its"
                f" {part.groups.num_groups} windows were taken for units. If they cut documents, intervals are too"
                " narrow and q-values too small. A record with the document of each token settles it."
            )
        else:
            text = (
                "How far chance goes: the record has no documents, so that no interval, p-value or q-value exists;"
                " limits were compared with the values as they are, and tokens counted as independent where the share"
                " of a rare expert is bounded. A record with each token's document settles it."
            )
        notes.append(Note("no_documents", text))
    elif part.groups.num_groups < 2:
        notes.append(
            Note(
                "one_document",
                "Whether other texts would give the same: there is a single document (or group of near copies), and"
                " no spread over documents. Some twenty documents give useful intervals.",
            )
        )
    if part.record.documents["phase"].eq("").all():
        notes.append(
            Note(
                "no_phase",
                "Whether prompts and generated text are routed differently: the record does not tell them apart.",
            )
        )
    return notes


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _of_labels(part: Seen) -> list[Note]:
    labels = part.groups.labels
    if len(labels) < 2:
        have = f"has the single label {labels[0]}" if labels else "has no labels"
        text = f"Whether any expert prefers a kind of text: the record {have}. Texts of two labels or more settle it."
        return [Note("no_labels", text)]
    notes = []
    unlabelled = int((part.groups.label_G < 0).sum())
    if unlabelled:
        notes.append(
            Note("unlabelled", f"What {unlabelled} documents without a label tell: they count for the load alone.")
        )
    tested = {name for row in part.layers for name in row["tested_labels"]}
    left_out = [name for name in labels if name not in tested]
    if left_out and len(left_out) < len(labels):
        notes.append(
            Note(
                "labels_untested",
                f"Whether the choices for {_names(left_out)} differ by more than chance: too few documents have the"
                " label, so it was left out of the tests. At least four documents of a label settle it.",
            )
        )
    elif left_out:
        notes.append(
            Note(
                "labels_untested",
                "Whether choices depend on the label by more than chance: fewer than two labels have two documents"
                " (or windows) each. Ten documents of each label settle it.",
            )
        )
    return notes


def _of_tokens(part: Seen) -> list[Note]:
    if part.tokens is None:
        return [
            Note(
                "no_tokens",
                "What depends on single tokens: the record has sums only. Which tokens choose which expert, what the"
                " token explains of the labels, which experts are chosen together, and whether position, type or"
                " document matter need a record of each token's choices.",
            )
        ]
    notes = []
    if not part.tokens.sample.has_tokens:
        notes.append(
            Note(
                "no_token_ids",
                "What the identity of the tokens explains: the record has no token ids. Record them, or give the"
                " texts (--texts) and the tokenizer.",
            )
        )
    elif part.tokens.type_V.max(initial=-1) < 0:
        notes.append(
            Note("no_pieces", "Which types of token choose which expert: the text of the token ids is not known.")
        )
    elif len(part.groups.labels) > 1 and all(math.isnan(row["beyond_token_p"]) for row in part.layers):
        notes.append(
            Note(
                "no_shared_tokens",
                "Whether choices tell the label beyond the token: no token occurs often enough with every label."
                " More text of each label settles it.",
            )
        )
    if not part.record.has_documents:
        notes.append(
            Note("no_positions", "Whether position or document matter: the record does not tell documents apart.")
        )
    elif all(math.isnan(row["position_p"]) for row in part.layers):
        notes.append(
            Note(
                "few_documents",
                f"Whether position, type of token or pairs of experts differ from chance: that takes"
                f" {within.FEWEST_UNITS} documents of some length at least.",
            )
        )
    if part.tokens.is_cut:
        notes.append(
            Note(
                "sampled",
                f"What depends on single tokens was judged from {part.tokens.num_tokens:,} sampled tokens of whole"
                " documents; sums over documents have all.",
            )
        )
    return notes


def _of_controls(part: Seen) -> list[Note]:
    if len(part.groups.labels) < 2:
        return []
    number = len(part.record.shadows)
    if not number:
        text = (
            "Whether training has put there what the choices tell: the record has no untrained routers on the same"
            " hidden states. Reading the model itself records them."
        )
        return [Note("no_shadows", text)]
    if number < FEW_SHADOWS:
        text = (
            f"How far untrained routers differ among themselves: {number} were recorded, and a comparison takes"
            f" {FEW_SHADOWS} or more."
        )
        return [Note("few_shadows", text)]
    return []


def _of_selectors(part: Seen) -> list[Note]:
    notes, selectors = [], part.record.selectors
    if not all(selector.has_probs for selector in selectors):
        notes.append(
            Note(
                "no_probabilities",
                "How sure the router is of its choices (commitment, drift): the record has the choices alone.",
            )
        )
    if any(selector.num_chosen > 1 and selector.first_GS is None for selector in selectors):
        notes.append(
            Note("no_order", "Which choice comes first: the order of the k chosen experts is not known in this record.")
        )
    if all(selector.num_chosen <= 1 for selector in selectors):
        notes.append(Note("one_choice", "Which experts are chosen together: each token chooses one expert."))
    return notes


def _of_text(layers: pd.DataFrame) -> list[Note]:
    notes = []
    undecided = layers[layers["documents_needed"].notna()]
    if len(undecided):
        most, least = undecided["documents_needed"].max(), undecided["documents_needed"].min()
        many = f"{int(least):,}" if most == least else f"{int(least):,} to {int(most):,}"
        notes.append(
            Note(
                "more_text",
                f"The state of {len(undecided)} of {len(layers)} layers: about {many} documents would settle it"
                " (column documents_needed).",
            )
        )
    if layers["max_share_low"].notna().any():
        documents = int(layers["documents"].max())
        notes.append(
            Note(
                "halve",
                f"Anything finer than the intervals: half as wide takes four times as many documents"
                f" ({4 * documents:,}, not {documents:,}).",
            )
        )
    return notes
