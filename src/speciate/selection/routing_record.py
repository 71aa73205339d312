"""The RoutingRecord: what the selectors of one model chose on some texts, whoever recorded it.

A recorder's hooks, a reader of another program's trace and a finished run of a study all yield this. It holds exact
sums over all tokens, by document, and a sample of whole documents in full, for what needs single tokens.

Shape suffixes: N decisions, S slots, G documents, L selectors, P sampled tokens, K chosen slots.
Importing this file does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.selection.tally import Array, Tally

Integers = npt.NDArray[np.int64]

NOT_CHOSEN = -1
"""Stands in `TokenSample.choice_LPK` where a token chose fewer than K slots, or made no decision in this layer."""
DOCUMENT_COLUMNS = ("document", "label", "group", "phase", "num_tokens")


@dataclass(frozen=True)
class Note:
    """Something that a reader of the record must know, found while reading it."""

    kind: str
    """A word for programs: `order_lost`, `physical_ids`, `duplicated_ranks`, ..."""
    text: str
    """One or two sentences for people: what was found, in which file or layer, and what follows from it."""


@dataclass(frozen=True, eq=False)
class SelectorRecord:
    """The choices of one selector (a layer's router), as sums over documents."""

    path: str
    """Module path, or `layer 3` where the record names no modules."""
    layer: int
    """The layer's number as the source counts it; -1 where it has none."""
    num_chosen: float
    """k, the number of slots that a decision chooses (its mean, where that varies)."""
    tally: Tally
    """Sums by document. Each decision spreads a total of 1 over its k slots in `chosen_GS`.

    `probs_GS`, `divergence_G` and `entropy_G` are NaN where the record has no probabilities.
    """
    first_GS: Array | None = None
    """Number of first choices, where the order of the k is known and k > 1."""

    @property
    def num_slots(self) -> int:
        return int(self.tally.chosen_GS.shape[1])

    @property
    def has_probs(self) -> bool:
        """Tell whether the record has the probabilities of each decision, and not its choices alone."""
        return bool(np.isfinite(self.tally.entropy_G).all())

    def of_documents(self, kept_G: npt.NDArray[np.bool_]) -> SelectorRecord:
        """Return the record of some of the documents alone."""
        parts = (getattr(self.tally, part.name)[kept_G] for part in fields(Tally))
        first_GS = None if self.first_GS is None else self.first_GS[kept_G]
        return replace(self, tally=Tally(*parts), first_GS=first_GS)


@dataclass(frozen=True, eq=False)
class TokenSample:
    """Whole documents, chosen by a hash of their names, with each token's choices in every layer."""

    document_P: Integers
    """Row of each token's document; tokens of one document are consecutive, in the order of their positions."""
    position_P: Integers
    """Position of each token within its document, from 0."""
    token_P: Integers
    """Token id; -1 where the record has none."""
    choice_LPK: npt.NDArray[np.int16]
    """Chosen slots, the first choice first where the order is known; `NOT_CHOSEN` fills the rest."""
    weight_LPK: npt.NDArray[np.float32] | None = None
    """Weights of the chosen slots as the model applies them; NaN beside `NOT_CHOSEN`."""
    margin_LP: npt.NDArray[np.float32] | None = None
    """Logit of the last chosen slot minus that of the best one not chosen; NaN where unknown."""
    pieces: Mapping[int, str] = field(default_factory=dict)
    """Token id -> its text, for those ids that occur and whose text is known."""

    @property
    def has_tokens(self) -> bool:
        return bool((self.token_P >= 0).any())

    def of_documents(self, kept_G: npt.NDArray[np.bool_]) -> TokenSample:
        """Return the tokens of some of the documents, whose rows are numbered anew."""
        kept_P = kept_G[self.document_P]
        row_G = np.cumsum(kept_G) - 1
        return replace(
            self,
            document_P=row_G[self.document_P[kept_P]],
            position_P=self.position_P[kept_P],
            token_P=self.token_P[kept_P],
            choice_LPK=self.choice_LPK[:, kept_P],
            weight_LPK=None if self.weight_LPK is None else self.weight_LPK[:, kept_P],
            margin_LP=None if self.margin_LP is None else self.margin_LP[:, kept_P],
        )


@dataclass(frozen=True, eq=False)
class RoutingRecord:
    """What all selectors of one model chose on the same texts."""

    source: str
    """What was read, as the page names it: a model, a run, a file."""
    documents: pd.DataFrame
    """A row for each document G: document, label (empty if none), group, phase, num_tokens.

    Documents of one `group` (a template, an article) are near copies and count as one unit. `phase` is `prompt`,
    `generation` or empty. A text that was prompt and generation has a row for each.
    """
    selectors: tuple[SelectorRecord, ...]
    """In the order of their layers."""
    sample: TokenSample | None = None
    shadows: Mapping[str, tuple[SelectorRecord, ...]] = field(default_factory=dict)
    """Name of a control -> its records, as `selectors`: routers that never learned, on the same hidden states."""
    has_documents: bool = True
    """Whether rows are documents as the source tells them apart; otherwise they are windows, shards or the whole."""
    notes: tuple[Note, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels that occur, in order of first appearance, without the empty one."""
        return tuple(label for label in dict.fromkeys(self.documents["label"]) if label)

    @property
    def phases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.documents["phase"]))

    def of_documents(self, kept_G: npt.NDArray[np.bool_]) -> RoutingRecord:
        """Return the record of some of the documents alone."""
        return replace(
            self,
            documents=self.documents[kept_G].reset_index(drop=True),
            selectors=tuple(selector.of_documents(kept_G) for selector in self.selectors),
            sample=None if self.sample is None else self.sample.of_documents(kept_G),
            shadows={
                name: tuple(selector.of_documents(kept_G) for selector in selectors)
                for name, selectors in self.shadows.items()
            },
        )

    def of_phase(self, phase: str) -> RoutingRecord:
        """Return the record of one phase alone."""
        return self.of_documents((self.documents["phase"] == phase).to_numpy())
