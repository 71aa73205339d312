"""What the identity of the tokens explains of a selector's choices, and which tokens choose which expert.

Token-explained shares (`information.token_explained`): p(e|v) is fitted on one half of the groups and applied to the
tokens of the other, both ways. Beyond the token: I(expert; label | token) of the commonest tokens that every label has.

Shape suffixes: N tokens with a decision, G groups, U units, D labels, V tokens, S slots.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from speciate.analysis import draws
from speciate.analysis.draws import Integers
from speciate.analysis.routing.grouping import DocumentGroups, LabelDesign
from speciate.analysis.routing.labels import excess_bits
from speciate.analysis.routing.lifts import lift_matrix
from speciate.analysis.routing.single_tokens.sample import Choices, SampledTokens
from speciate.analysis.specialisation import nulls
from speciate.selection.tally import Array

MOST_CELLS = 1536
"""Tokens times slots in the test beyond the token; the commonest tokens are taken."""
FEWEST_TOKENS = 8
UNITS_OF_TEST = 80
"""Units, in all, of the test beyond the token."""
TOP_TOKENS = 10
"""Tokens listed for an expert."""
NAN = float("nan")
COLUMNS = ("token_explained_bits", "beyond_token_bits", "beyond_token_p", "shared_token_share")


@dataclass(eq=False)
class TokenTables:
    """Counts that depend on the texts alone, for all layers that route every token."""

    tokens: SampledTokens
    groups: DocumentGroups

    @cached_property
    def second_G(self) -> npt.NDArray[np.bool_]:
        return draws.assign_halves(self.groups.label_G, self.groups.settings.seed)

    @cached_property
    def count_DV(self) -> Array:
        """Return how often each token occurs with each label."""
        num_labels, num_tokens = len(self.groups.labels), len(self.tokens.ids_V)
        label_P, token_P = self.groups.label_G[self.tokens.group_P], self.tokens.token_P
        kept_P = (label_P >= 0) & (token_P >= 0)
        count = np.bincount(label_P[kept_P] * num_tokens + token_P[kept_P], minlength=num_labels * num_tokens)
        return count.reshape(num_labels, num_tokens).astype(np.float64)

    @cached_property
    def whole_GV(self) -> sparse.csr_array:
        return self._count_groups(np.arange(self.tokens.num_tokens))

    def count_GV(self, choices: Choices) -> sparse.csr_array:
        """Return how often each token that has a decision occurs in each group."""
        whole = len(choices.at_N) == self.tokens.num_tokens
        return self.whole_GV if whole else self._count_groups(choices.at_N)

    def _count_groups(self, at_N: Integers) -> sparse.csr_array:
        token_N, group_N = self.tokens.token_P[at_N], self.tokens.group_P[at_N]
        kept_N = token_N >= 0
        cells = (np.ones(int(kept_N.sum())), (group_N[kept_N], token_N[kept_N]))
        return sparse.csr_array(cells, shape=(self.groups.num_groups, len(self.tokens.ids_V)))


def expected_choices(tables: TokenTables, choices: Choices) -> Array:
    """Return the choices of a router that knows only the token, by group and slot, as `information.token_explained`."""
    token_N, num_tokens = tables.tokens.token_P[choices.at_N], len(tables.tokens.ids_V)
    second_N = tables.second_G[tables.tokens.group_P[choices.at_N]]
    count_GV = tables.count_GV(choices)
    expected_GS = np.zeros((tables.groups.num_groups, choices.num_slots))
    for fitted_on_second in (False, True):
        table_VS = choices.count(np.where(second_N == fitted_on_second, token_N, -1), num_tokens)
        overall_S = table_VS.sum(axis=0) / max(table_VS.sum(), 1)
        count_V = table_VS.sum(axis=1, keepdims=True)
        share_VS = np.where(count_V > 0, table_VS / np.where(count_V > 0, count_V, 1), overall_S)
        applied_G = tables.second_G != fitted_on_second
        expected_GS[applied_G] = count_GV[applied_G] @ share_VS
    return expected_GS


def token_columns(tables: TokenTables, choices: Choices, expected_GS: Array) -> dict[str, float]:
    """Return what the token explains of the information about the labels, and what there is beyond it."""
    columns = dict.fromkeys(COLUMNS, NAN)
    design = tables.groups.design(expected_GS.sum(axis=1))
    if not design.can_test:
        return columns
    columns["token_explained_bits"] = excess_bits(design.units.sum(expected_GS), design, tables.groups)
    small = tables.groups.design(expected_GS.sum(axis=1), UNITS_OF_TEST)
    counts_UVS, share = _shared_counts(tables, choices, small)
    if counts_UVS.shape[1]:
        null = nulls.conditional_null(counts_UVS, small.drawn)
        columns |= {
            "beyond_token_bits": float(null.excess[0]),
            "beyond_token_p": float(null.p_value[0]),
            "shared_token_share": share,
        }
    return columns


def token_lifts(groups: DocumentGroups, expected_GS: Array) -> Array:
    """Return the lifts that the identity of the tokens predicts, (D, S)."""
    return lift_matrix(groups.label_sums(expected_GS))[1]


def _shared_counts(tables: TokenTables, choices: Choices, design: LabelDesign) -> tuple[Array, float]:
    """Return choices by unit, shared token and slot, and the share of the tokens that these are."""
    least_V = tables.count_DV[design.tested].min(axis=0)
    most = max(FEWEST_TOKENS, MOST_CELLS // choices.num_slots)
    shared = np.argsort(-least_V, kind="stable")[:most]
    shared = np.sort(shared[least_V[shared] >= tables.groups.settings.min_occurrences])
    column_V = np.full(len(least_V) + 1, -1, dtype=np.int64)  # the last one is that of unknown ids
    column_V[shared] = np.arange(len(shared))
    unit_N = design.units.unit_G[tables.tokens.group_P[choices.at_N]]
    column_N = column_V[tables.tokens.token_P[choices.at_N]]
    cell_N = np.where((unit_N >= 0) & (column_N >= 0), unit_N * len(shared) + column_N, -1)
    num_units = len(design.units.domain_U)
    if not len(shared):
        return np.zeros((num_units, 0, choices.num_slots)), 0.0
    counts_UVS = choices.count(cell_N, num_units * len(shared)).reshape(num_units, len(shared), -1)
    # where a layer skips tokens, some label may lack one that it has in the text
    counts_DV = draws.sum_into(design.units.domain_U, len(design.tested), counts_UVS.sum(axis=2))
    counts_UVS = counts_UVS[:, (counts_DV > 0).all(axis=0)]
    return counts_UVS, float(counts_UVS.sum() / max(len(choices.at_N), 1))


def tokens_rows(tables: TokenTables, choices: Choices) -> pd.DataFrame:
    """Return rows of table `tokens`: for each expert, the tokens that tell most about its choice.

    They are ranked by count times the logarithm of the lift: what each adds to I(expert; token). Tokens that occur
    less than `min_occurrences` times, or in a single group, are left out.
    """
    tokens, num_slots = tables.tokens, choices.num_slots
    token_N = tokens.token_P[choices.at_N]
    num_tokens = len(tokens.ids_V)
    # how many tokens chose the expert, in all or not at all
    took_VS = _took(choices, token_N, num_tokens)
    number_V = np.bincount(token_N[token_N >= 0], minlength=num_tokens)
    in_groups_V = np.diff(tables.count_GV(choices).tocsc().indptr) if num_tokens else number_V
    total_S = took_VS.sum(axis=0) / max(int(number_V.sum()), 1)
    (kept_V,) = np.nonzero((number_V >= tables.groups.settings.min_occurrences) & (in_groups_V > 1))
    took_VS, number_V = took_VS[kept_V], number_V[kept_V]
    share_VS = took_VS / np.maximum(number_V, 1)[:, None]
    lift_VS = np.divide(share_VS, total_S, out=np.zeros_like(share_VS), where=total_S > 0)
    score_VS = took_VS * np.log(np.where(lift_VS > 1, lift_VS, 1.0))
    top = np.argsort(-score_VS, axis=0, kind="stable")[:TOP_TOKENS]
    slot = np.broadcast_to(np.arange(num_slots), top.shape)
    chosen = score_VS[top, slot] > 0
    slot, row = slot.T[chosen.T], top.T[chosen.T]
    return pd.DataFrame(
        {
            "expert": slot,
            "token": tokens.ids_V[kept_V[row]],
            "piece": np.array([tokens.pieces_V[place] for place in kept_V[row]], dtype=object),
            "count": took_VS[row, slot].astype(np.int64),
            "share": share_VS[row, slot],
            "lift": lift_VS[row, slot],
        }
    )


def _took(choices: Choices, token_N: Integers, num_tokens: int) -> Array:
    """Return how many occurrences of each token chose each slot, (V, S)."""
    kept_NK = (choices.choice_NK >= 0) & (token_N >= 0)[:, None]
    place_NK = token_N[:, None] * choices.num_slots + choices.choice_NK
    count = np.bincount(place_NK[kept_NK], minlength=num_tokens * choices.num_slots)
    return count.reshape(num_tokens, choices.num_slots).astype(np.float64)
