"""Test the stable top k against a full sort."""

import random

import pytest
import torch

from speciate.model.sparse_attention.stable_top_k import stable_top_k


def ordered(row: list[float], k: int) -> list[int]:
    return sorted(range(len(row)), key=lambda place: (row[place], place), reverse=True)[:k]


@pytest.mark.parametrize(("size", "k"), [(1, 1), (7, 7), (40, 3), (64, 4), (1003, 5), (5000, 2)])
@pytest.mark.parametrize("values", [3, 10**6])
def test_equals_a_sort_by_score_and_place(size: int, k: int, values: int) -> None:
    draw = random.Random(size + values)
    rows = [[draw.randrange(-values, values) / 4 for _ in range(size)] for _ in range(3)]
    rows[2][size // 2 :] = [-float("inf")] * (size - size // 2)
    assert stable_top_k(torch.tensor(rows), k).tolist() == [ordered(row, k) for row in rows]


def test_what_comes_after_does_not_decide_between_equals() -> None:
    score_S = torch.zeros(900)
    longer_S = torch.cat([score_S, torch.full((333,), -torch.inf)])
    assert torch.equal(stable_top_k(score_S, 5), stable_top_k(longer_S, 5))
    assert stable_top_k(score_S, 2).tolist() == [899, 898]
    assert stable_top_k(torch.tensor([0.0, -0.0, -1.0]), 2).tolist() == [1, 0]
