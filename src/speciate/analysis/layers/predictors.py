"""What predicts a selector's choice: the token, the token before, or the position? Information about the choice E.

    share = (I(E;X) - E0 I) / (H(E) - E0 I)

E0 I is the exact mean of I(E;X) where the choices are shuffled among the positions, with all counts as they are. So the
share is 0 on average for a choice that X does not predict, however many values X has, and 1 where E follows from X. As
in `agreement`, E is the set of a token's slots. Positions at which X does not exist are left out: the first of a
block or a document has no token before it.

Shape suffixes: P positions, N decisions, E choices, X values of a predictor, B draws.
"""

import numpy as np
import pandas as pd

from speciate.analysis import draws, tables
from speciate.analysis.draws import Integers
from speciate.analysis.effects.agreement import contingency, entropy, expected_information, partition
from speciate.analysis.observation import ObservedSelector, Settings, Texts
from speciate.selection.tally import Array

PERMUTATIONS = 99
"""Shuffles of the choices for the null's band; its mean is exact."""
LEAST_ROOM = 1e-9
LN2 = float(np.log(2))


def predictors(texts: Texts) -> dict[str, Integers]:
    """Return the value of each predictor at each position, (P,); -1 where it has none."""
    place_P = np.arange(len(texts.token_P)) % texts.block_length
    before_P, same_P = np.roll(texts.token_P, 1), np.roll(texts.document_P, 1) == texts.document_P
    return {
        "token": texts.token_P,
        "previous_token": np.where((place_P > 0) & same_P, before_P, -1),
        "position": place_P,
    }


def predictors_table(observed: list[ObservedSelector], texts: Texts, settings: Settings) -> pd.DataFrame:
    """Return a row for each selector and predictor."""
    rows: list[dict[str, object]] = []
    for selector in observed:
        part_P = np.where(texts.group_P >= 0, partition(selector.choice_PS), -1)
        for name, value_P in predictors(texts).items():
            known_P = (part_P >= 0) & (value_P >= 0)
            named = {"selector": selector.path, "layer": selector.layer, "predictor": name}
            rows.append(named | explained(part_P[known_P], value_P[known_P], settings))
    names = [name for name in tables.COLUMNS["predictors"] if name not in ("ablation", "seed")]
    return pd.DataFrame(rows, columns=names)


def explained(part_N: Integers, value_N: Integers, settings: Settings) -> dict[str, object]:
    """Return how much of the entropy of the choices the values explain, with the band of shuffled choices."""
    count_EX = contingency(part_N, value_N)
    row: dict[str, object] = {"decisions": len(part_N), "values": count_EX.shape[1]}
    choice_E, value_X = count_EX.sum(axis=1), count_EX.sum(axis=0)
    of_choice, of_value = (entropy(count) if len(part_N) else np.nan for count in (choice_E, value_X))
    information = of_choice + of_value - (entropy(count_EX) if len(part_N) else np.nan)
    expected = expected_information(choice_E, value_X) if len(part_N) else np.nan
    room = of_choice - expected
    shuffled = shuffled_entropies(part_N, value_N, settings.seed) if room > LEAST_ROOM else np.zeros(0)
    null_B = of_choice + of_value - shuffled
    shares = {"share": np.nan, "null_low": np.nan, "null_high": np.nan, "p_value": np.nan}
    if len(null_B):
        tail = (1 - settings.confidence) / 2
        low, high = np.quantile((null_B - expected) / room, [tail, 1 - tail])
        beyond = 1 + int((null_B >= information - 1e-12).sum())
        shares = {"share": (information - expected) / room, "null_low": low, "null_high": high}
        shares["p_value"] = beyond / (1 + len(null_B))
    bits = {"entropy_bits": of_choice, "information_bits": information, "by_chance_bits": expected}
    return row | {name: nats / LN2 for name, nats in bits.items()} | shares


def shuffled_entropies(part_N: Integers, value_N: Integers, seed: int) -> Array:
    """Return the joint entropy, in nats, of values and shuffled choices, (B,)."""
    draw = draws.generator(seed, "choices")
    (_, part_N), (_, value_N) = (np.unique(kind_N, return_inverse=True) for kind_N in (part_N, value_N))
    start_N = part_N * (int(value_N.max()) + 1)
    counts = (np.bincount(draw.permutation(start_N) + value_N) for _ in range(PERMUTATIONS))
    return np.array([entropy(count.astype(np.float64)) for count in counts])
