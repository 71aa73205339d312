"""Test the learned router against transformers' routers with the same weights, and its noise by hand."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.model.conftest import WIDTH, Selecting, route
from torch import nn
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.olmoe.modeling_olmoe import OlmoeTopKRouter

from speciate.config.components import options_of

SHAPE = {"num_experts_per_tok": 3, "num_experts": 8, "num_local_experts": 8, "hidden_size": WIDTH}
GROUPS = {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0}


@pytest.mark.parametrize("normal", [True, False])
@pytest.mark.parametrize("theirs", [DeepseekV3TopkRouter, OlmoeTopKRouter])
def test_equals_transformers(top_k: Selecting, theirs: Any, normal: bool) -> None:
    """Compare with DeepSeek-V3 (sigmoid gates, a bias that only the choice sees) and OLMoE (softmax)."""
    deepseek = theirs is DeepseekV3TopkRouter
    peer = theirs(SimpleNamespace(**SHAPE, **GROUPS, norm_topk_prob=normal))
    ours = top_k(
        ("learned", {"gate": "sigmoid" if deepseek else "softmax"}),
        "bias" if deepseek else "none",
        top_k=3,
        choice=("token", {"renormalise": normal}),
    )
    nn.init.normal_(peer.weight, std=0.5)
    ours.scorer.weight = peer.weight
    if deepseek:
        ours.balance.bias_S.normal_(std=0.2)
        peer.e_score_correction_bias = ours.balance.bias_S
    x_ND = torch.randn(64, WIDTH)
    _, weight_NK, slot_NK = peer(x_ND)
    routing = route(ours, x_ND)
    order_NK, their_order_NK = routing.slot_NK.argsort(-1), slot_NK.argsort(-1)
    assert torch.equal(routing.slot_NK.gather(1, order_NK), slot_NK.gather(1, their_order_NK))
    torch.testing.assert_close(routing.weight_NK.gather(1, order_NK), weight_NK.gather(1, their_order_NK))
    gradient_NK = torch.randn(64, 3)
    (actual,) = torch.autograd.grad(routing.weight_NK.gather(1, order_NK), ours.scorer.weight, gradient_NK)
    (their,) = torch.autograd.grad(weight_NK.gather(1, their_order_NK), peer.weight, gradient_NK)
    torch.testing.assert_close(actual, their)


def test_an_mlp_is_two_matrices_around_silu(top_k: Selecting) -> None:
    ours = top_k(("learned", {"shape": "mlp", "hidden": 10}), top_k=2)
    peer = nn.Sequential(nn.Linear(WIDTH, 10, bias=False), nn.SiLU(), nn.Linear(10, 8, bias=False), nn.Softmax(-1))
    peer.load_state_dict({"0.weight": ours.scorer.hidden_weight, "2.weight": ours.scorer.weight})
    x_ND = torch.randn(64, WIDTH)
    routing = route(ours, x_ND)
    torch.testing.assert_close(routing.selection.probs_NS, peer(x_ND))
    (routing.weight_NK * torch.randn(64, 2)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in ours.parameters())


def test_sigmoid_probabilities_are_the_gates_shares_and_one_slot_weighs_one(top_k: Selecting) -> None:
    ours, x_ND = top_k(("learned", {"gate": "sigmoid"})), torch.randn(64, WIDTH)
    routing = route(ours, x_ND)
    gate_NS = torch.sigmoid(x_ND @ ours.scorer.weight.T)
    torch.testing.assert_close(routing.selection.probs_NS, gate_NS / gate_NS.sum(-1, keepdim=True))
    assert torch.equal(routing.weight_NK, torch.ones(64, 1))
    (actual,) = torch.autograd.grad(routing.weight_NK.sum(), ours.scorer.weight)
    (by_hand,) = torch.autograd.grad(gate_NS.max(-1).values.sum(), ours.scorer.weight)
    torch.testing.assert_close(actual, by_hand)


def test_learned_noise_by_hand(top_k: Selecting) -> None:
    ours, x_ND = top_k(("learned", {"noise": "learned"}), top_k=2), torch.randn(64, WIDTH)
    assert not ours.scorer.noise_weight.any()
    nn.init.normal_(ours.scorer.noise_weight)
    torch.manual_seed(3)
    routing = route(ours, x_ND)
    torch.manual_seed(3)
    torch.randint(50, (4, 16))
    logits_NS = x_ND @ ours.scorer.weight.T
    noisy_NS = logits_NS + F.softplus(x_ND @ ours.scorer.noise_weight.T) * torch.randn(64, 8)
    best = noisy_NS.topk(2)
    assert torch.equal(routing.slot_NK, best.indices)
    torch.testing.assert_close(routing.weight_NK, best.values.softmax(-1))
    torch.testing.assert_close(routing.selection.probs_NS, logits_NS.softmax(-1))
    routing.weight_NK[:, 0].sum().backward()
    assert ours.scorer.noise_weight.grad.abs().sum() > 0


def test_learned_noise_begins_at_ln_2_never_ends_and_is_not_in_evaluation(top_k: Selecting) -> None:
    ours, x_ND = top_k(("learned", {"noise": "learned"})), torch.zeros(64, WIDTH)
    ours.before_update(0.99)
    noise_NS = torch.stack([ours.scorer(x_ND, None).noisy_NS.detach().log() for _ in range(200)])
    noise_NS = noise_NS - noise_NS.mean(-1, keepdim=True)
    assert float(noise_NS.square().sum() / (200 * 64 * 7)) ** 0.5 == pytest.approx(math.log(2), rel=0.02)
    scores = ours.eval().scorer(x_ND, None)
    assert scores.noisy_NS is scores.probs_NS


def test_two_noises_at_once_are_refused() -> None:
    learned = options_of("model/moe/router", "learned")
    with pytest.raises(ValueError, match=r"noise_std: 0.1 is for annealed noise; learned noise learns its scale"):
        learned.model_validate({"kind": "learned", "noise": "learned", "noise_std": 0.1})
