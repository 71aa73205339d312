"""One run's selectors as tables: load, specialisation by domain and token type, commitment.

Two probes: 'telemetry' is the small prefix of the probe set seen at each check while training; 'full' is the finished
model on the whole of it. What costs much or needs many documents (intervals, token-explained and conditional
information, placebo) is of the full probe only. Nothing here depends on what kind of selector it is.

Shape suffixes: P positions, G groups, D domains, K checks, S slots, V tokens, B draws, Y lexical types.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.analysis import draws, information, load, nulls
from speciate.analysis.draws import Integers
from speciate.analysis.observation import TYPES, Groups, Observed, Settings, Texts, against_null
from speciate.selection.tally import Array, Commitment, Tally


def selectors_table(observed: list[Observed], texts: Texts, settings: Settings) -> pd.DataFrame:
    """A row a selector, check and probe: the columns of table `selectors`, those that one run can tell."""
    parts = [rows for one in observed for rows in (_early(one, texts, settings), _final(one, texts, settings))]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _load_columns(share_KS: Array, decisions_K: Array, num_chosen: float) -> dict[str, Array]:
    return {
        "decisions": decisions_K,
        "noise_floor": load.noise_floor(share_KS.shape[1], decisions_K, num_chosen),
        **{name: statistic(share_KS) for name, statistic in load.OF_SHARES.items()},
    }


def _commitment_columns(tallies: tuple[Tally, ...]) -> dict[str, Array]:
    # behind a Mixture-of-Depths that ran no token there was nothing to decide
    split = [tally.commitment() if tally.decisions_G.sum() else Commitment(*[np.nan] * 3) for tally in tallies]
    return {
        "commitment_nats": np.array([one.committed for one in split]),
        "drift_nats": np.array([one.drift for one in split]),
        "information_nats": np.array([one.information for one in split]),
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


def _rows(one: Observed, steps_K: Integers, probe: str, columns: dict[str, Array]) -> pd.DataFrame:
    named = {"selector": one.path, "layer": one.layer, "step": steps_K, "probe": probe}
    return pd.DataFrame({**named, "num_slots": one.num_slots, "num_chosen": one.num_chosen, **columns})


def _early(one: Observed, texts: Texts, settings: Settings) -> pd.DataFrame:
    decisions_KG = np.stack([tally.decisions_G for tally in one.early])
    units = draws.units(decisions_KG.sum(axis=0), texts.groups.domain_G)
    labels = draws.permutations(units.domain_U, settings.permutations, settings.seed)
    counts_KUS = units.sum(one.early_KGS, axis=1)
    null = nulls.domain_null(counts_KUS, labels, len(texts.groups.domains), settings.confidence)
    columns = {
        **_load_columns(one.share_KS, decisions_KG.sum(axis=1), one.num_chosen),
        "revived_experts": load.revived(one.share_KS, one.steps_K, settings.armed_step).astype(np.float64),
        **_null_columns(null),
        **_commitment_columns(one.early),
    }
    return _rows(one, one.steps_K, "telemetry", columns)


def _final(one: Observed, texts: Texts, settings: Settings) -> pd.DataFrame:
    groups, num_domains = texts.groups, len(texts.groups.domains)
    chosen_GS = one.final.chosen_GS
    null_GS = one.final.null_GS
    share_1S = against_null(chosen_GS.sum(axis=0, keepdims=True), null_GS.sum(axis=0, keepdims=True))
    units = draws.units(one.final.decisions_G, groups.domain_G)
    labels = draws.permutations(units.domain_U, settings.permutations, settings.seed)
    null = nulls.domain_null(units.sum(chosen_GS)[None], labels, num_domains, settings.confidence)
    low, high = max_share_interval(chosen_GS, null_GS, groups, settings)
    trajectory_KS = np.concatenate([one.share_KS, share_1S])
    steps_K = np.append(one.steps_K, settings.num_steps)
    columns = {
        **_load_columns(share_1S, one.final.decisions_G.sum(keepdims=True), one.num_chosen),
        "max_share_low": np.array([low]),
        "max_share_high": np.array([high]),
        "revived_experts": load.revived(trajectory_KS, steps_K, settings.armed_step)[-1:].astype(np.float64),
        **_null_columns(null),
        **_commitment_columns((one.final,)),
        **_beyond_tokens(one, texts, units, labels, settings),
    }
    return _rows(one, steps_K[-1:], "full", columns)


def max_share_interval(chosen_GS: Array, null_GS: Array, groups: Groups, settings: Settings) -> tuple[float, float]:
    """Document-bootstrap bounds of the largest share, free of the bias of having picked the largest.

    Each slot has percentile bounds of its own share. Low is the largest of the lower bounds, each at a/2E, so that the
    chance that any of them is above its slot's true share is at most a/2; high is the largest of the upper bounds at
    a/2, since the truly largest slot is one of them. (The bootstrap of the maximum itself is biased upwards, twice.)
    """
    times_BG = draws.resamples(groups.domain_G, settings.resamples, settings.seed)
    share_BS = against_null(times_BG @ chosen_GS, times_BG @ null_GS)
    tail = (1 - settings.confidence) / 2
    low = np.quantile(share_BS, tail / chosen_GS.shape[1], axis=0).max()
    return float(low), float(np.quantile(share_BS, 1 - tail, axis=0).max())


def _decided(one: Observed, texts: Texts) -> tuple[npt.NDArray[np.bool_], Array]:
    """Which positions have a decision and a document, and their choices (N, S) with 1/k on each chosen slot."""
    count_P = one.choice_PS.sum(axis=1, dtype=np.int64)
    decided_P = (count_P > 0) & (texts.group_P >= 0)
    return decided_P, one.choice_PS[decided_P] / count_P[decided_P, None]


def _beyond_tokens(
    one: Observed, texts: Texts, units: draws.Units, labels: Integers, settings: Settings
) -> dict[str, Array]:
    """What the token's identity explains of I(E;D), and what the domain adds to it; each with its null mean removed."""
    groups, num_domains = texts.groups, len(texts.groups.domains)
    decided_P, chosen_NS = _decided(one, texts)
    token_N, group_N = texts.token_P[decided_P], texts.group_P[decided_P]
    second_G = draws.halves(groups.domain_G, settings.seed)
    expected_GS = information.token_explained(token_N, group_N, chosen_NS, second_G)
    explained = nulls.domain_null(units.sum(expected_GS)[None], labels, num_domains, settings.confidence)
    tokens_V = information.shared_tokens(token_N, groups.domain_G[group_N], num_domains, settings.min_occurrences)
    counts_GVS = information.token_counts(token_N, group_N, chosen_NS, tokens_V, len(groups.domain_G))
    columns = {
        "token_explained_bits": explained.excess,
        "shared_token_share": np.array([counts_GVS.sum() / max(len(token_N), 1)]),
        # where no token occurs in every domain, there is no such number
        "conditional_information_bits": np.array([np.nan]),
        "conditional_p_value": np.array([np.nan]),
    }
    if len(tokens_V):
        conditional = nulls.conditional_null(units.sum(counts_GVS), labels, num_domains, settings.confidence)
        columns |= {"conditional_information_bits": conditional.excess, "conditional_p_value": conditional.p_value}
    return columns


def experts_table(observed: list[Observed], texts: Texts, settings: Settings) -> pd.DataFrame:
    """A row a selector, check, probe, domain and slot: share and lift; 'all' is every domain together.

    lift = f_{e|d} / mean_d f_{e|d}; the placebo has the domains shuffled once (draw 1 of the permutations, the same for
    every run), and lies about 1. NaN for a slot that nothing chose.
    """
    parts: list[pd.DataFrame] = []
    for one in observed:
        for step, share_S in zip(one.steps_K.tolist(), one.share_KS, strict=True):
            parts.append(_slots(one, step, "telemetry", "all", share_S, share_S))
        last_GS = one.early[-1].chosen_GS
        parts += _by_domain(one, int(one.steps_K[-1]), "telemetry", last_GS, texts.groups, None)
        final_GS = one.final.chosen_GS
        share_S = load.shares(final_GS.sum(axis=0))
        parts.append(_slots(one, settings.num_steps, "full", "all", share_S, share_S))
        units = draws.units(one.final.decisions_G, texts.groups.domain_G)
        shuffled_U = draws.permutations(units.domain_U, settings.permutations, settings.seed)[1]
        # back to groups; one without a unit has no choices to count, under any label
        shuffled_G = np.where(units.unit_G >= 0, shuffled_U[units.unit_G], texts.groups.domain_G)
        parts += _by_domain(one, settings.num_steps, "full", final_GS, texts.groups, shuffled_G)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _slots(
    one: Observed, step: int, probe: str, domain: str, share_S: Array, of_S: Array, placebo_S: Array | None = None
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "selector": one.path,
            "layer": one.layer,
            "step": step,
            "probe": probe,
            "domain": domain,
            "slot": np.arange(len(share_S)),
            "share": share_S,
            "lift": lift(share_S, of_S),
            "placebo_lift": np.full(len(share_S), np.nan) if placebo_S is None else placebo_S,
        }
    )


def lift(share_S: Array, of_S: Array) -> Array:
    """share / of, NaN where nothing chose the slot."""
    result: Array = np.divide(share_S, of_S, out=np.full_like(share_S, np.nan), where=of_S > 0)
    return result


def _by_domain(
    one: Observed, step: int, probe: str, chosen_GS: Array, groups: Groups, shuffled_G: Integers | None
) -> list[pd.DataFrame]:
    def share_DS(label_G: Integers) -> Array:
        share, _ = information.by_domain(draws.sums_by_label(label_G[None], len(groups.domains), chosen_GS)[0])
        return share

    true_DS = share_DS(groups.domain_G)
    placebo_DS = None if shuffled_G is None else share_DS(shuffled_G)
    parts: list[pd.DataFrame] = []
    for index, domain in enumerate(groups.domains):
        placebo_S = None if placebo_DS is None else lift(placebo_DS[index], placebo_DS.mean(axis=0))
        parts.append(_slots(one, step, probe, domain, true_DS[index], true_DS.mean(axis=0), placebo_S))
    return parts


def types_table(observed: list[Observed], texts: Texts) -> pd.DataFrame:
    """A row a selector, lexical type and slot, over the domains with a language: P(slot | type) and its lift.

    lift = P(slot | type) / P(slot) over the same tokens. NaN where no token is of the type.
    """
    typed_D = np.isin(texts.groups.domains, texts.languages)
    parts: list[pd.DataFrame] = []
    for one in observed if typed_D.any() else []:
        decided_P, chosen_NS = _decided(one, texts)
        typed_N = typed_D[texts.groups.domain_G[texts.group_P[decided_P]]]
        type_N, chosen_NS = texts.type_P[decided_P][typed_N], chosen_NS[typed_N]
        chosen_YS = np.zeros((len(TYPES), one.num_slots))
        np.add.at(chosen_YS, type_N, chosen_NS)
        tokens_Y = np.bincount(type_N, minlength=len(TYPES))
        share_YS, of_S = load.shares(chosen_YS), load.shares(chosen_YS.sum(axis=0))
        for index, name in enumerate(TYPES):
            columns = {"selector": one.path, "layer": one.layer, "type": name, "slot": np.arange(one.num_slots)}
            found = {"tokens": tokens_Y[index], "share": share_YS[index], "lift": lift(share_YS[index], of_S)}
            parts.append(pd.DataFrame({**columns, **found}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def information_draws(observed: list[Observed], groups: Groups, settings: Settings) -> pd.DataFrame:
    """Bootstrap draws of each selector's I(E;D) on the full probe, bias and all: statistic, name, draw, value."""
    times_BG = draws.resamples(groups.domain_G, settings.resamples, settings.seed)
    parts: list[pd.DataFrame] = []
    for one in observed:
        sums_BDS = draws.sums_by_resample(times_BG, groups.domain_G, len(groups.domains), one.final.chosen_GS)
        value_B = information.domain_information(sums_BDS)
        parts.append(pd.DataFrame({"name": one.path, "draw": np.arange(len(value_B)), "value": value_B}))
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["name", "draw", "value"])
    return rows.assign(statistic="information_bits")
