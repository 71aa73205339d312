"""Compare two records of the same texts: before and after, bf16 and fp32, training and inference.

Choices are compared token by token where both records have them, matched by document, phase and position; loads are
compared over the documents that both have.

    divergence   Jensen-Shannon divergence of the loads, bits
    null         the same of two random halves of one record's documents, halved: halves are half as large
    p            the two records of each unit of documents swapped at random: of a difference that has no direction
    kappa        as `layers.stability`: agreement beyond that of independent choices with the same loads

Shape suffixes: B draws, G groups, U units, N matched tokens, K chosen slots, S slots (experts).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.analysis import draws, information, load, statistics
from speciate.analysis.draws import Integers
from speciate.analysis.layers.stability import Pair, agreement_columns
from speciate.analysis.routing import sentences
from speciate.analysis.routing.grouping import DocumentGroups, group_rows
from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.judgement import TABLES, Judgement
from speciate.analysis.routing.pooled import PooledNull
from speciate.analysis.routing.settings import JudgeSettings
from speciate.selection.routing_record import Note, RoutingRecord, SelectorRecord
from speciate.selection.tally import Array

NAN = float("nan")
FEWEST_UNITS = 5
HALVES = 99
MARGINS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, float("inf"))
"""Upper bounds of the bins of the margin, logits."""
MOST_NAMES = 5
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Matched:
    """Two records brought to the same documents, layers and tokens."""

    one: RoutingRecord
    other: RoutingRecord
    layers: list[tuple[int, int]]
    """Places of the selectors that both have."""
    one_N: Integers
    """Sampled tokens that both have, as places in each sample."""
    other_N: Integers
    notes: list[Note]


def judge_against(record: RoutingRecord, other: RoutingRecord, settings: JudgeSettings | None = None) -> Judgement:
    """Judge a record, and compare it with another one of the same texts.

    Raises:
        ValueError: the records have no layer or no document in common, or a layer has another number of experts.
    """
    settings = settings or JudgeSettings()
    matched = match_records(record, other)
    judgement = judge(record, settings)
    groups = group_rows(matched.one, settings)
    collected: dict[str, list[pd.DataFrame]] = {"agreement": [], "moves": [], "flips": []}
    null = PooledNull()
    for phase in matched.one.phases:
        kept_R = (matched.one.documents["phase"] == phase).to_numpy()
        for places in matched.layers:
            _compare_layer(matched, places, groups, phase=phase, kept_R=kept_R, null=null, collected=collected)
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in collected.items() if parts}
    agreement, moves = tables["agreement"], tables["moves"]
    agreement["q_value"] = statistics.benjamini_hochberg(agreement["p_value"].to_numpy(dtype=np.float64))
    moves["q_value"] = statistics.benjamini_hochberg(np.concatenate(null.p_values()))
    tables = {name: table.reindex(columns=list(TABLES[name])) for name, table in tables.items()}
    return replace(
        judgement,
        against=other.source,
        headline=f"{judgement.headline} {_headline(tables['agreement'], other.source, settings.level)}",
        tables={**judgement.tables, **tables},
        unsaid=(*judgement.unsaid, *_unsaid(matched)),
        notes=(*judgement.notes, *other.notes, *matched.notes),
        facts={
            **judgement.facts,
            "compared_documents": len(matched.one.documents),
            "compared_tokens": len(matched.one_N),
        },
    )


def match_records(record: RoutingRecord, other: RoutingRecord) -> Matched:
    """Bring two records to what both have.

    Raises:
        ValueError: there is nothing that both have, or a layer has another number of experts.
    """
    notes: list[Note] = []
    layers = _match_layers(record, other, notes)
    one, another = _match_documents(record, other, notes)
    one_N, other_N = _match_tokens(one, another, notes)
    return Matched(one, another, layers, one_N, other_N, notes)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _match_layers(record: RoutingRecord, other: RoutingRecord, notes: list[Note]) -> list[tuple[int, int]]:
    """Match selectors by path, or else by their layer's number."""

    def matches(keys: Sequence[str | int], other_keys: Sequence[str | int]) -> list[tuple[int, int]]:
        place = {key: index for index, key in enumerate(other_keys)}
        return [(index, place[key]) for index, key in enumerate(keys) if key in place]

    layers = matches([one.path for one in record.selectors], [one.path for one in other.selectors])
    if not layers:
        numbers, other_numbers = ([one.layer for one in part.selectors] for part in (record, other))
        unique = len(set(numbers)) == len(numbers) and len(set(other_numbers)) == len(other_numbers)
        layers = matches(numbers, other_numbers) if unique and -1 not in numbers else []
    if not layers:
        raise ValueError(
            f"{record.source} and {other.source} have no layer in common, by path or by number:"
            f" {_some([one.path for one in record.selectors])} against {_some([one.path for one in other.selectors])}"
        )
    for index, place in layers:
        one, two = record.selectors[index], other.selectors[place]
        if one.num_slots != two.num_slots:
            raise ValueError(
                f"{one.path}: {record.source} has {one.num_slots} experts, {other.source} has {two.num_slots};"
                " layers of different sizes cannot be compared"
            )
    left = len(record.selectors) + len(other.selectors) - 2 * len(layers)
    if left:
        notes.append(Note("layers_unmatched", f"{left} layers are in one of the two records alone: not compared."))
    return layers


def _match_documents(
    record: RoutingRecord, other: RoutingRecord, notes: list[Note]
) -> tuple[RoutingRecord, RoutingRecord]:
    keys, other_keys = (
        list(zip(part.documents["document"], part.documents["phase"], strict=True)) for part in (record, other)
    )
    place = {key: index for index, key in enumerate(other_keys)}
    common = [(index, place[key]) for index, key in enumerate(keys) if key in place]
    if not common or len(set(keys)) < len(keys) or len(place) < len(other_keys):
        if common:
            raise ValueError(
                f"{record.source} and {other.source}: several rows have the same document and phase, so that documents"
                " cannot be matched by name"
            )
        raise ValueError(
            f"{record.source} and {other.source} have no document in common: {_some([name for name, _ in keys])}"
            f" against {_some([name for name, _ in other_keys])}; compare records of the same texts"
        )
    left = len(keys) + len(other_keys) - 2 * len(common)
    if left:
        notes.append(
            Note("documents_unmatched", f"{left} documents are in one of the two records alone: not compared.")
        )
    one_R, other_R = (np.array(side, dtype=np.int64) for side in zip(*common, strict=True))
    return _in_order(record, one_R), _in_order(other, other_R)


def _in_order(record: RoutingRecord, row_R: Integers) -> RoutingRecord:
    """Return the record of these rows, in this order; the sample keeps its order."""
    new_R = np.full(len(record.documents), -1, dtype=np.int64)
    new_R[row_R] = np.arange(len(row_R))
    sample = record.sample
    if sample is not None:
        kept = sample.of_documents(new_R >= 0)
        # `of_documents` numbers rows by their old order
        sample = replace(kept, document_P=new_R[np.sort(row_R)][kept.document_P])
    return replace(
        record,
        documents=record.documents.iloc[row_R].reset_index(drop=True),
        selectors=tuple(_rows_of(selector, row_R) for selector in record.selectors),
        sample=sample,
        shadows={},
    )


def _rows_of(selector: SelectorRecord, row_R: Integers) -> SelectorRecord:
    parts = {name: value[row_R] for name, value in vars(selector.tally).items()}
    first_GS = None if selector.first_GS is None else selector.first_GS[row_R]
    return replace(selector, tally=type(selector.tally)(**parts), first_GS=first_GS)


def _match_tokens(one: RoutingRecord, other: RoutingRecord, notes: list[Note]) -> tuple[Integers, Integers]:
    empty = np.zeros(0, dtype=np.int64)
    if one.sample is None or other.sample is None:
        return empty, empty
    key_P, other_key_P = ((sample.document_P << 32) + sample.position_P for sample in (one.sample, other.sample))
    _, one_N, other_N = np.intersect1d(key_P, other_key_P, return_indices=True)
    token_N, other_token_N = one.sample.token_P[one_N], other.sample.token_P[other_N]
    same_N = (token_N == other_token_N) | (token_N < 0) | (other_token_N < 0)
    if len(same_N) and not same_N.all():
        notes.append(
            Note(
                "tokens_differ",
                f"{percent_of(~same_N)} of the tokens at the same place have another id in the other record: these are"
                " not compared.",
            )
        )
    if len(same_N) and same_N.mean() < 0.5:
        raise ValueError(
            f"{one.source} and {other.source}: {percent_of(~same_N)} of the tokens at the same document and position"
            " have another id; compare records of the same tokens"
        )
    return one_N[same_N].astype(np.int64), other_N[same_N].astype(np.int64)


def percent_of(mask_N: npt.NDArray[np.bool_]) -> str:
    """Return the share of the true ones as a percentage."""
    return sentences.percent(float(mask_N.mean()))


def _compare_layer(
    matched: Matched,
    places: tuple[int, int],
    groups: DocumentGroups,
    *,
    phase: str,
    kept_R: npt.NDArray[np.bool_],
    null: PooledNull,
    collected: dict[str, list[pd.DataFrame]],
) -> None:
    one, other = matched.one.selectors[places[0]], matched.other.selectors[places[1]]
    chosen = [groups.sum(np.where(kept_R[:, None], part.tally.chosen_GS, 0.0)) for part in (one, other)]
    if not all(chosen_GS.any() for chosen_GS in chosen):
        return
    key: Row = {"path": one.path, "layer": one.layer, "phase": phase}
    row, moves, tests = _compare_loads(chosen[0], chosen[1], groups)
    null.add(*tests) if tests is not None else null.skip(len(moves))
    row |= _compare_choices(matched, places, groups, kept_R)
    collected["agreement"].append(pd.DataFrame([key | row]))
    collected["moves"].append(moves.assign(**key))
    flips = _flips(matched, places, kept_R)
    if flips is not None:
        collected["flips"].append(flips.assign(**key))


def load_divergence(one: Array, other: Array) -> Array:
    """Return the Jensen-Shannon divergence of two loads, in bits; sums of choices by slot in the last axis."""
    return information.domain_information(np.stack([one, other], axis=-2))


def _compare_loads(
    one_GS: Array, other_GS: Array, groups: DocumentGroups
) -> tuple[Row, pd.DataFrame, tuple[Array, Array] | None]:
    settings = groups.settings
    size_G = one_GS.sum(axis=1) + other_GS.sum(axis=1)
    share_S, other_S = load.shares(one_GS.sum(axis=0)), load.shares(other_GS.sum(axis=0))
    moved_S = other_S - share_S
    most = int(np.abs(moved_S).argmax())
    row: Row = {
        "divergence_bits": float(load_divergence(one_GS.sum(axis=0), other_GS.sum(axis=0))),
        **dict.fromkeys(("divergence_low", "divergence_high", "null_bits", "p_value"), NAN),
        "moved_expert": most,
        "moved_share": float(moved_S[most]),
    }
    moves = pd.DataFrame(
        {
            "expert": np.arange(len(share_S)),
            "share": share_S,
            "other_share": other_S,
            "moved": moved_S,
            "moved_low": np.nan,
            "moved_high": np.nan,
        }
    )
    stratum_G = groups.load_strata()
    tail = statistics.expanded_tail(settings.confidence, groups.degrees(size_G, stratum_G))
    if np.isnan(tail):
        return row, moves, None
    times_BG = groups.resamples(stratum_G)
    one_BS, other_BS = times_BG @ one_GS, times_BG @ other_GS
    drawn_B = load_divergence(one_BS, other_BS)
    # draws repeat documents, and so diverge more: the common shift is taken out
    low, high = np.quantile(drawn_B - drawn_B.mean() + row["divergence_bits"], [tail, 1 - tail])
    row["divergence_low"], row["divergence_high"] = max(float(low), 0.0), float(high)
    row["null_bits"] = _halves_bits(one_GS, groups)
    moved_BS = load.shares(other_BS) - load.shares(one_BS)
    moves["moved_low"], moves["moved_high"] = np.quantile(moved_BS, [tail, 1 - tail], axis=0)
    units = groups.units(size_G)
    if len(units.domain_U) < FEWEST_UNITS:
        return row, moves, None
    # each unit's part of the difference of the shares, whose sign a swap of the records turns
    difference_US = units.sum(other_GS / other_GS.sum() - one_GS / one_GS.sum())
    coin_BU = draws.generator(settings.seed, "swaps").integers(0, 2, (settings.permutations, len(units.domain_U)))
    signed_BS = (1 - 2 * coin_BU.astype(np.float64)) @ difference_US
    scale_S = 1 / np.sqrt(np.maximum(share_S + other_S, 1e-12))
    size_B = ((signed_BS * scale_S) ** 2).sum(axis=1)
    observed = float(((moved_S * scale_S) ** 2).sum())
    row["p_value"] = (1 + int((size_B >= observed * (1 - 1e-9)).sum())) / (1 + len(size_B)) if observed > 0 else 1.0
    spread_S = np.sqrt((difference_US**2).sum(axis=0))
    scale_S = np.divide(1.0, spread_S, out=np.zeros_like(spread_S), where=spread_S > 0)
    return row, moves, (np.abs(moved_S) * scale_S, np.abs(signed_BS) * scale_S)


def _halves_bits(chosen_GS: Array, groups: DocumentGroups) -> float:
    """Return the divergence that chance gives two samples of as many documents: half of that of two halves of one."""
    one_G = np.ones(len(chosen_GS), dtype=np.bool_)
    if len(chosen_GS) < 2:
        return NAN
    second_QG = groups.halves(one_G, HALVES)
    return float(load_divergence((1 - second_QG) @ chosen_GS, second_QG @ chosen_GS).mean()) / 2


@dataclass(frozen=True, eq=False)
class _TokenPairs:
    """The choices of both records for tokens in which both decided, and whether their orders are known."""

    one_NK: npt.NDArray[np.int16]
    other_NK: npt.NDArray[np.int16]
    at_N: Integers
    """Places of the tokens in the first record's sample."""
    ordered: bool

    @property
    def shared_N(self) -> Array:
        """Return how many slots each token has in both."""
        same_NKK = (self.one_NK[:, :, None] == self.other_NK[:, None, :]) & (self.one_NK >= 0)[:, :, None]
        result: Array = same_NKK.sum(axis=(1, 2), dtype=np.float64)
        return result

    @property
    def number_N(self) -> tuple[Array, Array]:
        one_N, other_N = ((choice_NK >= 0).sum(axis=1, dtype=np.float64) for choice_NK in (self.one_NK, self.other_NK))
        return one_N, other_N


def _token_pairs(matched: Matched, places: tuple[int, int], kept_R: npt.NDArray[np.bool_]) -> _TokenPairs | None:
    if matched.one.sample is None or matched.other.sample is None or not len(matched.one_N):
        return None
    kept_N = kept_R[matched.one.sample.document_P[matched.one_N]]
    one_N, other_N = matched.one_N[kept_N], matched.other_N[kept_N]
    one_NK = matched.one.sample.choice_LPK[places[0]][one_N]
    other_NK = matched.other.sample.choice_LPK[places[1]][other_N]
    both_N = (one_NK >= 0).any(axis=1) & (other_NK >= 0).any(axis=1)
    if not both_N.any():
        return None
    selectors = matched.one.selectors[places[0]], matched.other.selectors[places[1]]
    ordered = all(selector.first_GS is not None or selector.num_chosen <= 1 for selector in selectors)
    return _TokenPairs(one_NK[both_N], other_NK[both_N], one_N[both_N], ordered)


def _compare_choices(
    matched: Matched, places: tuple[int, int], groups: DocumentGroups, kept_R: npt.NDArray[np.bool_]
) -> Row:
    names = ("same_first", "overlap", "rank_overlap", "kappa", "kappa_low", "kappa_high")
    row: Row = {"tokens": 0, **dict.fromkeys(names, NAN)}
    found = _token_pairs(matched, places, kept_R)
    if found is None or matched.one.sample is None:
        return row
    group_N = groups.group_R[matched.one.sample.document_P[found.at_N]]
    num_slots = matched.one.selectors[places[0]].num_slots
    shared_N, (number_N, other_number_N) = found.shared_N, found.number_N
    number = groups.num_groups

    def sums(choice_NK: npt.NDArray[np.int16]) -> Array:
        chosen_NK = choice_NK >= 0
        place_NK = group_N[:, None] * num_slots + choice_NK
        return np.bincount(place_NK[chosen_NK], minlength=number * num_slots).reshape(number, -1).astype(np.float64)

    def by_group(value_N: Array) -> Array:
        return np.bincount(group_N, weights=value_N, minlength=number).astype(np.float64)

    pair = Pair(
        by_group(shared_N),
        by_group((number_N + other_number_N) / 2),
        by_group(np.ones(len(group_N))),
        sums(found.one_NK),
        sums(found.other_NK),
    )
    stratum_G = np.where(pair.decisions_G > 0, 0, -1)
    agreement = agreement_columns(pair, groups.resamples(stratum_G), groups.settings.confidence)
    row |= {
        "tokens": len(group_N),
        "overlap": agreement["observed"],
        "kappa": agreement["kappa"],
        "kappa_low": agreement["low"],
        "kappa_high": agreement["high"],
    }
    if found.ordered:
        row["same_first"] = float((found.one_NK[:, 0] == found.other_NK[:, 0]).mean())
        row["rank_overlap"] = rank_overlap(found.one_NK, found.other_NK)
    return row


def rank_overlap(one_NK: npt.NDArray[np.int16], other_NK: npt.NDArray[np.int16]) -> float:
    """Return the average overlap (Wu & Crestani 2003): the mean over depths d of the share of the first d in common.

    Depths beyond the choices that a token made count what it made.
    """
    depth = min(one_NK.shape[1], other_NK.shape[1])
    if not len(one_NK):
        return NAN
    same_NKK = (one_NK[:, :depth, None] == other_NK[:, None, :depth]) & (one_NK[:, :depth] >= 0)[:, :, None]
    common_ND = np.stack([same_NKK[:, :d, :d].sum(axis=(1, 2)) for d in range(1, depth + 1)], axis=1)
    made_N = np.maximum(np.minimum((one_NK[:, :depth] >= 0).sum(axis=1), (other_NK[:, :depth] >= 0).sum(axis=1)), 1)
    size_ND = np.minimum(np.arange(1, depth + 1), made_N[:, None])
    return float((common_ND / size_ND).mean())


def _flips(matched: Matched, places: tuple[int, int], kept_R: npt.NDArray[np.bool_]) -> pd.DataFrame | None:
    found = _token_pairs(matched, places, kept_R)
    sample = matched.one.sample
    if found is None or sample is None or sample.margin_LP is None:
        return None
    margin_N = sample.margin_LP[places[0]][found.at_N].astype(np.float64)
    known_N = np.isfinite(margin_N)
    if not known_N.any():
        return None
    number_N, other_number_N = found.number_N
    flipped_N = (found.shared_N < number_N) | (number_N != other_number_N)
    bin_N = np.searchsorted(MARGINS, margin_N[known_N], side="left")
    tokens_X = np.bincount(bin_N, minlength=len(MARGINS))
    flipped_X = np.bincount(bin_N, weights=flipped_N[known_N], minlength=len(MARGINS))
    used_X = tokens_X > 0
    return pd.DataFrame(
        {
            "margin": np.array(MARGINS)[used_X],
            "tokens": tokens_X[used_X],
            "flipped": flipped_X[used_X] / tokens_X[used_X],
        }
    )


def _headline(agreement: pd.DataFrame, other: str, level: float) -> str:
    """Return what two records have in common, in a sentence or two."""
    parts = []
    known = agreement[agreement["tokens"] > 0]
    if len(known):
        least = known.loc[known["overlap"].idxmin()]
        parts.append(
            f"Against {other}, tokens keep {sentences.percent(float(known['overlap'].mean()))} of their experts (least:"
            f" layer {int(least['layer'])}, {sentences.percent(float(least['overlap']))})"
        )
    moved = agreement[agreement["q_value"] <= level]
    if len(moved):
        most = moved.loc[moved["divergence_bits"].idxmax()]
        parts.append(
            f"the loads of {len(moved)} of {len(agreement)} layers moved by more than chance, most in layer"
            f" {int(most['layer'])} ({sentences.bits(float(most['divergence_bits']))} bits; expert"
            f" {int(most['moved_expert'])} by {sentences.percent(abs(float(most['moved_share'])))})"
        )
    elif agreement["q_value"].notna().any():
        parts.append(f"no layer's load moved by more than chance, of {len(agreement)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else f"Compared with {other} by loads alone, without a test."


def _unsaid(matched: Matched) -> list[Note]:
    notes = []
    if not len(matched.one_N):
        notes.append(
            Note(
                "no_common_tokens",
                "Whether single tokens keep their experts: the two records have no single tokens in common. Records"
                " with each token's choices on the same texts settle it.",
            )
        )
    elif matched.one.sample is not None and matched.one.sample.margin_LP is None:
        notes.append(
            Note("no_margins", "Whether choices flip where two experts are close: the first record has no margins.")
        )
    return notes
