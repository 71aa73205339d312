"""How much a slot tells of the domain, in bits, and how much of that the token alone already tells.

Every domain weighs the same, however many tokens it has. All are plug-in estimates, biased upwards by about
(E - 1)(D - 1) / (2 n ln 2) with n nearer the number of documents than of tokens; `nulls` measures that bias by
permutation and the tables have it removed where they say so.

Shape suffixes: N decisions, V token ids, G groups, D domains, S slots.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from speciate.analysis.draws import Integers
from speciate.selection.tally import Array

LN2 = float(np.log(2))
# Less than this is rounding, and is no information.
ROUNDING_BITS = 1e-12


def entropy_bits(probability: Array, axes: int = 1) -> Array:
    """H = -sum p log2 p over the last `axes` axes."""
    result: Array = entr(probability).sum(axis=tuple(range(-axes, 0))) / LN2
    return result


def by_domain(counts_DS: Array) -> tuple[Array, Array]:
    """f_{e|d} and the domains' equal weights (..., D); a domain without a count has weight 0 and is left out."""
    total_D = counts_DS.sum(axis=-1)
    weight_D = (total_D > 0) / np.maximum((total_D > 0).sum(axis=-1, keepdims=True), 1)
    return counts_DS / np.where(total_D > 0, total_D, 1)[..., None], weight_D


def domain_information(counts_DS: Array) -> Array:
    """I(E;D) = H(mean_d f_{.|d}) - mean_d H(f_{.|d}) in bits: the Jensen-Shannon divergence of the domains (Lin 1991).

    0 when every domain uses the slots alike, log2 D when no two domains share one.

    Args:
        counts_DS: choices by domain and slot, (..., D, S).
    """
    share_DS, weight_D = by_domain(counts_DS)
    mean_S = (share_DS * weight_D[..., None]).sum(axis=-2)
    bits = entropy_bits(mean_S) - (weight_D * entropy_bits(share_DS)).sum(axis=-1)
    return np.where(bits > ROUNDING_BITS, bits, 0.0)


def conditional_information(counts_DVS: Array) -> Array:
    """I(E;D|V) = sum_v p(v) sum_d p(d|v) KL(p(e|v,d) || p(e|v)) in bits: the domain's trace beyond the token's own.

    Under p(d) = 1/D, p(v,e|d) = n_dve / n_d; equal to H(V,E) + H(D,V) - H(V) - H(D,V,E).

    Args:
        counts_DVS: choices by domain, token and slot, (..., D, V, S), of the tokens `shared_tokens` keeps.
    """
    total_D = counts_DVS.sum(axis=(-2, -1))
    weight_D = (total_D > 0) / np.maximum((total_D > 0).sum(axis=-1, keepdims=True), 1)
    joint_DVS = counts_DVS * (weight_D / np.where(total_D > 0, total_D, 1))[..., None, None]
    joint_VS, joint_DV = joint_DVS.sum(axis=-3), joint_DVS.sum(axis=-1)
    bits = (
        entropy_bits(joint_VS, 2)
        + entropy_bits(joint_DV, 2)
        - entropy_bits(joint_DV.sum(axis=-2))
        - entropy_bits(joint_DVS, 3)
    )
    return np.where(bits > ROUNDING_BITS, bits, 0.0)


def shared_tokens(token_N: Integers, domain_N: Integers, num_domains: int, min_occurrences: int) -> Integers:
    """The token ids that occur at least `min_occurrences` times in every domain, sorted.

    A token of one domain alone tells that domain already: it has nothing left for the slot to tell (its term is 0), and
    a rare one has nothing to estimate it from.
    """
    count_DV = np.zeros((num_domains, int(token_N.max(initial=-1)) + 1), dtype=np.int64)
    np.add.at(count_DV, (domain_N, token_N), 1)
    return np.nonzero((count_DV >= min_occurrences).all(axis=0))[0]


def token_counts(token_N: Integers, group_N: Integers, chosen_NS: Array, tokens_V: Integers, num_groups: int) -> Array:
    """Choices by group, token and slot, (G, V, S), of the sorted token ids `tokens_V` only."""
    counts_GVS = np.zeros((num_groups, len(tokens_V), chosen_NS.shape[1]))
    if len(tokens_V):
        column_N = np.minimum(np.searchsorted(tokens_V, token_N), len(tokens_V) - 1)
        kept_N = tokens_V[column_N] == token_N
        np.add.at(counts_GVS, (group_N[kept_N], column_N[kept_N]), chosen_NS[kept_N])
    return counts_GVS


def token_explained(token_N: Integers, group_N: Integers, chosen_NS: Array, second_G: npt.NDArray[np.bool_]) -> Array:
    """The choices that a router knowing only the token's identity would make, by group and slot, (G, S).

    p(e|v) is fitted on one half of the groups and spent on the tokens of the other, both ways, so that no document
    explains itself. A token the fitted half lacks gets that half's overall shares. `domain_information` of the result,
    summed by domain, is the token-explained share I0 of I(E;D): f0_{e|d} = sum_v p(v|d) p(e|v).

    Args:
        token_N: token ids.
        group_N: the group of each.
        chosen_NS: choices, 1/k on each of k chosen slots.
        second_G: which half each group is in, as `draws.halves` makes it.
    """
    num_tokens, num_slots = int(token_N.max(initial=-1)) + 1, chosen_NS.shape[1]
    expected_GS = np.zeros((len(second_G), num_slots))
    for fitted_on_second in (False, True):
        fit_N = second_G[group_N] == fitted_on_second
        table_VS = np.zeros((num_tokens, num_slots))
        np.add.at(table_VS, token_N[fit_N], chosen_NS[fit_N])
        overall_S = table_VS.sum(axis=0) / max(table_VS.sum(), 1)
        count_V = table_VS.sum(axis=1, keepdims=True)
        share_VS = np.where(count_V > 0, table_VS / np.where(count_V > 0, count_V, 1), overall_S)
        np.add.at(expected_GS, group_N[~fit_N], share_VS[token_N[~fit_N]])
    return expected_GS


def oracle_bits(num_domains: int, num_slots: int, num_chosen: float) -> float:
    """I(E;D) of a selector that knows the domain: min(log2 D, log2(E/k)), since k chosen slots share a decision.

    A bound where E/k is no whole number of domains, the exact best where it is at least D.
    """
    return float(min(np.log2(num_domains), np.log2(num_slots / num_chosen)))


def oracle_normalised(information: float, unlearned: float, oracle: float) -> float:
    """S = (I - I_random) / (I_oracle - I_random): 0 as much as an unlearned selector, 1 all there is to know."""
    return (information - unlearned) / (oracle - unlearned) if oracle > unlearned else float("nan")
