"""Test indexers of sparse attention: the recorded keys are those that the attention then reads."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.recording.families import TEXTS, inputs
from tests.recording.tiny import tiny_model
from torch import Tensor, nn

from speciate.recording.key_buckets import bucketed, num_buckets
from speciate.recording.recorder import record_routing
from speciate.recording.router_call import KeyCall
from speciate.recording.sites import find_sites
from speciate.recording.token_stream import token_streams

FAMILIES = (
    *("axk2", "deepseek_v32", "deepseek_v4", "dots3_note", "glm5_next", "glm_moe_dsa"),
    *("hy_v4", "minimax_m3_vl", "mistral_large4", "qwen4_exp"),
)
SLOTS = num_buckets(12)


def eager(family: str) -> Any:
    model = tiny_model(family)
    model.set_attn_implementation("eager")
    return model


@torch.no_grad()
def attended(model: Any, path: str) -> Tensor:
    """Return which keys the attention beside an indexer gives any weight, in any head; (B, T, S)."""
    attention, seen = model.get_submodule(path.rpartition(".")[0]), []

    def after(_: nn.Module, args: Any, output: Any) -> None:
        seen.append(output[1])

    handle = attention.register_forward_hook(after)
    model(**inputs(model), use_cache=False)
    handle.remove()
    return (seen[0] > 0).any(1)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "deepseek_v4"])
def test_recorded_keys_are_those_that_the_attention_reads(family: str) -> None:
    model, given = eager(family), None
    sites = [site for site in find_sites(model) if site.path.endswith("indexer")]
    assert sites
    given = inputs(model)
    for site in sites:
        calls: list[Any] = []
        handles = site.attach(calls.append)
        read_BTS = attended(model, site.path)
        for handle in handles:
            handle.remove()
        (stream,) = token_streams(model, (), given).values()
        # by hand: the share of the keys that are read in each range of distances
        share_NS = np.zeros((read_BTS[..., 0].numel(), SLOTS))
        length = read_BTS.shape[1]
        for row, query, key in (read_BTS & given["attention_mask"].bool()[..., None]).nonzero().tolist():
            slot = 0 if key == 0 else 1 if key == query else 2 + int(np.log2(query - key))
            share_NS[row * length + query, slot] += 1
        share_NS /= np.maximum(share_NS.sum(1, keepdims=True), 1)
        real_N = given["attention_mask"].flatten().bool().numpy()
        found = bucketed(calls[0], stream, SLOTS)
        np.testing.assert_allclose(found.chosen_NS.numpy()[real_N], share_NS[real_N], atol=1e-6, err_msg=site.path)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_record_has_shares_and_their_null_for_every_query(family: str) -> None:
    model = eager(family)
    with torch.no_grad(), record_routing(model) as recording:
        recording.most_keys = 12
        model(**inputs(model), use_cache=False)
    indexers = [selector for selector in recording.build().selectors if selector.path.endswith("indexer")]
    assert indexers
    for selector in indexers:
        tally = selector.tally
        assert selector.num_slots == SLOTS
        # the first query of DeepSeek-V4 sees no key: no compressed entry is complete before it
        assert list(tally.decisions_G) == [len(text.text) - (family == "deepseek_v4") for text in TEXTS]
        np.testing.assert_allclose(tally.null_GS.sum(1), tally.decisions_G, atol=1e-6)
        np.testing.assert_allclose(tally.chosen_GS.sum(1), tally.decisions_G, atol=1e-6)
        assert not selector.has_probs


def test_buckets_and_null_by_hand() -> None:
    """Three queries of one text, after one of padding: keys 1 (the first), 2 and 3."""
    model = tiny_model("mixtral")
    mask_BT = torch.tensor([[0, 1, 1, 1]])
    (stream,) = token_streams(
        model, (), {"input_ids": torch.tensor([[0, 5, 6, 7]]), "attention_mask": mask_BT}
    ).values()
    key_BTk = torch.tensor([[[0, 1], [1, 2], [1, 3], [1, 3]]])
    found = bucketed(KeyCall(key_BTk), stream, 4)
    # slots: first, distance 0, 1, 2 and more; a key in the future (3 for query 2) is none
    np.testing.assert_allclose(found.chosen_NS.numpy()[1:], [[1, 0, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(
        found.null_NS.numpy()[1:], [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0]], atol=1e-6
    )
    assert num_buckets(4) == 4
