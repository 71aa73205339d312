"""Test the oracle router's slots, and that domains reach it in training, observation and evaluation."""

import pytest
import torch
from tests.model.conftest import VOCABULARY, WIDTH, Selecting, route

from speciate.model.token_batch import TokenBatch, in_domains

EVERY_ID_BT = torch.arange(VOCABULARY).expand(3, -1)


def test_a_domain_has_the_slots_that_leave_it_as_remainder_dealt_evenly(top_k: Selecting) -> None:
    selector = top_k(("oracle", {"domains": 3}))
    with in_domains(torch.tensor([2, 0, 1])):
        routing = route(selector, torch.randn(3 * VOCABULARY, WIDTH), EVERY_ID_BT)
    of_domain = dict(zip([2, 0, 1], routing.slot_NK.view(3, VOCABULARY), strict=True))
    for domain, slots in {0: [0, 3, 6], 1: [1, 4, 7], 2: [2, 5]}.items():
        counts = of_domain[domain].bincount(minlength=8)
        assert counts.nonzero().flatten().tolist() == slots
        assert max(counts[slots]) - min(counts[slots]) <= 1
    assert torch.equal(routing.selection.probs_NS, routing.selection.chosen_NS)
    assert not list(selector.parameters())


def test_the_deal_within_a_domain_differs_by_seed_and_layer(top_k: Selecting) -> None:
    def dealt(seed: int = 0, layer: int = 0) -> list[int]:
        with in_domains(torch.tensor([0, 1, 2])):
            selector = top_k(("oracle", {"domains": 3, "seed": seed}), layer=layer)
            return [int(slot) for slot in route(selector, None, EVERY_ID_BT).slot_NK]

    assert dealt() == dealt()
    assert len({tuple(dealt()), tuple(dealt(seed=1)), tuple(dealt(layer=1))}) == 3


def test_text_of_no_known_domain_is_refused(top_k: Selecting) -> None:
    selector = top_k(("oracle", {"domains": 3}))
    with pytest.raises(
        ValueError, match="router: oracle needs the domain of every text, and the domain of this one is unknown"
    ):
        route(selector)
    with (
        pytest.raises(ValueError, match="oracle: domains is 3, but the tokens come from more domains"),
        in_domains(torch.ones(4).long() * 3),
    ):
        route(selector)


def test_domains_go_with_the_tokens_of_their_own_blocks_alone() -> None:
    token_BT = torch.randint(VOCABULARY, (2, 6))
    with in_domains(torch.tensor([1, 0])):
        tokens = TokenBatch.of(token_BT)
        assert tokens.domain_BT.tolist() == [[1] * 6, [0] * 6]
        assert tokens.select(torch.tensor([[0, 4], [1, 5]])).domain_BT.tolist() == [[1, 1], [0, 0]]
        assert TokenBatch.of(token_BT, torch.zeros_like(token_BT)).domain_BT.tolist() == [[1] * 6, [0] * 6]
        assert TokenBatch.of(token_BT[:1]).domain_BT is None
    assert TokenBatch.of(token_BT).domain_BT is None
