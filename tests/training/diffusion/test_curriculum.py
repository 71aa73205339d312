"""Test the stages, including their boundaries."""

import pytest
import torch

from speciate.training.diffusion.curriculum import BORDERS, boost_stage_tokens, relative_ranks, stage_at


@pytest.mark.parametrize("name", BORDERS)
def test_a_border_belongs_to_the_later_stage(name: str) -> None:
    first, second = BORDERS[name]
    stages = [stage_at((first, second), at) for at in (0, first - 1e-9, first, second - 1e-9, second, 1)]
    assert stages == [0, 0, 1, 1, 2, 2]


def test_ranks_are_within_the_row_and_equal_ones_share_theirs() -> None:
    importance_BT = torch.tensor([[5.0, 1.0, 3.0, 3.0, 9.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    maskable_BT = torch.tensor([[True] * 4 + [False], [True] * 5])
    expected_BT = torch.tensor([[3.0, 0.0, 1.5, 1.5, 0.0], [2.0] * 5]) / torch.tensor([[4.0], [5.0]])
    torch.testing.assert_close(relative_ranks(importance_BT, maskable_BT), expected_BT)


def test_a_stage_multiplies_its_own_tokens() -> None:
    importance_BT = torch.arange(1.0, 11).unsqueeze(0)
    all_BT = torch.ones(1, 10, dtype=torch.bool)
    changed = [
        (boost_stage_tokens(importance_BT, all_BT, stage) / importance_BT).flatten().tolist() for stage in range(3)
    ]
    assert changed == [[2.0] * 3 + [1.0] * 7, [1.0] * 3 + [1.5] * 4 + [1.0] * 3, [1.0] * 7 + [2.0] * 3]
