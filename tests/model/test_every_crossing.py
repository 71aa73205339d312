"""Test every model that a config can name: no text's result depends on its batch, on later tokens, or on its padding.

Each is compared with itself on other inputs, in float64: a row alone, a prefix alone, other tokens after it, each
document alone, read with a cache, and behind padding. A component that looks ahead says so, and is held to the rest.
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.every_kind import CONTEXT, VOCABULARY, Settings, crossings, is_sampled, model_settings
from torch import Tensor

from speciate.config.components import options_within
from speciate.config.run import ModelSpec
from speciate.model.cache import Cache
from speciate.model.depth.skipper import Predictor
from speciate.model.token_batch import TokenBatch, in_domains
from speciate.model.transformer import Transformer

ALL = dict(crossings())
SAMPLE = [name for name in ALL if is_sampled(name, 80)]
EXACT = {"rtol": 1e-9, "atol": 1e-9}
PUBLISHED = {"kind": "published", "k": 4, "k_min": 2, "k_max": 8}
DOMAINS = torch.tensor([0, 1, 0])
DOCUMENTS = torch.tensor([[3] * 5 + [8] + [1] * 7 + [9] * 3, [6] * 4 + [2] * 2 + [6] * 10, [0] * 16])


def build(settings: Settings, **changes: Any) -> Transformer:
    """Build the model in float64, with predictors that have learned something."""
    torch.manual_seed(0)
    model = Transformer(ModelSpec.model_validate({**settings, **changes}), VOCABULARY).double().eval()
    for module in model.modules():
        if isinstance(module, Predictor):
            torch.nn.init.normal_(module.down.weight)
    return model


def logits(
    model: Transformer, token_BT: Tensor, rows: slice = slice(None), document_BT: Tensor | None = None
) -> Tensor:
    with in_domains(DOMAINS[rows]):
        return model(token_BT[rows], None if document_BT is None else document_BT[rows])


def looks_ahead(model: ModelSpec) -> set[str]:
    return {options.kind for options in options_within(model) if options.looks_ahead()}


@torch.no_grad()
def check(settings: Settings) -> None:
    """Compare a model with itself on all these inputs."""
    model, spec = build(settings), ModelSpec.model_validate(settings)
    ahead = looks_ahead(spec)
    # no token comes twice in a row: where neither runs in the first layer, they would tie in the second
    token_BT = torch.stack([torch.randperm(VOCABULARY)[:CONTEXT] for _ in range(3)])
    full_BTV = logits(model, token_BT)
    assert full_BTV.isfinite().all()
    if "published" in ahead:  # normalised over the whole batch, as it says
        return
    for row in range(3):
        torch.testing.assert_close(logits(model, token_BT, slice(row, row + 1))[0], full_BTV[row], **EXACT)
    separate = build(settings, separate_documents=True)
    packed_BTV = logits(separate, token_BT, document_BT=DOCUMENTS)
    for row, document_T in enumerate(DOCUMENTS):
        stops = [*(document_T.diff().nonzero().flatten() + 1).tolist(), CONTEXT]
        for start, stop in itertools.pairwise([0, *stops]):
            alone_1TV = logits(separate, token_BT[:, start:stop], slice(row, row + 1))
            torch.testing.assert_close(packed_BTV[row, start:stop], alone_1TV[0], **EXACT)
    check_padding(model, token_BT, full_BTV)
    if ahead:
        return
    for length in (1, 7):
        torch.testing.assert_close(logits(model, token_BT[:, :length]), full_BTV[:, :length], **EXACT)
    other_BT = token_BT.clone()
    other_BT[:, 8:] = torch.randint(VOCABULARY, (3, CONTEXT - 8))
    torch.testing.assert_close(logits(model, other_BT)[:, :8], full_BTV[:, :8], **EXACT)
    check_cache(model, token_BT, full_BTV)


def check_padding(model: Transformer, token_BT: Tensor, full_BTV: Tensor) -> None:
    """Compare with rows of which one has padding before its text, and one after it."""
    short = 11
    expected_BTV = logits(model, token_BT[:, :short])
    for left in (0, CONTEXT - short):
        text = slice(left, left + short)
        padded_BT, real_BT = torch.randint(VOCABULARY, (3, CONTEXT)), torch.zeros((3, CONTEXT), dtype=torch.bool)
        padded_BT[:, text], real_BT[:, text] = token_BT[:, :short], True
        padded_BT[2], real_BT[2] = token_BT[2], True  # one row has none
        with in_domains(DOMAINS):
            read_BTV = model.head(model.read(TokenBatch.of(padded_BT, real_BT=real_BT)))
        torch.testing.assert_close(read_BTV[:2, text], expected_BTV[:2], **EXACT)
        torch.testing.assert_close(read_BTV[2], full_BTV[2], **EXACT)


def check_cache(model: Transformer, token_BT: Tensor, full_BTV: Tensor) -> None:
    """Compare with tokens read in parts, one by one, and in other rows' places as a beam search moves them."""
    for parts in ([5, 1, 1, 9], [1] * CONTEXT):
        cache = Cache()
        with in_domains(DOMAINS):
            read = [model.head(model.read(TokenBatch.of(part, cache=cache))) for part in token_BT.split(parts, 1)]
        torch.testing.assert_close(torch.cat(read, 1), full_BTV, **EXACT)
    cache, order_B = Cache(), torch.tensor([2, 0, 1])
    with in_domains(DOMAINS):
        model.read(TokenBatch.of(token_BT[:, :6], cache=cache))
    cache.select(order_B)
    with in_domains(DOMAINS[order_B]):
        read_BTV = model.head(model.read(TokenBatch.of(token_BT[order_B, 6:], cache=cache)))
    torch.testing.assert_close(read_BTV, full_BTV[order_B, 6:], **EXACT)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_text_has_one_result(name: str) -> None:
    check(ALL[name])


HEADS = {"head_width": 10, "qk_norm": True, "num_kv_heads": 2}
SCALINGS = [None, {"kind": "linear", "factor": 3.0}, {"kind": "llama3", "factor": 4.0, "original_context": 8}]
INDEXER = {"kind": "kl", "heads": 2, "width": 8}
MIXERS: dict[str, Settings] = {
    "attention": {"kind": "attention"},
    "gsa": {"kind": "gsa", "indexer": INDEXER, "budget": {"kind": "fixed", "k": 4}},
    "dense choice": {"kind": "gsa", "indexer": "oracle", "budget": {"kind": "fixed", "k": 4}},
}


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("position", ["learned", *range(len(SCALINGS))])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_the_options_of_published_families_cross_with_mixers_and_positions(
    mixer: str, position: str | int, qkv_bias: bool
) -> None:
    """Cross wide heads, norms of queries, biases, scaled embeddings and stretched positions, as no family has them."""
    settings = model_settings(mixer={**MIXERS[mixer], **HEADS, "num_heads": 4, "qkv_bias": qkv_bias})
    settings |= {"biases": not qkv_bias, "embedding_scale": 3.0}
    settings |= {"position": position} if isinstance(position, str) else {"rotary_scaling": SCALINGS[position]}
    check(settings)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_a_text_has_one_result_in_all(part: int) -> None:
    for name in list(ALL)[part::16]:
        try:
            check(ALL[name])
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (
            {"ffn": {"kind": "moe", "num_experts": 4, "router": "learned", "balance": "none", "choice": "expert"}},
            "expert",
        ),
        (
            {"mixer": {"kind": "gsa", "num_heads": 4, "indexer": "kl", "budget": PUBLISHED}},
            "non_causal",
        ),
    ],
)
def test_what_looks_ahead_must_be_asked_for(model_spec: Callable[..., ModelSpec], change: Settings, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*non_causal: true"):
        model_spec(**change)
