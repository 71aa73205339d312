"""Test the top-k router: its choice, weights, losses and Selection."""

import math

import pytest
import torch
from tests.model.conftest import VOCABULARY, WIDTH, Selecting, route
from torch import nn
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from speciate.config.components import component_module, options_of
from speciate.model.moe.top_k_router import load_balancing_loss, normalised_weights, z_loss
from speciate.model.token_batch import TokenBatch
from speciate.selection.metrics import collect_metrics


def test_top_1_weight_is_exactly_one_and_carries_the_probabilitys_gradient() -> None:
    probability_NK = torch.rand(1000, 1, requires_grad=True)
    weight_NK = normalised_weights(probability_NK)
    assert torch.equal(weight_NK, torch.ones(1000, 1))
    weight_NK.sum().backward()
    assert torch.equal(probability_NK.grad, torch.ones(1000, 1))


def test_more_weights_are_the_probabilities_renormalised() -> None:
    torch.testing.assert_close(
        normalised_weights(torch.tensor([[0.3, 0.1], [0.2, 0.2]])), torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    )


def test_the_margin_is_between_the_last_choice_and_the_next(top_k: Selecting) -> None:
    selector = top_k("learned", top_k=2).eval()
    with collect_metrics(selector) as collector:
        routing = route(selector)
    sorted_NS = routing.selection.probs_NS.sort(dim=-1, descending=True).values
    expected = float((sorted_NS[:, 1] - sorted_NS[:, 2]).detach().mean())
    # of a softmax, a difference of logits is the log of a ratio of probabilities
    logits = float((sorted_NS[:, 1] / sorted_NS[:, 2]).log().detach().mean())
    assert collector.means() == {
        ("", "routing_margin", None): pytest.approx(expected, rel=1e-6),
        ("", "logit_margin", None): pytest.approx(logits, rel=1e-5),
    }
    everything = top_k("learned", top_k=8)
    with collect_metrics(everything) as collector:
        route(everything)
    assert collector.means() == {}


def test_a_sigmoid_router_has_the_margin_of_its_logits_and_a_hash_none(top_k: Selecting) -> None:
    selector = top_k(("learned", {"gate": "sigmoid"}), top_k=1).eval()
    x_ND = torch.randn(64, WIDTH)
    with collect_metrics(selector) as collector:
        routing = route(selector, x_ND)
    margins = []
    for logits_S in (x_ND @ selector.scorer.weight.T).tolist():
        best = sorted(logits_S, reverse=True)
        margins.append(best[0] - best[1])
    assert collector.means()["", "logit_margin", None] == pytest.approx(sum(margins) / len(margins), rel=1e-4)
    assert len(margins) == len(routing.slot_NK)
    fixed = top_k("hash", top_k=1)
    with collect_metrics(fixed) as collector:
        route(fixed)
    assert collector.means() == {("", "routing_margin", None): 1.0}


@pytest.mark.parametrize("k", [1, 2, 8])
@pytest.mark.parametrize("router", ["learned", "frozen"])
def test_the_report_is_what_happened(top_k: Selecting, router: str, k: int) -> None:
    routing = route(top_k(router, top_k=k))
    selection = routing.selection
    best_NK = selection.probs_NS.sort(dim=-1, descending=True).indices[:, :k]
    assert torch.equal(routing.slot_NK, best_NK)
    assert torch.equal(selection.chosen_NS > 0, torch.zeros(64, 8).scatter(1, best_NK, 1.0) > 0)
    for rows_NS in (selection.probs_NS, selection.chosen_NS, selection.null_NS, routing.weight_NK):
        torch.testing.assert_close(rows_NS.sum(-1), torch.ones(len(rows_NS)))
    assert torch.equal(selection.null_NS, torch.full((1, 8), 1 / 8))
    assert not selection.chosen_NS.requires_grad
    assert selection.loss.shape == ()


def test_decisions_are_named_by_the_tokens_they_are_about(top_k: Selecting) -> None:
    tokens = TokenBatch.of(torch.randint(VOCABULARY, (2, 6))).select(torch.tensor([[0, 4], [1, 5]]))
    selection = top_k()(torch.randn(4, WIDTH), tokens).selection
    assert selection.token_N.tolist() == [0, 4, 7, 11]


def test_balancing_loss_by_hand() -> None:
    probs_NS = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    chosen_NS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    # f = (3/4, 1/4), P = (.6, .4): 2 (.45 + .1)
    assert load_balancing_loss(probs_NS, chosen_NS).item() == pytest.approx(1.1)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_balancing_loss_is_transformers_divided_by_k(top_k: Selecting, k: int) -> None:
    selector, x_ND = top_k(balance=("auxiliary", {"weight": 0.25}), top_k=k), torch.randn(64, WIDTH)
    hf_loss = load_balancing_loss_func((x_ND @ selector.scorer.weight.T,), num_experts=8, top_k=k)
    torch.testing.assert_close(route(selector, x_ND).selection.loss, 0.25 * hf_loss / k)


def test_balancing_loss_at_uniform_and_at_collapsed_load() -> None:
    uniform_NS, one_hot_NS = torch.full((8, 8), 1 / 8), torch.eye(8)
    assert load_balancing_loss(uniform_NS, one_hot_NS).item() == pytest.approx(1.0)
    collapsed_NS = torch.zeros(8, 8).index_fill_(1, torch.tensor([3]), 1.0)
    assert load_balancing_loss(collapsed_NS, collapsed_NS).item() == pytest.approx(8.0)
    # this is why the loss does not measure collapse
    assert load_balancing_loss(uniform_NS, collapsed_NS).item() == pytest.approx(1.0)


def test_z_loss_at_zero_logits(top_k: Selecting) -> None:
    assert z_loss(torch.zeros(5, 8)).item() == pytest.approx(math.log(8) ** 2)
    selector = top_k(z_weight=0.001)
    nn.init.zeros_(selector.scorer.weight)
    assert route(selector).selection.loss.item() == pytest.approx(0.001 * 4.324, rel=1e-3)


def test_only_a_router_that_learns_has_losses(top_k: Selecting) -> None:
    for router in ("frozen", "hash"):
        assert route(top_k(router, z_weight=1.0)).selection.loss.item() == 0


def test_noise_is_there_in_training_alone_and_gone_in_time(top_k: Selecting) -> None:
    selector, x_ND = top_k(("learned", {"noise_std": 2.0, "noise_until": 0.25})), torch.randn(64, WIDTH)
    quiet = route(selector.eval(), x_ND)
    assert torch.equal(quiet.slot_NK, route(selector, x_ND).slot_NK)
    selector.train()
    noisy = [route(selector, x_ND) for _ in range(2)]
    assert not torch.equal(noisy[0].slot_NK, noisy[1].slot_NK)
    for routing in noisy:
        assert torch.equal(routing.selection.probs_NS, quiet.selection.probs_NS)
    moved = []
    for progress in (0.0, 0.125, 0.2499, 0.25, 0.9):
        selector.before_update(progress)
        moved.append(selector.scorer.noise_std)
    assert moved == pytest.approx([2.0, 1.0, 0.0008, 0.0, 0.0])
    assert torch.equal(route(selector, x_ND).slot_NK, quiet.slot_NK)


def test_bias_moves_by_hand_over_all_micro_batches_and_changes_the_choice_alone(top_k: Selecting) -> None:
    selector = top_k(balance=("bias", {"rate": 0.01}))
    loads_S = torch.zeros(8)
    for _ in range(3):
        loads_S += route(selector).selection.chosen_NS.sum(0)
    route(selector.eval())  # an observer's forward pass is not counted
    selector.after_update()
    mean = 3 * 64 / 8
    expected = [0.01 if load < mean else -0.01 if load > mean else 0.0 for load in loads_S.tolist()]
    assert selector.balance.bias_S.tolist() == pytest.approx(expected)
    assert not selector.balance.load_S.any()
    x_ND = torch.randn(64, WIDTH)
    selector.balance.bias_S.zero_()[5] = 10.0
    biased = route(selector, x_ND)
    assert (biased.slot_NK == 5).all()
    plain = x_ND @ selector.scorer.weight.T
    torch.testing.assert_close(biased.selection.probs_NS, plain.softmax(-1))
    assert selector.state_dict().keys() == {"scorer.weight", "balance.bias_S", "balance.load_S"}


def test_bias_weights_are_made_of_the_probabilities(top_k: Selecting) -> None:
    selector = top_k(balance="bias", top_k=2)
    selector.balance.bias_S[:2] = 10.0
    routing = route(selector)
    assert routing.slot_NK.sort(dim=-1).values.unique(dim=0).tolist() == [[0, 1]]
    probability_NK = routing.selection.probs_NS.gather(1, routing.slot_NK)
    torch.testing.assert_close(routing.weight_NK, probability_NK / probability_NK.sum(-1, keepdim=True))


def test_bias_brings_a_skewed_router_into_balance(top_k: Selecting) -> None:
    selector = top_k(balance=("bias", {"rate": 0.01}))
    x_ND = torch.randn(512, WIDTH) + 0.7 * selector.scorer.weight.detach()[2]
    token_BT = torch.zeros((4, 128), dtype=torch.long)

    def max_violation() -> float:
        return 8 * route(selector, x_ND, token_BT).selection.chosen_NS.mean(0).max().item() - 1

    before = max_violation()
    for _ in range(200):
        route(selector, x_ND, token_BT)
        selector.after_update()
    assert before > 2
    assert max_violation() < 0.5


def test_a_frozen_router_learns_nothing_and_teaches_nothing(top_k: Selecting) -> None:
    selector = top_k("frozen", top_k=2)
    x_ND = torch.randn(64, WIDTH, requires_grad=True)
    routing = route(selector, x_ND)
    assert not list(selector.parameters())
    assert not routing.weight_NK.requires_grad
    assert "scorer.weight" in selector.state_dict()


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_a_frozen_routers_logits_have_the_scale_it_is_given(top_k: Selecting, scale: float) -> None:
    logits = []
    for _ in range(40):
        selector = top_k(("frozen", {"logit_std": 1.7}))
        log_NS = route(selector, scale * torch.randn(64, WIDTH)).selection.probs_NS.log()
        # logits are known up to a constant per token, which removes one of the 8 degrees of freedom
        logits.append((log_NS - log_NS.mean(-1, keepdim=True)).square().sum() / (64 * 7))
    assert torch.stack(logits).mean().sqrt().item() == pytest.approx(1.7, rel=0.05)


def test_hash_deals_the_vocabulary_evenly_by_seed_and_layer(top_k: Selecting) -> None:
    every_id_BT = torch.arange(VOCABULARY).unsqueeze(0)

    def dealt(seed: int, layer: int = 0) -> list[int]:
        routing = route(top_k(("hash", {"seed": seed}), layer=layer), torch.randn(VOCABULARY, WIDTH), every_id_BT)
        assert torch.equal(routing.selection.probs_NS, routing.selection.chosen_NS)
        return [int(slot) for slot in routing.slot_NK.flatten()]

    assert sorted(torch.tensor(dealt(0)).bincount().tolist()) == [6] * 6 + [7] * 2
    assert dealt(0) == dealt(0)
    assert dealt(0) != dealt(1)
    assert dealt(0) != dealt(0, layer=1)


def test_hash_looks_at_the_id_alone(top_k: Selecting) -> None:
    selector = top_k("hash")
    token_BT = torch.randint(VOCABULARY, (4, 16))
    assert torch.equal(route(selector, None, token_BT).slot_NK, route(selector, None, token_BT).slot_NK)


def test_routing_is_in_full_precision_under_autocast(top_k: Selecting) -> None:
    selector, x_ND = top_k(), torch.randn(64, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        low = route(selector, x_ND)
    assert torch.equal(low.selection.probs_NS, route(selector, x_ND).selection.probs_NS)
    assert component_module(options_of("model/moe/router", "learned")(kind="learned")).Router is type(selector.scorer)
