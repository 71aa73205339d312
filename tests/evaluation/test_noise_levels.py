"""Test what is measured at each noise level against counts by hand, and routers that do and do not see the masks."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from tests.every_kind import CONTEXT, VOCABULARY, model_settings

from speciate.config.run import ModelSpec
from speciate.data.blocks import BlockSet
from speciate.evaluation import noise_levels
from speciate.model.transformer import Transformer
from speciate.training.objective import causal, masked_diffusion

MOE = {"kind": "moe", "num_experts": 4, "hidden": 12, "router": "learned", "balance": "none"}
ROUTER = "blocks.0.ffn.router"


def blocks(num: int = 40) -> BlockSet:
    token_BT = np.random.default_rng(0).integers(0, VOCABULARY - 1, (num, CONTEXT))
    return BlockSet("probe", ("code",), token_BT, np.zeros_like(token_BT), np.zeros(num, int), pd.DataFrame(), None)


def model(**change: Any) -> Transformer:
    torch.manual_seed(0)
    settings = model_settings(ffn={**MOE, **change}, num_layers=1, causal=False)
    return Transformer(ModelSpec.model_validate(settings), VOCABULARY).eval()


def objective(**options: Any) -> masked_diffusion.Objective:
    return masked_diffusion.Objective(masked_diffusion.Options(kind="masked_diffusion", **options))


def measured(some: Transformer) -> dict[tuple[str, float | None], float]:
    rows = noise_levels.level_metrics(some, objective(), blocks())
    assert {row[0] for row in rows} == {ROUTER}
    return {(str(name), at): float(value) for _, name, at, value in rows}  # type: ignore[arg-type, misc]


def entropy(share: Any) -> float:
    return float(stats.entropy(share, base=2))


def test_informations_are_differences_of_entropies() -> None:
    """Check with scipy's entropies, by the chain rule H(slot) + H(level) - H(slot, level)."""
    joint_LS = np.random.default_rng(0).random((8, 4))
    joint_LS /= 8 * joint_LS.sum(axis=1, keepdims=True)
    expected = entropy(joint_LS.sum(0)) + 3 - entropy(joint_LS.ravel())
    assert noise_levels.information(joint_LS) == pytest.approx(expected)
    # every level has the same weight, however many choices it has
    assert noise_levels.information(joint_LS * np.arange(1, 9)[:, None]) == pytest.approx(expected)
    weighted_LS = joint_LS * np.arange(1, 9)[:, None] / np.arange(1, 9).mean()
    expected = entropy(weighted_LS.sum(0)) + entropy(weighted_LS.sum(1)) - entropy(weighted_LS.ravel())
    assert noise_levels.information(weighted_LS, weighted_LS.sum(1)) == pytest.approx(expected)
    assert noise_levels.information(np.array([[3.0, 0, 0], [0, 5, 0], [0, 0, 0]])) == pytest.approx(1.0)
    assert np.isnan(noise_levels.information(np.zeros((2, 3))))


@torch.no_grad()
def test_choices_are_counted_by_level_and_mask() -> None:
    """Sum the choices of the model's own router over blocks that are masked here, one block and level at a time."""
    some, levels, some_blocks = model(), objective().noise_levels, blocks(3)
    count_LMS = noise_levels.count_choices(some, objective(), some_blocks)[ROUTER]
    token_BT = torch.from_numpy(some_blocks.tokens)
    draw_BT = masked_diffusion.uniforms(token_BT, masked_diffusion.DRAW_KEY)
    seen: list[torch.Tensor] = []
    handle = some.blocks[0].ffn.router.register_forward_hook(lambda *call: seen.append(call[2].slot_NK[:, 0]))
    expected_LMS = np.zeros_like(count_LMS)
    for level, share in enumerate(levels):
        for token_T, draw_T in zip(token_BT, draw_BT, strict=True):
            masked_T = (draw_T < share) & (torch.arange(CONTEXT) > 0)
            some.hidden(token_T.masked_fill(masked_T, VOCABULARY - 1)[None])
            for position in range(1, CONTEXT):
                expected_LMS[level, int(masked_T[position]), seen[-1][position]] += 1
    handle.remove()
    assert levels == tuple((2 * level + 1) / 16 for level in range(8))
    np.testing.assert_array_equal(count_LMS, expected_LMS)
    assert count_LMS.sum() == 8 * 3 * (CONTEXT - 1)


@torch.no_grad()
def test_a_router_of_the_mask_alone_knows_the_level_by_the_masks_alone() -> None:
    """Slot 0 for visible and slot 1 for masked tokens: the information is the difference of Bernoulli entropies."""
    some = model()
    router = some.blocks[0].ffn.router.scorer
    some.token_embedding.weight[:-1, 0] = 50.0
    some.token_embedding.weight[-1, 0] = -50.0
    router.weight.zero_()
    router.weight[0, 0], router.weight[1, 0] = 9.0, -9.0
    found = measured(some)
    counts = noise_levels.count_choices(some, objective(), blocks())[ROUTER]
    assert counts[:, 0, 1:].sum() == counts[:, 1, 0].sum() == counts[:, 1, 2:].sum() == 0
    share_L = counts[:, 1].sum(-1) / counts.sum((1, 2))
    bernoulli = [entropy([share, 1 - share]) for share in share_L]
    mean = share_L.mean()
    assert found["mask_information", None] == pytest.approx(np.mean(bernoulli))
    assert found["level_information", None] == pytest.approx(entropy([mean, 1 - mean]) - np.mean(bernoulli))
    assert found["level_information_masked", None] == found["level_information_visible", None] == 0
    for level, share in zip(objective().noise_levels, share_L, strict=True):
        assert share == pytest.approx(level, abs=0.06)
        assert found["level_max_share", level] == pytest.approx(max(share, 1 - share))
        assert found["level_effective_slots", level] == pytest.approx(2 ** entropy([share, 1 - share]))
    lost = 2 ** entropy([share_L[0], 1 - share_L[0]]) - 2 ** entropy([share_L[-1], 1 - share_L[-1]])
    assert found["slots_lost_to_noise", None] == pytest.approx(lost)


def test_a_router_of_chance_knows_no_level() -> None:
    found = measured(model(router="uniform_random"))
    names = ("level_information", "level_information_masked", "level_information_visible", "mask_information")
    assert max(found[name, None] for name in names) < 0.03


def test_nothing_is_measured_where_nothing_is_masked_or_chosen() -> None:
    of_causal = causal.Objective(causal.Options(kind="causal"))
    assert noise_levels.level_metrics(model(), of_causal, blocks(2)) == []
    settings = model_settings(ffn={"kind": "dense", "hidden": 12}, num_layers=1, causal=False)
    dense = Transformer(ModelSpec.model_validate(settings), VOCABULARY).eval()
    assert noise_levels.level_metrics(dense, objective(), blocks(2)) == []
