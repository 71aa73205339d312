"""Test every mixer behind a Mixture-of-Depths, with experts inside it: row by row, with a cache, and for causality."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from speciate.model.cache import Cache
from speciate.model.depth.skipper import Predictor
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer
from speciate.selection.selection import record_selections

Build = Callable[..., Transformer]
SIZES = {"state": 3, "step_rank": 2}
MIXERS: dict[str, dict[str, Any]] = {
    "grouped": {"kind": "attention", "num_heads": 4, "num_kv_heads": 2},
    "mamba": {"kind": "mamba", **SIZES},
    "rom": {"kind": "rom", **SIZES, "router": "learned", "balance": "none"},
    "gsa": {"kind": "gsa", "num_heads": 4, "indexer": "kl", "budget": {"kind": "fixed", "k": 4}},
}
DEPTHS: dict[str, Any] = {
    "learned": {"kind": "mod", "capacity": 0.5},
    "random": {"kind": "mod", "capacity": 0.25, "choice": "random"},
    "published": "mod_published",
}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_mixer_behind_a_depth(transformer: Build, moe: Callable[..., Any], mixer: str, depth: str) -> None:
    block = {"mixer": MIXERS[mixer], "ffn": moe(top_k=2), "depth": DEPTHS[depth]}
    model = transformer(block=block, position="rotary").double().eval()
    for module in model.modules():
        if isinstance(module, Predictor):
            torch.nn.init.normal_(module.down.weight)
    token_BT = torch.randint(50, (3, 16))
    with torch.no_grad(), record_selections(model) as record:
        full = model(token_BT)
    outer, inner = record["blocks.1.depth.router"], record["blocks.1.ffn.router"]
    assert sorted(inner.token_N.tolist()) == outer.token_N[outer.chosen_NS[:, 1] == 1].tolist()
    exact = {"rtol": 1e-10, "atol": 1e-10}
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([model(row_1T) for row_1T in token_BT.split(1)]), full, **exact)
        cache = Cache()
        parts = [
            model.head(model.read(TokenBatch.of(part, cache=cache))) for part in token_BT.split([5, 1, 1, 9], dim=1)
        ]
        torch.testing.assert_close(torch.cat(parts, dim=1), full, **exact)
        token_BT[:, 11] = (token_BT[:, 11] + 1) % 50
        torch.testing.assert_close(model(token_BT)[:, :11], full[:, :11], **exact)
