"""Test the agreement of partitions against an enumeration of all permutations, and against scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score

from speciate.analysis.effects import agreement
from speciate.config.stage_specs import AgreeSpec
from speciate.stages import agree


def test_the_expectation_is_the_mean_over_all_permutations() -> None:
    one, other = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1]
    exact = np.mean([mutual_info_score(one, order) for order in itertools.permutations(other)])
    counts = agreement.contingency(np.array(one), np.array(other))
    assert agreement.expected_information(counts.sum(1), counts.sum(0)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_scikit_learns(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one = draw.choice(5, 300, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    other = np.where(draw.random(300) < 0.6, one, draw.integers(0, 4, 300))
    found, count = agreement.adjusted_mutual_information(one, other)
    assert count == 300
    assert found == pytest.approx(adjusted_mutual_info_score(one, other), abs=1e-10)


def test_names_do_not_count_chance_gives_zero_and_one_part_nothing() -> None:
    draw = np.random.default_rng(0)
    one = draw.integers(0, 8, 2000)
    assert agreement.adjusted_mutual_information(one, (one + 3) % 8)[0] == pytest.approx(1.0)
    values = [agreement.adjusted_mutual_information(one, draw.permutation(one))[0] for _ in range(50)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(50)
    assert math.isnan(agreement.adjusted_mutual_information(one * 0, one * 0)[0])
    assert agreement.adjusted_mutual_information(one * 0, one)[0] == pytest.approx(0.0)


def test_a_set_of_slots_is_a_part_and_positions_without_a_decision_are_left_out() -> None:
    choice = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0], [0, 1, 1]], dtype=np.uint8)
    parts = agreement.partition(choice)
    assert parts[0] == parts[2]
    assert len({*parts[[0, 1, 4]].tolist()}) == 3
    assert parts[3] == -1
    other = np.array([5, 6, 5, 7, -1])
    assert agreement.adjusted_mutual_information(parts, other) == (pytest.approx(1.0), 3)


def test_pairs_are_the_seeds_of_an_arm_and_the_reference_of_a_seed() -> None:
    spec = AgreeSpec(arms=("dense", "learned", "frozen"), seeds=(0, 1), reference="learned")
    some = np.array([0, 1, 0, 1, 1])
    divided = {
        ("dense", 0): {},
        **{("learned", seed): {"blocks.2.router": some, "blocks.3.router": some} for seed in (0, 1)},
        ("frozen", 1): {"blocks.2.router": 1 - some},
    }
    rows = agree.agreement_table(spec, divided)
    names = rows[["ablation", "seed", "other_ablation", "other_seed", "layer"]].to_numpy().tolist()
    assert names == [
        ["learned", 0, "learned", 1, 2],
        ["learned", 0, "learned", 1, 3],
        ["frozen", 1, "learned", 1, 2],
    ]
    assert rows["ami"].tolist() == pytest.approx([1.0, 1.0, 1.0])
