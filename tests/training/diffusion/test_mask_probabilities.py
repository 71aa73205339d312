"""Test that mask budgets are exact, and that each weight is the derivative it stands for."""

import pytest
import torch
from torch import Tensor

from speciate.training.diffusion import mask_probabilities

WAYS = {"power": mask_probabilities.power_probs, "fill": mask_probabilities.proportional_probs}


def rows() -> tuple[Tensor, Tensor]:
    """Draw positive numbers and maskable places: the second row has holes, the third one place, the last none."""
    draw = torch.Generator().manual_seed(0)
    value_BT = torch.empty(5, 40, dtype=torch.float64).log_normal_(0, 1.5, generator=draw)
    maskable_BT = torch.ones(5, 40, dtype=torch.bool)
    maskable_BT[1, ::3] = False
    maskable_BT[2, 1:] = False
    maskable_BT[4] = False
    return value_BT, maskable_BT


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("share", [1e-6, 0.01, 0.3, 0.7, 0.999, 1.0])
def test_the_budget_is_exact(way: str, share: float) -> None:
    value_BT, maskable_BT = rows()
    share_B = torch.full((5,), share, dtype=torch.float64)
    prob_BT, slope_BT = WAYS[way](value_BT, maskable_BT, share_B)
    torch.testing.assert_close(prob_BT.sum(1), share * maskable_BT.sum(1).double(), rtol=1e-12, atol=1e-15)
    assert ((prob_BT >= 0) & (prob_BT <= 1)).all()
    assert slope_BT.isfinite().all()
    assert not prob_BT[~maskable_BT].any()
    assert not slope_BT[~maskable_BT].any()


@pytest.mark.parametrize("way", WAYS)
def test_a_whole_row_is_masked_at_share_one_however_its_sums_round(way: str) -> None:
    draw = torch.Generator().manual_seed(0)
    maskable_BT = torch.rand(200, 256, generator=draw) < 0.7
    value_BT = torch.empty(200, 256, dtype=torch.float64).log_normal_(0, 3, generator=draw)
    prob_BT, _ = WAYS[way](value_BT, maskable_BT, torch.ones(200, dtype=torch.float64))
    torch.testing.assert_close(prob_BT.sum(1), maskable_BT.sum(1).double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_the_weight_is_the_derivative(way: str) -> None:
    value_BT, maskable_BT = rows()
    share_B = torch.tensor([0.2, 0.5, 0.3, 0.8, 0.5], dtype=torch.float64)
    _, slope_BT = WAYS[way](value_BT, maskable_BT, share_B)
    up_BT, down_BT = (WAYS[way](value_BT, maskable_BT, share_B + step)[0] for step in (1e-6, -1e-6))
    numeric_BT = (up_BT[maskable_BT].log() - down_BT[maskable_BT].log()) / 2e-6
    torch.testing.assert_close(slope_BT[maskable_BT], numeric_BT, rtol=1e-6, atol=1e-7)


def test_equal_weights_are_uniform_masking() -> None:
    maskable_BT, share_B = rows()[1], torch.linspace(0.1, 1, 5, dtype=torch.float64)
    for way in WAYS.values():
        for found, expected in zip(
            way(torch.full((5, 40), 3.0), maskable_BT, share_B),
            mask_probabilities.uniform_probs(maskable_BT, share_B),
            strict=True,
        ):
            where_BT = maskable_BT & (share_B < 1).unsqueeze(1)  # at s = 1 `fill` has nothing left to mask
            torch.testing.assert_close(found[where_BT], expected[where_BT], rtol=1e-12, atol=0)


def test_fill_is_in_proportion_until_it_is_full() -> None:
    value_BT = torch.tensor([[1.0, 2.0, 5.0, 8.0]])
    prob_BT, slope_BT = mask_probabilities.proportional_probs(
        value_BT, torch.ones(1, 4, dtype=torch.bool), torch.tensor([0.6])
    )
    # 2.4 masks: 8 is full at once, then the other 1.4 in proportion 1 : 2 : 5
    torch.testing.assert_close(
        prob_BT, torch.tensor([[1.4 / 8, 2.8 / 8, 7 / 8, 1.0]], dtype=torch.float64), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(slope_BT, torch.tensor([[4 / 1.4] * 3 + [0.0]], dtype=torch.float64), rtol=1e-6, atol=0)


def test_weights_of_mean_one_alone_would_not_keep_the_budget() -> None:
    exponent_T = torch.tensor([0.5, 1.5])
    assert (0.3**exponent_T).sum() > 2 * 0.3 + 0.1
