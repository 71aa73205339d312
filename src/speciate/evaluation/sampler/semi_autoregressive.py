"""Left to right in strides, each by another sampler (Sahoo et al. 2024, section 4): text longer than a model's block.

Within a stride the masks to its right stay masks. With strides of one token it is an autoregressive model, and exact.
"""

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from speciate.config.components import component_module, options_of
from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, Draws, Text


class Options(SamplerOptions):
    """Strides."""

    stride: int = Field(16, ge=1)
    """Tokens of a stride."""
    within: dict[str, str | int | float | bool] = {"kind": "random_order"}
    """The sampler of each stride: its `kind`, and its options."""


class Sampler:
    """Lifts the masks of one stride after another; a first one may be shorter."""

    def __init__(self, options: Options) -> None:
        self.stride = options.stride
        inner = options_of("evaluation/sampler", str(options.within.get("kind"))).model_validate(options.within)
        self.within = component_module(inner).Sampler(inner)
        self._inner: list[int] = []
        self._strides = 0

    def plan(self, num_masked: int) -> list[int]:
        """The inner sampler's steps, for every stride."""
        self._strides = -(-num_masked // self.stride)
        self._inner = self.within.plan(min(self.stride, num_masked))
        return list(range(self._strides * len(self._inner)))

    def step(self, text: Text, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """The tokens after one step, (B, T)."""
        number, inner = divmod(index, len(self._inner))
        beyond = (self._strides - 1 - number) * self.stride
        masked_BT = text.masked_BT
        later_BT = masked_BT & (masked_BT.sum(1, keepdim=True) - masked_BT.cumsum(1) < beyond)
        tokens_BT: Tensor = self.within.step(replace(text, later_BT=later_BT), denoise, draws, self._inner[inner])
        return tokens_BT
