"""Test Mixture-of-Depths as moe_arch released it: mean weight 1/k in training, every token at full weight after it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer, count_parameters
from speciate.selection.metrics import collect_metrics
from speciate.selection.selection import auxiliary_loss, record_selections

Build = Callable[..., Transformer]
DENSE = {"kind": "dense", "hidden": 40}


@pytest.fixture
def built(transformer: Build) -> Build:
    def build(depth: Any = "mod_published", ffn: dict[str, Any] = DENSE, **changes: Any) -> Transformer:
        block = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": ffn, "depth": depth}
        return transformer(block=block, **changes).double()

    return build


def test_in_training_the_chosen_share_one_feed_forward_layer(built: Build) -> None:
    model = built()
    block, x_BTD = model.blocks[0], torch.randn(2, 16, 24, dtype=torch.float64)
    tokens = TokenBatch.of(torch.randint(50, (2, 16)))
    found_BTD = block(x_BTD, tokens)
    h_BTD = x_BTD + block.mixer(block.mixer_norm(x_BTD), tokens)
    centred_BTD = h_BTD - h_BTD.mean(-1, keepdim=True)
    normed_BTD = centred_BTD / (centred_BTD.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    logit_BT = (normed_BTD @ block.depth.router.scorer.weight[0]).detach()
    for row in range(2):
        column_K = logit_BT[row].topk(12).indices
        weight_K = logit_BT[row, column_K].exp() / logit_BT[row, column_K].exp().sum()
        assert float(weight_K.mean()) == pytest.approx(1 / 12, rel=1e-14)
        expected_TD = h_BTD[row].clone()
        fed_KD = block.ffn(block.ffn_norm(h_BTD[row, column_K]), tokens)
        expected_TD[column_K] += weight_K[:, None] * fed_KD
        torch.testing.assert_close(found_BTD[row], expected_TD, rtol=1e-12, atol=1e-12)


def test_in_evaluation_it_is_the_plain_block(built: Build) -> None:
    model, plain = built().eval(), built("every")
    missing, over = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing and all(".depth.router." in name for name in over)
    token_BT = torch.randint(50, (2, 16))
    with record_selections(model) as record:
        assert torch.equal(model(token_BT), plain(token_BT))
    selection = record["blocks.0.depth.router"]
    assert selection.chosen_NS.tolist() == selection.probs_NS.tolist() == [[0.0, 1.0]] * 32
    assert selection.null_NS.tolist() == [[0.25, 0.75]]


def test_the_predictor_is_trained_and_never_asked(built: Build) -> None:
    model = built()
    token_BT = torch.randint(50, (2, 16))
    with record_selections(model) as record:
        logits = model(token_BT)
    auxiliary_loss(record).backward(retain_graph=True)
    reached = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert reached == {name for name, _ in model.named_parameters() if ".predictor." in name}
    model.zero_grad()
    logits.square().sum().backward()
    assert model.blocks[0].depth.router.scorer.weight.grad.abs().max() > 0
    assert model.blocks[0].depth.router.predictor.up.weight.grad is None
    before = model.eval()(token_BT)
    for block in model.blocks:
        torch.nn.init.normal_(block.depth.router.predictor.down.weight, std=10)
        torch.nn.init.normal_(block.depth.router.scorer.weight, std=10)
    assert torch.equal(model(token_BT), before)


def test_training_and_evaluation_compute_different_things_and_say_so(built: Build) -> None:
    model = built(num_layers=4)
    token_BT = torch.randint(50, (4, 16))
    with torch.no_grad(), collect_metrics(model) as meter:
        trained = model(token_BT)
        evaluated = model.eval()(token_BT)
    metrics = {name: value for (path, name, _), value in meter.means().items() if path == "blocks.3.depth.router"}
    assert metrics["agreement"] == 0.75
    assert metrics["capacity"] == 1.0
    assert 0 <= metrics["predictor_agreement"] <= 1
    assert metrics["train_eval_difference"] > 0.3
    # relative to the logits, so the scale of the weights does not matter: the difference is more than half of them
    assert float(((trained - evaluated).norm() / evaluated.norm()).detach()) > 0.5


def test_capacity_1_is_still_not_the_plain_block(built: Build) -> None:
    model = built({"kind": "mod_published", "capacity": 1.0})
    token_BT = torch.randint(50, (2, 16))
    assert not torch.allclose(model(token_BT), model.eval()(token_BT), rtol=1e-3)


def test_a_selector_inside_decides_about_the_chosen_alone(built: Build, moe: Callable[..., dict[str, Any]]) -> None:
    model = built(ffn=moe())
    with record_selections(model) as record:
        model(torch.randint(50, (2, 16)))
    outer, inner = record["blocks.1.depth.router"], record["blocks.1.ffn.router"]
    assert sorted(inner.token_N.tolist()) == outer.token_N[outer.chosen_NS[:, 1] == 1].tolist()
    assert len(inner.token_N) == 24


def test_only_the_feed_forward_layer_is_left_idle(built: Build) -> None:
    total, active = count_parameters(built())
    assert total - active == 2 * round(0.25 * (48 + 24 * 40 + 40 + 40 * 24 + 24))
