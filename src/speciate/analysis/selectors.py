"""One run's selectors as tables: load, specialisation by domain and token type, commitment.

There are two probes. 'telemetry' is the small prefix of the probe set, observed at each check during training; 'full'
is the finished model on the whole probe set. Whatever is costly or needs many documents (intervals, token-explained and
conditional information, placebo) is computed on the full probe only. Nothing here depends on the kind of selector.

Shape suffixes: P positions, G groups, D domains, K checks, S slots, V tokens, B draws, Y lexical types.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.analysis import draws, information, load, tables
from speciate.analysis.draws import Integers
from speciate.analysis.observation import TYPES, Groups, ObservedSelector, Settings, Texts, shares_against_null
from speciate.analysis.specialisation import nulls
from speciate.selection.tally import Array, Commitment, Tally

FULL_ONLY = (
    *("max_share_low", "max_share_high", "effective_experts_high", "token_explained_bits", "shared_token_share"),
    *("conditional_information_bits", "conditional_p_value"),
)
"""Columns that only rows of the full probe fill; they are NaN in rows of the telemetry probe."""


def selectors_table(observed: list[ObservedSelector], texts: Texts, settings: Settings) -> pd.DataFrame:
    """Return a row for each selector, check and probe, with the columns of table `selectors` that one run can fill."""
    parts = [
        rows
        for selector in observed
        for rows in (_check_rows(selector, texts, settings), _finished_rows(selector, texts, settings))
    ]
    return tables.stack(parts)


def _load_columns(selector: ObservedSelector, share_KS: Array, decisions_K: Array) -> dict[str, Array]:
    size = (selector.num_slots, selector.limit_chosen)
    return {
        "decisions": decisions_K,
        "noise_floor": load.noise_floor(selector.num_slots, decisions_K, selector.num_chosen),
        **{name: statistic(share_KS) for name, statistic in load.OF_SHARES.items()},
        "unevenness": load.unevenness(share_KS, selector.limit_chosen),
        "max_share_limit": np.full(len(share_KS), load.max_share_limit(*size)),
        "effective_experts_limit": np.full(len(share_KS), load.effective_slots_limit(*size)),
    }


def _commitment_columns(tallies: tuple[Tally, ...]) -> dict[str, Array]:
    # a selector behind a Mixture-of-Depths that ran no token had nothing to decide
    parts = [tally.commitment() if tally.decisions_G.sum() else Commitment(*[np.nan] * 3) for tally in tallies]
    return {
        "commitment_nats": np.array([part.committed for part in parts]),
        "drift_nats": np.array([part.drift for part in parts]),
        "information_nats": np.array([part.information for part in parts]),
    }


def _null_columns(null: nulls.Null) -> dict[str, Array]:
    return {
        "information_bits": null.observed,
        "null_mean_bits": null.mean,
        "null_low_bits": null.low,
        "null_high_bits": null.high,
        "information_z": null.z,
        "p_value": null.p_value,
    }


def _assemble_rows(
    selector: ObservedSelector, steps_K: Integers, probe: str, columns: dict[str, Array]
) -> pd.DataFrame:
    named = {"selector": selector.path, "layer": selector.layer, "step": steps_K, "probe": probe}
    return pd.DataFrame({**named, "num_slots": selector.num_slots, "num_chosen": selector.num_chosen, **columns})


def _check_rows(selector: ObservedSelector, texts: Texts, settings: Settings) -> pd.DataFrame:
    decisions_KG = np.stack([tally.decisions_G for tally in selector.early])
    units = draws.gather_units(decisions_KG.sum(axis=0), texts.groups.domain_G)
    drawn = draws.null_draws(units.domain_U, settings.permutations, settings.seed)
    null = nulls.domain_null(units.sum(selector.early_KGS, axis=1), drawn, settings.confidence)
    columns = {
        **_load_columns(selector, selector.share_KS, decisions_KG.sum(axis=1)),
        "revived_experts": load.num_revived(selector.share_KS, selector.steps_K, settings.armed_step).astype(
            np.float64
        ),
        **_null_columns(null),
        **_commitment_columns(selector.early),
        **{name: np.full(len(selector.steps_K), np.nan) for name in FULL_ONLY},
    }
    return _assemble_rows(selector, selector.steps_K, "telemetry", columns)


def _finished_rows(selector: ObservedSelector, texts: Texts, settings: Settings) -> pd.DataFrame:
    groups, chosen_GS = texts.groups, selector.final.chosen_GS
    null_GS = selector.final.null_GS
    share_1S = shares_against_null(chosen_GS.sum(axis=0, keepdims=True), null_GS.sum(axis=0, keepdims=True))
    units = draws.gather_units(selector.final.decisions_G, groups.domain_G)
    drawn = draws.null_draws(units.domain_U, settings.permutations, settings.seed)
    null = nulls.domain_null(units.sum(chosen_GS)[None], drawn, settings.confidence)
    low, high = max_share_interval(chosen_GS, null_GS, groups, settings)
    trajectory_KS = np.concatenate([selector.share_KS, share_1S])
    steps_K = np.append(selector.steps_K, settings.num_steps)
    columns = {
        **_load_columns(selector, share_1S, selector.final.decisions_G.sum(keepdims=True)),
        "max_share_low": np.array([low]),
        "max_share_high": np.array([high]),
        "effective_experts_high": np.array([effective_slots_high(chosen_GS, null_GS, groups, settings)]),
        "revived_experts": load.num_revived(trajectory_KS, steps_K, settings.armed_step)[-1:].astype(np.float64),
        **_null_columns(null),
        **_commitment_columns((selector.final,)),
        **_token_columns(selector, texts, units=units, drawn=drawn, settings=settings),
    }
    return _assemble_rows(selector, steps_K[-1:], "full", columns)


def _resampled_shares(chosen_GS: Array, null_GS: Array, groups: Groups, settings: Settings) -> Array:
    """Return the shares of the document bootstrap's draws, (B, S)."""
    times_BG = draws.resample_counts(groups.domain_G, settings.resamples, settings.seed)
    return shares_against_null(times_BG @ chosen_GS, times_BG @ null_GS)


def max_share_interval(chosen_GS: Array, null_GS: Array, groups: Groups, settings: Settings) -> tuple[float, float]:
    """Return document-bootstrap bounds of the largest share, without the bias of having picked the largest.

    The slots' lower bounds are at a/2E, the upper ones at a/2 (`load.largest_share_bounds`). The bootstrap of the
    maximum itself is biased upwards, twice.
    """
    share_BS = _resampled_shares(chosen_GS, null_GS, groups, settings)
    tail = (1 - settings.confidence) / 2
    return load.largest_share_bounds(share_BS, tail / share_BS.shape[1], tail)


def effective_slots_high(chosen_GS: Array, null_GS: Array, groups: Groups, settings: Settings) -> float:
    """Return the upper document-bootstrap bound of the number of effective slots, at most E.

    It is the basic bootstrap bound, 2 N - (the draws' quantile at a/2).
    """
    share_S = shares_against_null(chosen_GS.sum(axis=0), null_GS.sum(axis=0))
    share_BS = _resampled_shares(chosen_GS, null_GS, groups, settings)
    return load.effective_slots_upper(share_S, share_BS, (1 - settings.confidence) / 2)


def _decisions(selector: ObservedSelector, texts: Texts) -> tuple[npt.NDArray[np.bool_], Array]:
    """Return which positions have a decision and a document, and their choices, (N, S): 1/k on each chosen slot."""
    count_P = selector.choice_PS.sum(axis=1, dtype=np.int64)
    decided_P = (count_P > 0) & (texts.group_P >= 0)
    return decided_P, selector.choice_PS[decided_P] / count_P[decided_P, None]


def _token_columns(
    selector: ObservedSelector, texts: Texts, *, units: draws.Units, drawn: draws.NullDraws, settings: Settings
) -> dict[str, Array]:
    """Return what the token's identity explains of I(E;D), and what the domain adds, each minus its null's mean."""
    groups, num_domains = texts.groups, len(texts.groups.domains)
    decided_P, chosen_NS = _decisions(selector, texts)
    token_N, group_N = texts.token_P[decided_P], texts.group_P[decided_P]
    second_G = draws.assign_halves(groups.domain_G, settings.seed)
    expected_GS = information.token_explained(token_N, group_N, chosen_NS, second_G)
    explained = nulls.domain_null(units.sum(expected_GS)[None], drawn, settings.confidence)
    tokens_V = information.shared_tokens(token_N, groups.domain_G[group_N], num_domains, settings.min_occurrences)
    counts_GVS = information.token_counts(
        token_N, group_N, chosen_NS, tokens_V=tokens_V, num_groups=len(groups.domain_G)
    )
    columns = {
        "token_explained_bits": explained.excess,
        "shared_token_share": np.array([counts_GVS.sum() / max(len(token_N), 1)]),
        # without a token that occurs in every domain there is no such number
        "conditional_information_bits": np.array([np.nan]),
        "conditional_p_value": np.array([np.nan]),
    }
    if len(tokens_V):
        conditional = nulls.conditional_null(units.sum(counts_GVS), drawn)
        columns |= {"conditional_information_bits": conditional.excess, "conditional_p_value": conditional.p_value}
    return columns


def experts_table(observed: list[ObservedSelector], texts: Texts, settings: Settings) -> pd.DataFrame:
    """Return a row for each selector, check, probe, domain and slot: share and lift; 'all' is every domain together.

    lift = f_{e|d} / mean_d f_{e|d}. For the placebo the domains are shuffled once (draw 1 of the permutations, the same
    for every run), so it lies near 1. NaN for a slot that was never chosen.
    """
    parts: list[pd.DataFrame] = []
    for selector in observed:
        for step, share_S in zip(selector.steps_K.tolist(), selector.share_KS, strict=True):
            parts.append(_slot_rows(Check(selector, step, "telemetry"), "all", share_S, share_S))
        last = Check(selector, int(selector.steps_K[-1]), "telemetry")
        parts += _domain_rows(last, selector.early[-1].chosen_GS, texts.groups, None)
        final_GS, finished = selector.final.chosen_GS, Check(selector, settings.num_steps, "full")
        share_S = load.shares(final_GS.sum(axis=0))
        parts.append(_slot_rows(finished, "all", share_S, share_S))
        units = draws.gather_units(selector.final.decisions_G, texts.groups.domain_G)
        shuffled_U = draws.permuted_labels(units.domain_U, settings.permutations, settings.seed)[1]
        # back to groups; a group without a unit has no choices to count, under any label
        shuffled_G = np.where(units.unit_G >= 0, shuffled_U[units.unit_G], texts.groups.domain_G)
        parts += _domain_rows(finished, final_GS, texts.groups, shuffled_G)
    return tables.stack(parts)


@dataclass(frozen=True, eq=False)
class Check:
    """One look at a selector: at which step, and on which probe."""

    selector: ObservedSelector
    step: int
    probe: str


def _slot_rows(
    check: Check, domain: str, share_S: Array, mean_S: Array, *, placebo_S: Array | None = None
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "selector": check.selector.path,
            "layer": check.selector.layer,
            "step": check.step,
            "probe": check.probe,
            "domain": domain,
            "slot": np.arange(len(share_S)),
            "share": share_S,
            "lift": lift(share_S, mean_S),
            "placebo_lift": np.full(len(share_S), np.nan) if placebo_S is None else placebo_S,
        }
    )


def lift(share_S: Array, mean_S: Array) -> Array:
    """Return share / mean; NaN for a slot that was never chosen."""
    result: Array = np.divide(share_S, mean_S, out=np.full_like(share_S, np.nan), where=mean_S > 0)
    return result


def _domain_rows(check: Check, chosen_GS: Array, groups: Groups, shuffled_G: Integers | None) -> list[pd.DataFrame]:
    def share_DS(label_G: Integers) -> Array:
        share, _ = information.shares_by_domain(draws.sums_by_label(label_G[None], len(groups.domains), chosen_GS)[0])
        return share

    true_DS = share_DS(groups.domain_G)
    placebo_DS = None if shuffled_G is None else share_DS(shuffled_G)
    parts: list[pd.DataFrame] = []
    for index, domain in enumerate(groups.domains):
        placebo_S = None if placebo_DS is None else lift(placebo_DS[index], placebo_DS.mean(axis=0))
        parts.append(_slot_rows(check, domain, true_DS[index], true_DS.mean(axis=0), placebo_S=placebo_S))
    return parts


def types_table(observed: list[ObservedSelector], texts: Texts) -> pd.DataFrame:
    """Return a row for each selector, lexical type and slot: P(slot | type) and its lift.

    Only tokens of domains with a programming language count. lift = P(slot | type) / P(slot) over the same tokens; NaN
    where no token is of the type.
    """
    typed_D = np.isin(texts.groups.domains, texts.languages)
    parts: list[pd.DataFrame] = []
    for selector in observed if typed_D.any() else []:
        decided_P, chosen_NS = _decisions(selector, texts)
        typed_N = typed_D[texts.groups.domain_G[texts.group_P[decided_P]]]
        type_N, chosen_NS = texts.type_P[decided_P][typed_N], chosen_NS[typed_N]
        chosen_YS = np.zeros((len(TYPES), selector.num_slots))
        np.add.at(chosen_YS, type_N, chosen_NS)
        tokens_Y = np.bincount(type_N, minlength=len(TYPES))
        share_YS, overall_S = load.shares(chosen_YS), load.shares(chosen_YS.sum(axis=0))
        for index, name in enumerate(TYPES):
            key = {
                "selector": selector.path,
                "layer": selector.layer,
                "type": name,
                "slot": np.arange(selector.num_slots),
            }
            values = {"tokens": tokens_Y[index], "share": share_YS[index], "lift": lift(share_YS[index], overall_S)}
            parts.append(pd.DataFrame({**key, **values}))
    return tables.stack(parts)


def information_draws(observed: list[ObservedSelector], groups: Groups, settings: Settings) -> pd.DataFrame:
    """Return bootstrap draws of each selector's I(E;D) on the full probe, with bias: statistic, name, draw, value."""
    times_BG = draws.resample_counts(groups.domain_G, settings.resamples, settings.seed)
    parts: list[pd.DataFrame] = []
    for selector in observed:
        sums_BDS = draws.sums_by_resample(times_BG, groups.domain_G, len(groups.domains), selector.final.chosen_GS)
        value_B = information.domain_information(sums_BDS)
        parts.append(pd.DataFrame({"name": selector.path, "draw": np.arange(len(value_B)), "value": value_B}))
    rows = tables.stack(parts) if parts else pd.DataFrame(columns=["name", "draw", "value"])
    return rows.assign(statistic="information_bits")
