"""Sample from left to right in strides, each by another sampler (Sahoo et al. 2024, section 4).

The original uses it for text longer than a model's block. Within a stride the masks to its right stay masks. With
strides of one token it is an autoregressive model, and exact.
"""

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from speciate.config.components import component_module, options_of
from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, Draws, MaskedText


class Options(SamplerOptions):
    """Options of sampling in strides."""

    stride: int = Field(16, ge=1)
    """Number of tokens of a stride."""
    within: dict[str, str | int | float | bool] = {"kind": "random_order"}
    """Sampler of each stride: its `kind`, and its options."""


class Sampler:
    """Lift the masks of one stride after another; the first may be shorter."""

    def __init__(self, options: Options) -> None:
        self.stride = options.stride
        inner_options = options_of("evaluation/sampler", str(options.within.get("kind"))).model_validate(options.within)
        self.inner = component_module(inner_options).Sampler(inner_options)
        self._inner_steps: list[int] = []
        self._num_strides = 0

    def step_numbers(self, num_masked: int) -> list[int]:
        """Return the numbers of the inner sampler's steps, over all strides."""
        self._num_strides = -(-num_masked // self.stride)
        self._inner_steps = self.inner.step_numbers(min(self.stride, num_masked))
        return list(range(self._num_strides * len(self._inner_steps)))

    def unmask(self, text: MaskedText, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """Return the tokens after one step, (B, T)."""
        stride_index, inner_index = divmod(index, len(self._inner_steps))
        num_deferred = (self._num_strides - 1 - stride_index) * self.stride
        masked_BT = text.masked_BT
        deferred_BT = masked_BT & (masked_BT.sum(1, keepdim=True) - masked_BT.cumsum(1) < num_deferred)
        stride_text = replace(text, deferred_BT=deferred_BT)
        token_BT: Tensor = self.inner.unmask(stride_text, denoise, draws, self._inner_steps[inner_index])
        return token_BT
