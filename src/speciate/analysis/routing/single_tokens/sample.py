"""The sampled tokens of a record, prepared for what needs single tokens.

Shape suffixes: P sampled tokens, K chosen slots, G groups, V different tokens.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from speciate.analysis import draws
from speciate.analysis.draws import Integers
from speciate.analysis.routing.grouping import DocumentGroups
from speciate.analysis.routing.single_tokens import token_types
from speciate.selection.routing_record import RoutingRecord, TokenSample
from speciate.selection.tally import Array


@dataclass(frozen=True, eq=False)
class Choices:
    """The choices of one layer for the sampled tokens that have some."""

    at_N: Integers
    """Which sampled tokens these are, as places in the sample."""
    choice_NK: npt.NDArray[np.int16]
    """Chosen slots; `NOT_CHOSEN` where a token chose fewer than K."""
    num_slots: int

    @cached_property
    def complete(self) -> bool:
        """Whether each token chose K slots."""
        return bool((self.choice_NK >= 0).all())

    @cached_property
    def number_N(self) -> Integers:
        """Return how many slots each token chose."""
        number_N: Integers = (self.choice_NK >= 0).sum(axis=1, dtype=np.int64)
        return number_N

    def count(self, value_N: Integers, num_values: int) -> Array:
        """Return choices by a value of each token (-1: left out) and slot, (num_values, S).

        Each decision spreads a total of 1 over its slots.
        """
        kept_N = value_N >= 0
        value, choice = (value_N, self.choice_NK) if kept_N.all() else (value_N[kept_N], self.choice_NK[kept_N])
        place_NK = value[:, None] * self.num_slots + choice
        size = num_values * self.num_slots
        if self.complete:
            count = np.bincount(place_NK.ravel(), minlength=size) / self.choice_NK.shape[1]
        else:
            chosen_NK = choice >= 0
            weight_NK = np.where(chosen_NK, 1 / np.maximum(chosen_NK.sum(axis=1, keepdims=True), 1), 0.0)
            count = np.bincount(place_NK[chosen_NK], weights=weight_NK[chosen_NK], minlength=size)
        result: Array = count.reshape(num_values, self.num_slots)
        return result


@dataclass(frozen=True, eq=False)
class SampledTokens:
    """Tokens of whole documents, with the group of each."""

    sample: TokenSample
    group_P: Integers
    num_groups: int
    is_cut: bool
    """Whether documents of the record's own sample were left out."""

    @property
    def num_tokens(self) -> int:
        return len(self.group_P)

    @cached_property
    def ids_V(self) -> Integers:
        """Return the different token ids, sorted."""
        return np.unique(self.sample.token_P[self.sample.token_P >= 0])

    @cached_property
    def token_P(self) -> Integers:
        """Return each token's place among `ids_V`; -1 for an unknown id."""
        place_P = np.searchsorted(self.ids_V, self.sample.token_P)
        return np.where(self.sample.token_P >= 0, place_P, -1).astype(np.int64)

    @cached_property
    def pieces_V(self) -> list[str]:
        """Return the text of each id; empty where unknown."""
        return [self.sample.pieces.get(int(token), "") for token in self.ids_V]

    @cached_property
    def type_V(self) -> Integers:
        """Return the type of each id, as an index into `token_types.NAMES`; -1 where its text is unknown."""
        return token_types.types_of(self.pieces_V)

    @cached_property
    def type_P(self) -> Integers:
        """Return the type of each token; -1 where unknown."""
        return np.append(self.type_V, -1)[self.token_P]

    @cached_property
    def second_half_P(self) -> npt.NDArray[np.bool_]:
        """Mark the second half of each document."""
        document_P = self.sample.document_P
        _, start, number, rank_P = _runs(document_P)
        place_P = np.arange(len(document_P)) - start[rank_P]
        return 2 * place_P >= number[rank_P]

    def choices(self, layer: int, num_slots: int) -> Choices:
        """Return the choices of the layer at this place in the record."""
        choice_PK = self.sample.choice_LPK[layer]
        used_K = (choice_PK >= 0).any(axis=0)
        choice_PK = choice_PK if used_K.all() else choice_PK[:, used_K]
        at_N = np.nonzero((choice_PK >= 0).any(axis=1))[0] if choice_PK.size else np.zeros(0, dtype=np.int64)
        return Choices(at_N, choice_PK if len(at_N) == len(choice_PK) else choice_PK[at_N], num_slots)


def _runs(document_P: Integers) -> tuple[Integers, Integers, Integers, Integers]:
    documents, start, rank_P, number = np.unique(document_P, return_index=True, return_inverse=True, return_counts=True)
    return documents, start.astype(np.int64), number.astype(np.int64), rank_P.reshape(-1).astype(np.int64)


def sampled_tokens(record: RoutingRecord, groups: DocumentGroups) -> SampledTokens | None:
    """Return the record's sampled tokens, of as many whole documents as the settings allow; None without any.

    Documents are taken in turn from each label, in an order that depends on the seed alone.
    """
    sample, settings = record.sample, groups.settings
    if sample is None or not len(sample.document_P):
        return None
    size_R = np.bincount(sample.document_P, minlength=len(record.documents))
    is_cut = int(size_R.sum()) > settings.most_tokens
    if is_cut:
        kept_R = _choose_documents(size_R, groups.label_G[groups.group_R], settings.most_tokens, settings.seed)
        kept_P = kept_R[sample.document_P]
        sample = TokenSample(
            document_P=sample.document_P[kept_P],
            position_P=sample.position_P[kept_P],
            token_P=sample.token_P[kept_P],
            choice_LPK=sample.choice_LPK[:, kept_P],
            weight_LPK=None,
            margin_LP=None,
            pieces=sample.pieces,
        )
    return SampledTokens(sample, groups.group_R[sample.document_P], groups.num_groups, is_cut)


def _choose_documents(size_R: Integers, label_R: Integers, most_tokens: int, seed: int) -> npt.NDArray[np.bool_]:
    order_R = draws.generator(seed, "sampled documents").permutation(len(size_R))
    order_R = order_R[size_R[order_R] > 0]
    turn_R = np.zeros(len(order_R), dtype=np.int64)
    for label in np.unique(label_R[order_R]):
        of_label = label_R[order_R] == label
        turn_R[of_label] = np.arange(int(of_label.sum()))
    order_R = order_R[np.argsort(turn_R, kind="stable")]
    fits_R = np.cumsum(size_R[order_R]) <= most_tokens
    fits_R[0] = True  # one document that is longer than all may be
    kept_R = np.zeros(len(size_R), dtype=np.bool_)
    kept_R[order_R[fits_R]] = True
    return kept_R
