"""Provide small models for the tests."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from speciate.config.components import options_of
from speciate.config.run import ModelSpec
from speciate.model.initial_weights import initialise
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer

WIDTH, VOCABULARY = 24, 50
Selecting = Callable[..., TopK]
MOE = {"kind": "moe", "num_experts": 4, "hidden": 20, "router": "learned", "balance": "none", "z_weight": 0.0}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model_spec() -> Callable[..., ModelSpec]:
    """Make the spec of a model of width 24; `ffn`, `mixer` and `depth` change its block, other keys the model."""

    def build(
        *, ffn: dict[str, Any] | None = None, mixer: dict[str, Any] | None = None, depth: Any = "every", **changes: Any
    ) -> ModelSpec:
        block = {
            "mixer": {"kind": "attention", "num_heads": 4, **(mixer or {})},
            "ffn": ffn or {"kind": "dense", "hidden": 40},
            "depth": depth,
        }
        return ModelSpec.model_validate({"width": 24, "num_layers": 2, "context": 16, "block": block, **changes})

    return build


@pytest.fixture
def transformer(model_spec: Callable[..., ModelSpec]) -> Callable[..., Transformer]:
    """Build a Transformer from such a spec, with weights large enough to matter."""

    def build(**changes: Any) -> Transformer:
        return Transformer(model_spec(**{"init_std": 0.3, "embedding_std": 0.3, **changes}), VOCABULARY)

    return build


@pytest.fixture
def moe() -> Callable[..., dict[str, Any]]:
    """Make the options of a mixture of 4 experts, with changes."""
    return lambda **changes: {**MOE, **changes}


@pytest.fixture
def top_k(model_spec: Callable[..., Any]) -> Selecting:
    """Build a selector of 8 slots; give its router, balance and choice as `kind` or (kind, options)."""

    def build(
        router: Any = "learned",
        balance: Any = "none",
        top_k: int = 1,
        z_weight: float = 0.0,
        layer: int = 0,
        choice: Any = "token",
        balanced: tuple[tuple[float, float], ...] = ((0.0, 1.0),),
    ) -> TopK:
        options_of_folder = {}
        for folder, value in (("router", router), ("balance", balance), ("choice", choice)):
            kind, options = (value, {}) if isinstance(value, str) else value
            options_of_folder[folder] = options_of(f"model/moe/{folder}", kind)(kind=kind, **options)
        place = BuildContext(model_spec(), layer, VOCABULARY)
        selector = TopK(
            options_of_folder["router"],
            options_of_folder["balance"],
            place,
            8,
            top_k=top_k,
            z_weight=z_weight,
            choice=options_of_folder["choice"],
            balanced=balanced,
        )
        initialise(selector, int(torch.randint(2**62, ())), 0.5, 0.5, num_layers=1)
        return selector

    return build


def route(selector: TopK, x_ND: Tensor | None = None, token_BT: Tensor | None = None) -> Routing:
    """Route 4 blocks of 16 random tokens, or the given tokens."""
    token_BT = torch.randint(VOCABULARY, (4, 16)) if token_BT is None else token_BT
    result: Routing = selector(torch.randn(token_BT.numel(), WIDTH) if x_ND is None else x_ND, TokenBatch.of(token_BT))
    return result
