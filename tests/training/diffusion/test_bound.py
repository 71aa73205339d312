"""Test the uniform-mask bound on a toy with few enough texts, masks and orders to sum over them all."""

import math
from collections.abc import Callable

import pytest
import torch
from tests.training import toy
from torch import Tensor

from speciate.config.components import component_module, options_of
from speciate.training.diffusion import mask_probabilities, mdlm

Noise = Callable[[Tensor], tuple[Tensor, Tensor]]
POWER = {
    "identity": torch.tensor([0.4, 1.0, 2.5], dtype=torch.float64)[toy.TEXT_XT],
    "position": torch.tensor([1, 0.5, 2.0, 1.0, 1.7], dtype=torch.float64).expand_as(toy.TEXT_XT),
    "context": torch.empty(81, 5, dtype=torch.float64).uniform_(0.3, 3, generator=torch.Generator().manual_seed(1)),
}
"""Exponents that depend on a token's identity, on its position, and on the whole text."""


def schedule(kind: str, **settings: object) -> Noise:
    options = options_of("training/diffusion/noise", kind)(kind=kind, **settings)
    return lambda uniform_B: component_module(options).mask_share(options, uniform_B)


def uniform(share_X: Tensor) -> tuple[Tensor, Tensor]:
    return mask_probabilities.uniform_probs(toy.MASKABLE_XT, share_X)


@pytest.fixture(scope="module")
def nats() -> Tensor:
    return toy.table(toy.denoiser())


@pytest.fixture(scope="module")
def oracle() -> toy.Oracle:
    return toy.Oracle(toy.data())


def entropy(probs_X: Tensor) -> Tensor:
    return -probs_X.xlogy(probs_X).sum()


def test_all_orders_are_the_closed_form_over_sets(nats: Tensor) -> None:
    torch.testing.assert_close(toy.orders(nats).mean(1), toy.subsets(nats), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_integral_over_either_schedule_is_the_closed_form(nats: Tensor, kind: str) -> None:
    estimate = toy.expected(nats, uniform, toy.nodes(24), schedule(kind))
    torch.testing.assert_close(estimate, toy.subsets(nats), rtol=1e-10, atol=0)


def test_so_is_that_over_straight_pieces(nats: Tensor) -> None:
    noise = schedule("points", points=[[0, 0], [0.25, 0.75], [1, 1]])
    steps = [(0.25 * at, 0.25 * weight) for at, weight in toy.nodes(8)]
    steps += [(0.25 + 0.75 * at, 0.75 * weight) for at, weight in toy.nodes(8)]
    torch.testing.assert_close(toy.expected(nats, uniform, steps, noise), toy.subsets(nats), rtol=1e-10, atol=0)


def test_mdlms_eps_leaves_out_a_thousandth_of_the_bound(nats: Tensor) -> None:
    estimate = toy.expected(nats, uniform, toy.nodes(100, 3), schedule("linear", eps=1e-3))
    off = float(estimate.mean() / toy.subsets(nats).mean() - 1)
    assert -0.0015 < off < -0.0007


def test_it_is_an_upper_bound_on_the_nats_of_a_model_that_sums_to_one(nats: Tensor) -> None:
    orders_XO = toy.orders(nats)
    exact_X = math.log(orders_XO.shape[1]) - torch.logsumexp(-orders_XO, 1)
    bound_X = toy.subsets(nats)
    torch.testing.assert_close((-exact_X).exp().sum(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-12, atol=0)
    assert (exact_X < bound_X).all()
    assert (-bound_X).exp().sum() < 0.5


def test_of_who_knows_the_data_it_is_their_entropy(oracle: toy.Oracle) -> None:
    bound = (oracle.probs_X * toy.subsets(oracle.nats_XST)).sum()
    torch.testing.assert_close(bound, entropy(oracle.probs_X), rtol=1e-12, atol=0)


def test_discrete_times_come_near_it(nats: Tensor) -> None:
    def off(num: int) -> float:
        steps = [(step / num, 1 / num) for step in range(1, num + 1)]
        return float((toy.expected(nats, uniform, steps, schedule("linear")) - toy.subsets(nats)).mean())

    # the bound need not be monotone for every network, so compare only the ends
    assert abs(off(256)) < abs(off(4)) / 20
    assert abs(off(256)) < 0.01


@pytest.mark.parametrize("depends_on", POWER)
def test_importance_weighed_by_its_own_clock_gives_the_entropy_of_who_knows_the_data(
    oracle: toy.Oracle, depends_on: str
) -> None:
    """Whatever the rates depend on, given the text they only choose among orders, and each order gives -log p(x)."""

    def rate(share_X: Tensor) -> tuple[Tensor, Tensor]:
        return mask_probabilities.power_probs(POWER[depends_on], toy.MASKABLE_XT, share_X)

    found_X = toy.expected(oracle.nats_XST, rate, toy.nodes(80, 6), schedule("linear"))
    torch.testing.assert_close(found_X, -oracle.probs_X.log(), rtol=1e-8, atol=0)


@pytest.mark.parametrize("depends_on", POWER)
def test_the_weight_1_over_t_for_all_goes_below_the_entropy(oracle: toy.Oracle, depends_on: str) -> None:
    def rate(share_X: Tensor) -> tuple[Tensor, Tensor]:
        prob_XT, _ = mask_probabilities.power_probs(POWER[depends_on], toy.MASKABLE_XT, share_X)
        return prob_XT, (1 / share_X).unsqueeze(1).expand_as(prob_XT)

    estimate = (oracle.probs_X * toy.expected(oracle.nats_XST, rate, toy.nodes(40, 4), schedule("linear"))).sum()
    assert estimate < entropy(oracle.probs_X) - 0.02


def best_on_its_own_masks(probs_X: Tensor, rate: toy.Rate) -> Tensor:
    """Return the smallest training loss of any denoiser: it knows how often each word occurs under these masks."""
    total, steps = torch.zeros((), dtype=torch.float64), []
    for share, step in toy.nodes(40, 4):
        prob_XT, rate_XT = rate(torch.full_like(probs_X, share))
        steps.append(step * probs_X[:, None, None] * toy.chances(prob_XT).unsqueeze(2) * rate_XT.unsqueeze(1))
    weight_XST = torch.stack(steps).sum(0)
    for masks, masked_T in enumerate(toy.SET_ST):
        agree_XX = (toy.TEXT_XT.unsqueeze(1) == toy.TEXT_XT)[..., ~masked_T].all(-1).double()
        for position in masked_T.nonzero().flatten().tolist():
            weight_X = weight_XST[:, masks, position]
            same_XX = agree_XX * (toy.TEXT_XT[:, position].unsqueeze(1) == toy.TEXT_XT[:, position])
            total += -(weight_X * ((same_XX @ weight_X) / (agree_XX @ weight_X)).log()).sum()
    return total


@pytest.mark.parametrize(("depends_on", "below"), [("identity", 0.39), ("context", 0.17), ("position", 0.0)])
def test_where_the_masks_tell_of_the_text_the_loss_is_no_bound(
    oracle: toy.Oracle, depends_on: str, below: float
) -> None:
    """A model trained on its own masks may go below the entropy, so every arm is scored with the same uniform masks."""
    exponent_XT = POWER[depends_on]
    best = best_on_its_own_masks(
        oracle.probs_X, lambda share_X: mask_probabilities.power_probs(exponent_XT, toy.MASKABLE_XT, share_X)
    )
    assert abs(entropy(oracle.probs_X) - best - below) < 0.01


def test_the_fixed_masks_of_the_evaluation_are_unbiased(nats: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the hash by every order of the tokens and every point of a stratum: the result is exactly the bound."""
    index_of = {tuple(masked_T.tolist()): index for index, masked_T in enumerate(toy.SET_ST)}
    texts, num_pairs, inside = torch.arange(81), 2, (torch.arange(8) + 0.5) / 8
    orders = [
        torch.tensor(order, dtype=torch.float64) for order in torch.cartesian_prod(*[torch.arange(4)] * 4).tolist()
    ]
    orders = [order_L for order_L in orders if len(order_L.unique()) == 4]
    total_X = torch.zeros(81, dtype=torch.float64)
    for order_L in orders:
        for within in inside.tolist():
            order_T = torch.cat([torch.zeros(1, dtype=torch.float64), order_L / 4])
            draws = (order_T.expand(81, 5), torch.full((81, 5), within, dtype=torch.float64))
            monkeypatch.setattr(mdlm, "uniforms", lambda token_BT, key, draws=draws: draws[key % 2])
            for pair in range(num_pairs):
                for masked_XT, count_X in mdlm.antithetic_masks(toy.TEXT_XT, toy.MASKABLE_XT, pair, num_pairs):
                    assert (masked_XT.sum(1) == count_X).all()
                    assert not masked_XT[:, 0].any()
                    index = index_of[tuple(masked_XT[0].tolist())]
                    total_X += 4 / count_X.double() * nats[texts, index].sum(1) / 2 / num_pairs
    torch.testing.assert_close(total_X / len(orders) / len(inside), toy.subsets(nats), rtol=1e-10, atol=0)


def test_the_two_masks_of_a_pair_cover_the_block() -> None:
    token_BT = torch.randint(50, (6, 17), generator=torch.Generator().manual_seed(0))
    maskable_BT = torch.ones_like(token_BT, dtype=torch.bool)
    maskable_BT[:, 0] = maskable_BT[1, 5] = False
    for pair in range(4):
        (first_BT, first_B), (second_BT, second_B) = mdlm.antithetic_masks(token_BT, maskable_BT, pair, 4)
        assert ((first_BT | second_BT) == maskable_BT).all()
        assert ((first_BT & second_BT).sum(1) == 1).all()
        assert (first_B + second_B == maskable_BT.sum(1) + 1).all()
        assert (first_B <= (maskable_BT.sum(1) + 1) // 2).all()
