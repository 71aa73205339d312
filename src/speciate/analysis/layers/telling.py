"""How well is a text's domain told from its selections, and do they add anything to its tokens?

Three naive Bayes classifiers with the same rule, argmax_d sum_n log P(. | d), over the tokens v and slots s of a text:

    tokens      P(v | d)                the text's unigrams
    selections  P(s | d)                its slots alone
    both        P(v | d) P(s | v, d)    the second factor is what a slot says beyond its token

Each P is a share of counts, smoothed by as many further counts as there are values, spread as in all domains together:
P(s | v, d) = (n_dvs + S P(s | v)) / (n_dv + S). A slot that follows from its token has the same factor in every
domain, so it adds exactly nothing (hash routers). Counts are those of all groups of documents but the text's own.

Shape suffixes: P positions, N decisions, M chosen slots of all decisions, D domains, G groups, T texts.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.analysis import draws, statistics, tables
from speciate.analysis.draws import Integers, sum_into
from speciate.analysis.observation import Groups, ObservedSelector, Settings, Texts
from speciate.selection.tally import Array

LENGTHS = (0, 16, 4)
"""Tokens of a text that is classified; 0: whole documents. Short ones keep the tokens from telling everything."""
CLASSIFIERS = ("token", "selection", "both")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Things whose group, and so whose domain, is known."""

    group_N: Integers
    domain_G: Integers

    @property
    def domain_N(self) -> Integers:
        result: Integers = self.domain_G[self.group_N]
        return result

    def counts(self, value_N: Integers) -> Array:
        """Return how often each thing's value occurs in each domain outside the thing's own group, (D, N)."""
        num_domains, num_values = int(self.domain_G.max(initial=-1)) + 1, int(value_N.max(initial=-1)) + 1
        count_DV = np.zeros((num_domains, num_values))
        np.add.at(count_DV, (self.domain_N, value_N), 1)
        _, inverse_N, number = np.unique(self.group_N * num_values + value_N, return_inverse=True, return_counts=True)
        result: Array = count_DV[:, value_N]
        result[self.domain_N, np.arange(len(value_N))] -= number[inverse_N]
        return result


def log_shares(joint_DN: Array, whole_DN: Array, num_values: int, prior_N: Array) -> Array:
    """Return log (joint + values * prior) / (whole + values), (D, N); 0 for all domains where the prior is 0."""
    known_N = prior_N > 0
    share_DN = (joint_DN + num_values * prior_N) / (whole_DN + num_values)
    return np.log(np.where(known_N, share_DN, 1.0))


def pooled(joint_DN: Array, whole_DN: Array, otherwise: Array | float) -> Array:
    """Return the share in all domains together, (N,), or `otherwise` where nothing was counted."""
    joint_N, whole_N = joint_DN.sum(0), whole_DN.sum(0)
    result: Array = np.where(whole_N > 0, joint_N / np.where(whole_N > 0, whole_N, 1), otherwise)
    return result


def log_likelihoods(
    token_N: Integers, group_N: Integers, chosen_NS: npt.NDArray[np.bool_], domain_G: Integers
) -> tuple[Array, Array, Array]:
    """Return log P(v | d), log P(s | d) and log P(s | v, d) of each decision, (D, N); sums over its slots.

    Args:
        token_N: token ids.
        group_N: group of documents of each decision.
        chosen_NS: whether a slot is chosen.
        domain_G: domain of each group.
    """
    _, token_N = np.unique(token_N, return_inverse=True)
    num_tokens, num_slots = int(token_N.max(initial=-1)) + 1, chosen_NS.shape[1]
    by_position = Labelled(group_N, domain_G)
    all_N = np.zeros_like(token_N)
    joint_DN, whole_DN = by_position.counts(token_N), by_position.counts(all_N)
    # a token of this group alone is new to all domains alike
    prior_N = (joint_DN.sum(0) + 1) / (whole_DN.sum(0) + num_tokens)
    token_DN = log_shares(joint_DN, whole_DN, num_tokens, prior_N)

    of_M, slot_M = np.nonzero(chosen_NS)
    by_choice = Labelled(group_N[of_M], domain_G)
    slot_DM, every_DM = by_choice.counts(slot_M), by_choice.counts(np.zeros_like(slot_M))
    slots_M = (slot_DM.sum(0) + 1) / (every_DM.sum(0) + num_slots)
    pair_DM, token_DM = by_choice.counts(token_N[of_M] * num_slots + slot_M), by_choice.counts(token_N[of_M])
    selection_DM = log_shares(slot_DM, every_DM, num_slots, slots_M)
    beyond_DM = log_shares(pair_DM, token_DM, num_slots, pooled(pair_DM, token_DM, slots_M))
    selection_DN, beyond_DN = (sum_into(of_M, len(token_N), part, axis=1) for part in (selection_DM, beyond_DM))
    return token_DN, selection_DN, beyond_DN


def pieces(document_N: Integers, length: int) -> Integers:
    """Return the text of each decision: its document, or its piece of `length` decisions; -1 for what is left over.

    Args:
        document_N: document of each decision, in the order of the text.
        length: decisions of a piece; 0: whole documents.
    """
    order_N = np.argsort(document_N, kind="stable")
    _, start, number = np.unique(document_N[order_N], return_index=True, return_counts=True)
    place_N = np.empty_like(order_N)
    place_N[order_N] = np.arange(len(order_N)) - np.repeat(start, number)
    _, rank_N = np.unique(document_N, return_inverse=True)
    if length == 0:
        return rank_N.astype(np.int64)
    piece_N = place_N // length
    key_N = np.where(piece_N < number[rank_N] // length, rank_N * (int(piece_N.max(initial=0)) + 1) + piece_N, -1)
    kept_N = key_N >= 0
    result = np.full(len(key_N), -1, dtype=np.int64)
    _, result[kept_N] = np.unique(key_N[kept_N], return_inverse=True)
    return result


def correct(score_DT: Array, domain_T: Integers) -> Array:
    """Return 1 where the text's own domain has the highest score, (T,); 1/n where it shares it with n - 1 others."""
    best_DT = score_DT == score_DT.max(axis=0)
    result: Array = best_DT[domain_T, np.arange(len(domain_T))] / best_DT.sum(axis=0)
    return result


def telling_table(observed: list[ObservedSelector], texts: Texts, settings: Settings) -> pd.DataFrame:
    """Return a row for each selector and length of texts: the accuracies, and what selections add to tokens."""
    rows: list[dict[str, object]] = []
    for selector in observed:
        decided_P = selector.choice_PS.any(axis=1) & (texts.group_P >= 0)
        group_N, chosen_NS = texts.group_P[decided_P], selector.choice_PS[decided_P] > 0
        scores = log_likelihoods(texts.token_P[decided_P], group_N, chosen_NS, texts.groups.domain_G)
        named = {"selector": selector.path, "layer": selector.layer}
        for length in LENGTHS:
            text_N = pieces(texts.document_P[decided_P], length)
            rows.append(
                {**named, "length": length, **accuracies(scores, text_N, group_N, texts.groups, settings=settings)}
            )
    names = [name for name in tables.COLUMNS["telling"] if name not in ("ablation", "seed")]
    return pd.DataFrame(rows, columns=names)


def accuracies(
    scores: tuple[Array, Array, Array], text_N: Integers, group_N: Integers, groups: Groups, *, settings: Settings
) -> dict[str, object]:
    """Return how many texts are told by each classifier, means over domains, and what selections add to tokens.

    Args:
        scores: the three log-likelihoods of each decision.
        text_N: text of each decision, -1 for none.
        group_N: group of documents of each decision.
        groups: the groups.
        settings: draws and confidence.
    """
    domain_G, kept_N = groups.domain_G, text_N >= 0
    num_texts = int(text_N.max(initial=-1)) + 1
    group_T = np.zeros(num_texts, dtype=np.int64)
    group_T[text_N[kept_N]] = group_N[kept_N]
    size_G = np.bincount(group_T, minlength=len(domain_G)).astype(np.float64)
    row: dict[str, object] = {
        "texts": num_texts,
        "groups": int((size_G > 0).sum()),
        **{f"{name}_accuracy": np.nan for name in CLASSIFIERS},
        **dict.fromkeys(("gain", "gain_low", "gain_high"), np.nan),
    }
    if min(np.bincount(domain_G[size_G > 0], minlength=len(groups.domains)), default=0) < 2:
        return row  # without a second group, a domain has no texts to be learned from
    token_DT, selection_DT, beyond_DT = (sum_into(text_N, num_texts, part, axis=1) for part in scores)
    summed = dict(zip(CLASSIFIERS, (token_DT, selection_DT, token_DT + beyond_DT), strict=True))
    right = {name: correct(score_DT, domain_G[group_T]) for name, score_DT in summed.items()}
    once_1G = np.ones((1, len(domain_G)))
    times_BG = draws.resample_counts(np.where(size_G > 0, domain_G, -1), settings.resamples, settings.seed)

    def accuracy(right_T: Array, times_BG: Array) -> Array:
        """Return the mean over domains of the share of texts that are told, by draw."""
        right_G = sum_into(group_T, len(domain_G), right_T)
        shares = [statistics.ratio_draws(right_G[d], size_G[d], times_BG[:, d]) for d in _members(domain_G)]
        result: Array = np.mean(shares, axis=0)
        return result

    row |= {f"{name}_accuracy": float(accuracy(right_T, once_1G)[0]) for name, right_T in right.items()}
    drawn_B = accuracy(right["both"] - right["token"], times_BG)
    low, high = statistics.document_interval(drawn_B, settings.confidence, statistics.effective_number(size_G))
    gain = float(accuracy(right["both"] - right["token"], once_1G)[0])
    return row | {"gain": gain, "gain_low": low, "gain_high": high}


def _members(domain_G: Integers) -> list[Integers]:
    """Return the groups of each domain."""
    return [np.nonzero(domain_G == domain)[0] for domain in np.unique(domain_G)]
