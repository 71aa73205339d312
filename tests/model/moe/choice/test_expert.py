"""Test expert choice against a loop that takes tokens one by one, and the uses that it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.model.conftest import VOCABULARY, WIDTH, Selecting, route

from speciate.model.cache import Cache
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer
from speciate.selection.metrics import collect_metrics
from speciate.selection.selection import record_selections

Build = Callable[..., Transformer]
CHOICE = {"kind": "expert", "non_causal": True}


@pytest.mark.parametrize(("k", "factor", "room"), [(1, 1.0, 2), (2, 1.0, 4), (2, 1.25, 5), (1, 0.6, 2), (8, 2.0, 16)])
def test_equals_taking_the_best_one_after_the_other(top_k: Selecting, k: int, factor: float, room: int) -> None:
    selector = top_k(top_k=k, choice=("expert", {"capacity_factor": factor}))
    with collect_metrics(selector) as meter:
        routing = route(selector)
    probs_BTS = routing.selection.probs_NS.view(4, 16, 8)
    taken_BTS = torch.zeros(4, 16, 8, dtype=torch.bool)
    for block in range(4):
        for slot in range(8):
            left_T = probs_BTS[block, :, slot].detach().clone()
            for _ in range(room):
                best = int(left_T.argmax())
                taken_BTS[block, best, slot] = True
                left_T[best] = -1
    assert torch.equal(routing.kept_NK, taken_BTS.flatten(0, 1))
    assert torch.equal(routing.weight_NK, routing.selection.probs_NS)
    assert routing.slot_NK.tolist() == [list(range(8))] * 64
    count_N = taken_BTS.flatten(0, 1).sum(-1)
    served_N = count_N > 0
    assert torch.equal(routing.selection.token_N, torch.arange(64).where(served_N, -1))
    chosen_NS = routing.selection.chosen_NS
    torch.testing.assert_close(chosen_NS[served_N].sum(-1), torch.ones(int(served_N.sum())))
    assert torch.equal(chosen_NS > 0, routing.kept_NK)
    assert meter.means()["choice", "untaken_share", None] == pytest.approx(1 - float(served_N.double().mean()))


def test_a_layer_is_each_experts_weighted_output_on_its_own_tokens(transformer: Build, moe: Any) -> None:
    layer = transformer(ffn=moe(top_k=2, choice=CHOICE)).blocks[0].ffn
    x_BTD = torch.randn(3, 16, WIDTH, requires_grad=True)
    tokens = TokenBatch.of(torch.zeros((3, 16), dtype=torch.long))
    y_BTD = layer(x_BTD, tokens)
    routing = layer.router(x_BTD.flatten(0, 1), tokens)
    experts, x_ND, rows = layer.experts, x_BTD.flatten(0, 1), []
    for token in range(48):
        row_D = torch.zeros(WIDTH)
        for slot in routing.kept_NK[token].nonzero().flatten().tolist():
            hidden = experts.activation.apply(x_ND[token] @ experts.in_weight[slot] + experts.in_bias[slot])
            output = hidden @ experts.out_weight[slot] + experts.out_bias[slot]
            row_D = row_D + routing.weight_NK[token, slot] * output
        rows.append(row_D)
    expected_BTD = torch.stack(rows).view_as(y_BTD)
    torch.testing.assert_close(y_BTD, expected_BTD)
    assert (y_BTD.flatten(0, 1)[~routing.kept_NK.any(-1)] == 0).all()
    gradient_BTD = torch.randn_like(y_BTD)
    parameters = [x_BTD, *layer.parameters()]
    for actual, by_hand in zip(
        torch.autograd.grad(y_BTD, parameters, gradient_BTD),
        torch.autograd.grad(expected_BTD, parameters, gradient_BTD),
        strict=True,
    ):
        torch.testing.assert_close(actual, by_hand, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_blocks_result_does_not_depend_on_its_batch(transformer: Build, moe: Any) -> None:
    model = transformer(ffn=moe(choice=CHOICE)).eval()
    token_BT = torch.randint(VOCABULARY, (3, 16))
    torch.testing.assert_close(model(token_BT)[1:2], model(token_BT[1:2]))


@torch.no_grad()
def test_it_does_look_ahead(transformer: Build, moe: Any) -> None:
    """Show why expert choice must be allowed explicitly: a later token changes an earlier token's result."""
    model = transformer(ffn=moe(choice=CHOICE)).eval()
    one_BT = torch.randint(VOCABULARY, (8, 16))
    other_BT = one_BT.clone()
    other_BT[:, 12:] = torch.randint(VOCABULARY, (8, 4))
    assert not torch.allclose(model(one_BT)[:, :12], model(other_BT)[:, :12], atol=1e-3)


def test_a_causal_model_refuses_it_unless_it_is_allowed(model_spec: Callable[..., Any], moe: Any) -> None:
    with pytest.raises(
        ValueError, match="choice: expert: whether an expert takes a token depends on the block's later"
    ):
        model_spec(ffn=moe(choice="expert"))
    model_spec(ffn=moe(choice=CHOICE))
    model_spec(ffn=moe(choice="expert"), causal=False)


def test_tokens_that_come_one_by_one_are_refused(top_k: Selecting) -> None:
    with pytest.raises(
        ValueError, match="choice: expert: chooses among the tokens of a whole block; it cannot generate"
    ):
        top_k(choice="expert")(
            torch.randn(1, WIDTH), TokenBatch.of(torch.zeros((1, 1), dtype=torch.long), cache=Cache())
        )


def test_padding_is_taken_by_none_and_no_decision_is_about_it(top_k: Selecting) -> None:
    selector = top_k(choice="expert")
    tokens = TokenBatch.of(torch.zeros((1, 8), dtype=torch.long))
    tokens = tokens.select(torch.arange(8).expand(1, -1), torch.arange(8).unsqueeze(0) < 1)
    with record_selections(selector) as record:
        routing = selector(torch.randn(8, WIDTH), tokens)
    assert routing.kept_NK.nonzero().tolist() == [[0, slot] for slot in range(8)]
    assert record[""].token_N.tolist() == [0]
