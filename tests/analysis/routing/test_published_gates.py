"""Test that published rules pass chance, by exact figures, and that the q-values of a record do not.

An atlas of experts calls an expert specialised if it fires in two of three prompts of a topic and if at least half of
the prompts in which it fires are of topics that it so covers. An expert that fires in m of 30 prompts, whatever their
topics, passes with a chance that can be counted.
"""

from collections import Counter
from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy import stats

from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.settings import JudgeSettings
from speciate.selection.record_builder import RecordBuilder, SelectorShape

TOPICS, PROMPTS = 10, 3


def passes(fired: tuple[int, ...]) -> bool:
    """Return whether an expert that fires in these prompts passes the published gate."""
    covered = [number for number in Counter(prompt // PROMPTS for prompt in fired).values() if number >= 2]
    return bool(covered) and sum(covered) / len(fired) >= 0.5


@pytest.mark.parametrize(("fires", "chance"), [(3, 0.20), (4, 0.38), (5, 0.09)])
def test_the_gate_of_an_atlas_passes_chance(fires: int, chance: float) -> None:
    passed = sum(map(passes, combinations(range(TOPICS * PROMPTS), fires)))
    assert passed / comb(TOPICS * PROMPTS, fires) == pytest.approx(chance, abs=0.005)


def prompts_record(seed: int, fires: int, slots: int = 64) -> tuple[RecordBuilder, list[tuple[int, ...]]]:
    draw = np.random.default_rng(seed)
    fired = [tuple(draw.choice(TOPICS * PROMPTS, fires, replace=False).tolist()) for _ in range(slots)]
    fired[0] = tuple(range(fires))  # every prompt needs some expert; this one is not judged
    builder = RecordBuilder("atlas")
    for prompt in range(TOPICS * PROMPTS):
        experts = [expert for expert, of_expert in enumerate(fired) if prompt in of_expert] or [0]
        row = builder.row(f"prompt {prompt}", label=f"topic {prompt // PROMPTS}")
        builder.add_counts(
            SelectorShape("layer 0", 0, slots, 1), row, np.bincount(draw.choice(experts, 200), minlength=slots)
        )
    return builder, fired[1:]


def test_q_values_do_not_pass_what_the_gate_passes() -> None:
    passed_gate, false_records, records = 0, 0, 24
    for seed in range(records):
        builder, fired = prompts_record(seed, fires=4)
        passed_gate += sum(map(passes, fired))
        lifts = judge(builder.build(), JudgeSettings(permutations=199, resamples=19)).tables["lifts"]
        false_records += bool((lifts.loc[lifts["expert"] > 0, "q_value"] <= 0.05).any())
    assert passed_gate > 0.3 * 63 * records
    # every one would be false: records with any have a chance of .05 at most
    assert false_records <= stats.binom.ppf(0.999, records, 0.05)


def expected_largest_share(count: int, slots: int, draw: np.random.Generator) -> float:
    """Return E max_e n_e / n of a token that chance sends to experts `count` times."""
    if count == 1:
        return 1.0
    return float(draw.multinomial(count, np.full(slots, 1 / slots), size=400).max(axis=1).mean() / count)


def test_a_router_at_chance_scores_63_percent_on_unweighted_vocabulary_specialisation() -> None:
    # the mean over a text's token types of the share of the expert that takes most of them; most types are rare
    slots, types, tokens = 64, 20_000, 97_000
    draw = np.random.default_rng(0)
    rate_V = tokens / np.arange(1, types + 1) / (1 / np.arange(1, types + 1)).sum()
    count_V = draw.poisson(rate_V)
    number, times = np.unique(count_V[count_V > 0], return_counts=True)
    score = np.array([expected_largest_share(int(count), slots, draw) for count in number])
    unweighted = float((score * times).sum() / times.sum())
    by_token = float((score * times * number).sum() / (times * number).sum())
    assert unweighted == pytest.approx(0.63, abs=0.01)
    assert by_token < 0.2
