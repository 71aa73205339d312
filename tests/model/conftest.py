"""Small models to test with."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from speciate import spec
from speciate.model.transformer import Transformer

VOCABULARY = 50
MOE = {"kind": "moe", "num_experts": 4, "hidden": 20, "router": "learned", "balance": "none", "z_weight": 0.0}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model_spec() -> Callable[..., spec.Model]:
    """A model of width 24; `ffn` and `mixer` change its block, the other keys the model itself."""

    def build(*, ffn: dict[str, Any] | None = None, mixer: dict[str, Any] | None = None, **changes: Any) -> spec.Model:
        block = {
            "mixer": {"kind": "attention", "num_heads": 4, **(mixer or {})},
            "ffn": ffn or {"kind": "dense", "hidden": 40},
            "depth": "every",
        }
        return spec.Model.model_validate({"width": 24, "num_layers": 2, "context": 16, "block": block, **changes})

    return build


@pytest.fixture
def transformer(model_spec: Callable[..., spec.Model]) -> Callable[..., Transformer]:
    """A Transformer of such a spec, with weights large enough to matter."""

    def build(**changes: Any) -> Transformer:
        return Transformer(model_spec(**{"init_std": 0.3, "embedding_std": 0.3, **changes}), VOCABULARY)

    return build


@pytest.fixture
def moe() -> Callable[..., dict[str, Any]]:
    """Options of a mixture of 4 experts, with changes."""
    return lambda **changes: {**MOE, **changes}
