"""Test token choice and its capacity against the Switch router in transformers and against counting."""

import math
from types import SimpleNamespace

import pytest
import torch
from tests.model.conftest import VOCABULARY, WIDTH, Selecting, route
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersTop1Router

from speciate.model.cache import Cache
from speciate.model.moe.top_k_router import slot_capacity
from speciate.model.token_batch import TokenBatch
from speciate.selection.metrics import collect_metrics


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_one_slot_with_room_equals_switch(top_k: Selecting, factor: float) -> None:
    settings = {"expert_capacity": math.ceil(factor * 16 / 8), "router_bias": False, "router_jitter_noise": 0.0}
    shape = {"num_experts": 8, "hidden_size": WIDTH, "router_ignore_padding_tokens": False, "router_dtype": "float32"}
    hf_router = SwitchTransformersTop1Router(SimpleNamespace(**settings, **shape))
    ours = top_k(choice=("token", {"capacity_factor": factor, "renormalise": False}))
    hf_router.classifier.weight = ours.scorer.weight
    x_BTD = torch.randn(4, 16, WIDTH)
    one_hot_BTS, weight_BT1, _ = hf_router(x_BTD)
    with collect_metrics(ours) as meter:
        routing = route(ours, x_BTD.flatten(0, 1))
    assert torch.equal(routing.kept_NK.flatten(), one_hot_BTS.sum(-1).flatten() > 0)
    kept_N = routing.kept_NK[:, 0]
    assert torch.equal(routing.slot_NK[kept_N, 0], one_hot_BTS.argmax(-1).flatten()[kept_N])
    torch.testing.assert_close(routing.weight_NK, weight_BT1.flatten(0, 1))
    assert meter.means()["choice", "dropped_share", None] == pytest.approx(1 - float(one_hot_BTS.sum()) / 64)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("factor", [0.3, 1.0, 1.25, 9.0])
def test_what_has_room_by_counting(top_k: Selecting, k: int, factor: float) -> None:
    selector = top_k(top_k=k, choice=("token", {"capacity_factor": factor}))
    routing = route(selector)
    free = top_k(top_k=k)
    free.load_state_dict(selector.state_dict())
    for block in range(4):
        left = [math.ceil(factor * 16 * k / 8)] * 8
        for token in range(16 * block, 16 * block + 16):
            for choice in range(k):
                slot = int(routing.slot_NK[token, choice])
                assert bool(routing.kept_NK[token, choice]) == (left[slot] > 0)
                left[slot] -= 1
    # the choice and its weight are the same as with room for every token
    assert routing.selection.chosen_NS.sum(-1).allclose(torch.ones(64))
    torch.testing.assert_close(routing.weight_NK.sum(-1), torch.ones(64))


def test_room_has_no_token_too_many_from_a_rounded_product() -> None:
    assert [
        slot_capacity(10, 1, 1, 1.1),
        slot_capacity(100, 10, 1, 1.1),
        slot_capacity(16, 4, 1, 1.25),
        slot_capacity(7, 4, 1, 1.0),
    ] == [10, 11, 5, 2]
    assert slot_capacity(16, 8, 1, 0.01) == 1


def test_a_later_token_pushes_none_out(top_k: Selecting) -> None:
    selector = top_k(top_k=2, choice=("token", {"capacity_factor": 0.5})).eval()
    x_BTD, token_BT = torch.randn(4, 16, WIDTH), torch.randint(VOCABULARY, (4, 16))
    before = route(selector, x_BTD.flatten(0, 1), token_BT).kept_NK.view(4, 16, 2)
    x_BTD[:, 9:] = torch.randn(4, 7, WIDTH)
    after = route(selector, x_BTD.flatten(0, 1), token_BT).kept_NK.view(4, 16, 2)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before, after)


def test_padding_takes_no_room(top_k: Selecting) -> None:
    selector = top_k(choice=("token", {"capacity_factor": 1.0}))
    column_BK, real_BK = torch.arange(8).expand(1, -1), torch.arange(8).unsqueeze(0) >= 4
    tokens = TokenBatch.of(torch.zeros((1, 8), dtype=torch.long)).select(column_BK, real_BK)
    with collect_metrics(selector) as meter:
        kept_N = selector(torch.ones(8, WIDTH), tokens).kept_NK.flatten()
    assert kept_N[4:].tolist() == [True, True, False, False]  # all want one slot; of 8, it takes an eighth of 16
    assert meter.means()["choice", "dropped_share", None] == 0.5


def test_a_document_has_the_capacity_that_it_has_alone(top_k: Selecting) -> None:
    selector = top_k(choice=("token", {"capacity_factor": 1.0}))
    document_BT = torch.tensor([[4] * 5 + [2] * 1 + [4] * 2 + [0] * 8, [0] * 16])
    tokens = TokenBatch.of(torch.zeros((2, 16), dtype=torch.long), document_BT)
    kept_BT = selector(torch.ones(32, WIDTH), tokens).kept_NK.view(2, 16)
    stretches = [[1, 1, 0, 0, 0], [1], [1, 1], [1, 1, 0, 0, 0, 0, 0, 0]]
    assert kept_BT[0].int().tolist() == [kept for stretch in stretches for kept in stretch]
    assert kept_BT[1].int().tolist() == [1, 1] + [0] * 14


@pytest.mark.parametrize("parts", [[1] * 16, [5, 1, 10]])
def test_tokens_that_come_one_by_one_are_counted_on(top_k: Selecting, parts: list[int]) -> None:
    selector, cache = top_k(top_k=2, choice=("token", {"capacity_factor": 0.5})), Cache()
    x_BTD, token_BT = torch.randn(3, 16, WIDTH), torch.randint(VOCABULARY, (3, 16))
    whole_BTK = route(selector, x_BTD.flatten(0, 1), token_BT).kept_NK.view(3, 16, 2)
    kept = [
        selector(x_BtD.flatten(0, 1), TokenBatch.of(token_Bt, cache=cache)).kept_NK.view(3, -1, 2)
        for x_BtD, token_Bt in zip(x_BTD.split(parts, 1), token_BT.split(parts, 1), strict=True)
    ]
    assert torch.equal(torch.cat(kept, 1), whole_BTK)
    assert not whole_BTK.all()
