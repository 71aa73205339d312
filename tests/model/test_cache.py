"""Test that decoding with a cache, one or several tokens at a time, equals one full forward pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from speciate.model.cache import Cache
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer

Build = Callable[..., Transformer]
VOCABULARY = 50
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "rotary": {"position": "rotary"},
    "llama": {"position": "rotary", "norm": "rms", "biases": False, "mixer": {"num_kv_heads": 2}},
    "untied": {"tied_head": False},
    "separate": {"separate_documents": True},
}


def parted(model: Transformer, token_BT: torch.Tensor, parts: list[int]) -> torch.Tensor:
    """Return the logits of the tokens, read in parts of these lengths."""
    cache = Cache()
    read = [model.head(model.read(TokenBatch.of(part_BT, cache=cache))) for part_BT in token_BT.split(parts, dim=1)]
    assert cache.length == token_BT.shape[1]
    return torch.cat(read, dim=1)


@pytest.mark.parametrize("router", [None, "learned", "frozen", "hash"])
@pytest.mark.parametrize("shape", SHAPES)
def test_with_a_cache_equals_the_full_forward(
    transformer: Build, moe: Callable[..., Any], shape: str, router: str | None
) -> None:
    ffn = {"ffn": moe(router=router, top_k=1 if router == "hash" else 2)} if router else {}
    model = transformer(**SHAPES[shape], **ffn).double().eval()
    token_BT = torch.randint(VOCABULARY, (3, 11))
    full = model(token_BT)
    for parts in ([1] * 11, [4, 1, 6], [11]):
        torch.testing.assert_close(parted(model, token_BT, parts), full, rtol=1e-10, atol=1e-10)


def test_padding_before_a_text_changes_nothing_of_it(transformer: Build) -> None:
    model = transformer().double().eval()
    token_BT = torch.randint(VOCABULARY, (1, 9))
    full = model(token_BT)
    # 3 tokens of padding, another document, and then the text with its own positions
    padded_BT = torch.cat([torch.zeros((1, 3), dtype=torch.long), token_BT], dim=1)
    position_BT = torch.tensor([[0, 0, 0, *range(9)]])
    document_BT = torch.tensor([[1] * 3 + [0] * 9])
    cache, read = Cache(), []
    for part in (slice(0, 5), slice(5, 6), slice(6, 12)):
        places = {"position_BT": position_BT[:, part], "real_BT": document_BT[:, part] == 0}
        tokens = TokenBatch.of(padded_BT[:, part], cache=cache, **places)
        read.append(model.head(model.read(tokens)))
    torch.testing.assert_close(torch.cat(read, dim=1)[:, 3:], full, rtol=1e-10, atol=1e-10)


def test_rows_can_be_taken_as_a_beam_search_takes_them(transformer: Build) -> None:
    model = transformer().double().eval()
    token_BT, next_B1 = torch.randint(VOCABULARY, (3, 7)), torch.randint(VOCABULARY, (2, 1))
    cache = Cache()
    model.read(TokenBatch.of(token_BT, cache=cache))
    row_B = torch.tensor([2, 0])
    cache.select(row_B)
    after = model.head(model.read(TokenBatch.of(next_B1, cache=cache)))
    full = model(torch.cat([token_BT[row_B], next_B1], dim=1))
    torch.testing.assert_close(after, full[:, -1:], rtol=1e-10, atol=1e-10)


def test_a_cache_is_no_longer_than_the_context(transformer: Build) -> None:
    model, cache = transformer(), Cache()
    model.read(TokenBatch.of(torch.zeros((1, 15), dtype=torch.long), cache=cache))
    with pytest.raises(ValueError, match="a block of 17 tokens is longer than the context, 16"):
        model.read(TokenBatch.of(torch.zeros((1, 2), dtype=torch.long), cache=cache))


@pytest.mark.parametrize("parts", [[7], [3, 4], [1] * 7])
def test_a_cut_cache_goes_on_as_if_the_rest_had_never_been_read(transformer: Build, parts: list[int]) -> None:
    model = transformer(position="rotary").double().eval()
    token_BT, other_BT = torch.randint(VOCABULARY, (2, 7)), torch.randint(VOCABULARY, (2, 5))
    for length in (0, 2, 4, 7):
        cache = Cache()
        for part_BT in token_BT.split(parts, dim=1):
            model.read(TokenBatch.of(part_BT, cache=cache))
        before = cache.copy()
        cache.truncate(length)
        assert (cache.length, before.length) == (length, 7)
        full = model(torch.cat([token_BT[:, :length], other_BT], dim=1))[:, length:]
        after = model.head(model.read(TokenBatch.of(other_BT, cache=cache)))
        torch.testing.assert_close(after, full, rtol=1e-10, atol=1e-10)
        full = model(torch.cat([token_BT, other_BT], dim=1))[:, 7:]
        after = model.head(model.read(TokenBatch.of(other_BT, cache=before)))  # the copy is unchanged
        torch.testing.assert_close(after, full, rtol=1e-10, atol=1e-10)


def test_what_a_cache_cannot_forget_is_refused() -> None:
    def cannot(cache: Cache, length: int, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            cache.truncate(length)
        assert cache.length == 3

    cache = Cache()
    cache.append(0, torch.zeros(1, 3, 2), torch.zeros(1, 3))
    cache.length = 3
    cannot(cache, 4, "a cache of 3 tokens cannot be cut to 4")
    assert cache.can_truncate
    skipping, recurrent = cache.copy(), cache.copy()
    skipping.append(1, torch.zeros(1, 2, 2))
    cannot(skipping, 2, "skipped tokens, cannot be cut; keep a copy")
    recurrent.set_state(1, torch.zeros(1, 3, 2))  # its size happens to equal the number of tokens
    assert not recurrent.copy().can_truncate
    cannot(recurrent, 2, "a recurrent state, or skipped tokens, cannot be cut; keep a copy")
    recurrent.truncate(3)
    cache.truncate(1)
    assert cache.length == 1
