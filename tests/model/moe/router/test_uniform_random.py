"""Test the uniformly random router by the frequencies of its choices."""

import pytest
import torch
from tests.model.conftest import VOCABULARY, WIDTH, Selecting, route

from speciate.model.cache import Cache
from speciate.model.token_batch import TokenBatch


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("k", [1, 2])
def test_every_set_of_slots_is_as_likely(top_k: Selecting, training: bool, k: int) -> None:
    selector = top_k("uniform_random", top_k=k).train(training)
    token_BT = torch.randint(2, (100, 64))
    routing = route(selector, torch.zeros(6400, WIDTH), token_BT)
    assert (routing.slot_NK.sort(-1).values.diff() > 0).all()
    counts = routing.slot_NK.flatten().bincount(minlength=8).double()
    expected = 6400 * k / 8
    # chi-squared with 7 degrees of freedom exceeds 24.3 once in a thousand
    assert float(((counts - expected) ** 2).sum() / expected) < 24.3
    joint = (8 * routing.slot_NK[:-1, 0] + routing.slot_NK[1:, 0]).bincount(minlength=64).double()
    # neighbouring choices are independent; 63 degrees of freedom
    assert float(((joint - joint.mean()) ** 2).sum() / joint.mean()) < 104
    assert torch.equal(routing.selection.probs_NS, torch.full((6400, 8), 1 / 8))
    torch.testing.assert_close(routing.weight_NK, torch.full((6400, k), 1 / k))


def test_it_is_new_each_time_in_training_and_the_same_in_evaluation(top_k: Selecting) -> None:
    selector = top_k("uniform_random")
    token_BT = torch.randint(VOCABULARY, (4, 16))
    assert not torch.equal(route(selector, None, token_BT).slot_NK, route(selector, None, token_BT).slot_NK)
    selector.eval()
    slot_BT = route(selector, None, token_BT).slot_NK.view(4, 16)
    assert torch.equal(route(selector, None, token_BT).slot_NK.view(4, 16), slot_BT)  # with other x
    for row in range(4):
        assert torch.equal(route(selector, None, token_BT[row : row + 1, :9]).slot_NK.flatten(), slot_BT[row, :9])
    assert not torch.equal(
        route(selector, None, token_BT).slot_NK, route(top_k("uniform_random", layer=1).eval()).slot_NK
    )


def test_a_token_id_has_no_slots_of_its_own(top_k: Selecting) -> None:
    selector = top_k("uniform_random").eval()
    token_BT = torch.randint(4, (400, 16))
    token_BT[:, 7] = 3
    slot_BT = route(selector, torch.zeros(6400, WIDTH), token_BT).slot_NK.view(400, 16)
    count_S = slot_BT[:, 7].bincount(minlength=8).double()  # one id at one position, after different texts
    assert float(((count_S - 50) ** 2).sum() / 50) < 24.3


def test_another_key_is_another_choice_and_comes_with_the_weights(top_k: Selecting) -> None:
    first, second = (top_k("uniform_random").eval() for _ in range(2))
    second.scorer.key += 1
    token_BT = torch.randint(VOCABULARY, (4, 16))
    assert not torch.equal(route(first, None, token_BT).slot_NK, route(second, None, token_BT).slot_NK)
    second.load_state_dict(first.state_dict())
    assert torch.equal(route(first, None, token_BT).slot_NK, route(second, None, token_BT).slot_NK)


def test_tokens_read_one_by_one_do_not_all_go_the_same_way(top_k: Selecting) -> None:
    selector, cache = top_k("uniform_random").eval(), Cache()
    slots = set()
    for position in range(40):
        tokens = TokenBatch.of(torch.zeros((1, 1), dtype=torch.long), cache=cache)
        cache.append(Cache.CONTEXT, tokens.context_hash_BT)
        cache.length = position + 1
        slots.add(int(selector(torch.zeros(1, WIDTH), tokens).slot_NK))
    assert len(slots) > 4
