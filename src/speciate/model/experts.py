"""E feed-forward experts as stacked weights, each applied to the tokens that were sent to it.

    y_n = sum_k w_nk expert_{e_nk}(x_n),   expert_e(x) = activation(x W_in,e + b_in,e) W_out,e + b_out,e

The A = N K assignments are sorted by expert, so that each expert meets its tokens as one block of rows. On a CPU a loop
multiplies block by block; on a GPU one grouped matrix product does. No capacity, so no token is ever dropped.

N tokens, K experts a token, A assignments, E experts, D width, F hidden units (G = F or 2F of them before a gate).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.model.activation import Activation

# A grouped product wants the strides of its operands in multiples of this many bytes.
STRIDE_BYTES = 16


class Experts(nn.Module):
    """The experts' weights, and the sum over each token's own."""

    def __init__(self, num_experts: int, width: int, hidden: int, activation: Activation, biases: bool) -> None:
        super().__init__()
        self.activation = activation
        inputs = hidden * activation.inputs
        self.in_weight = nn.Parameter(torch.empty(num_experts, width, inputs))
        self.out_weight = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.in_bias = nn.Parameter(torch.empty(num_experts, inputs)) if biases else None
        self.out_bias = nn.Parameter(torch.empty(num_experts, width)) if biases else None

    def forward(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor) -> Tensor:
        """y_ND, each token's weighted sum over its experts."""
        num_tokens, num_choices = expert_NK.shape
        expert_A = expert_NK.flatten()
        order_A = expert_A.argsort(stable=True)
        count_E = counts(expert_A, len(self.in_weight))
        x_AD = x_ND.unsqueeze(1).expand(-1, num_choices, -1).flatten(0, 1)
        run = self.grouped if x_ND.is_cuda else self.looped
        y_AD = permuted(run(permuted(x_AD, order_A), count_E), order_A.argsort())
        y_NKD = y_AD.view(num_tokens, num_choices, -1)
        return (y_NKD * weight_NK.unsqueeze(-1).to(y_NKD.dtype)).sum(1)

    def looped(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """Expert by expert: rows of x_AD are sorted by expert, count_E of each. An expert without rows is skipped."""
        counts = count_E.tolist()
        expert_weights = [w.unbind() if w is not None else [None] * len(counts) for w in self._stacked()]
        done: list[Tensor] = []
        for rows_MD, w_in, b_in, w_out, b_out in zip(x_AD.split(counts), *expert_weights, strict=True):
            if len(rows_MD):
                done.append(_affine(self.activation.of(_affine(rows_MD, w_in, b_in)), w_out, b_out))
        return torch.cat(done)

    def grouped(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """The same in one grouped matrix product a layer, in autocast's precision where that is on.

        Raises:
            ValueError: width or hidden units do not fill whole strides.
        """
        device = x_AD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_AD.dtype
        stride = STRIDE_BYTES // dtype.itemsize
        for size in self.out_weight.shape[1:]:
            if size % stride:
                raise ValueError(f"experts: width and hidden must be multiples of {stride}, not {size}")
        expert_A = torch.repeat_interleave(count_E, output_size=len(x_AD))
        stop_E = count_E.cumsum(0).to(torch.int32)

        def affine(rows_AD: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            product = F.grouped_mm(rows_AD.to(dtype), weight.to(dtype), offs=stop_E)
            # its own bias argument has no gradient
            return product if bias is None else product + bias.to(dtype).index_select(0, expert_A)

        return affine(self.activation.of(affine(x_AD, self.in_weight, self.in_bias)), self.out_weight, self.out_bias)

    def _stacked(self) -> tuple[Tensor | None, ...]:
        return self.in_weight, self.in_bias, self.out_weight, self.out_bias


def _affine(x_ND: Tensor, weight_DF: Tensor, bias_F: Tensor | None) -> Tensor:
    return x_ND @ weight_DF if bias_F is None else torch.addmm(bias_F, x_ND, weight_DF)


def counts(expert_A: Tensor, num_experts: int) -> Tensor:
    """How often each expert is there, (E) integer."""
    if not expert_A.is_cuda:
        return expert_A.bincount(minlength=num_experts)
    # bincount would make the processor wait for the GPU, to learn how many numbers it counts
    return (expert_A.unsqueeze(-1) == torch.arange(num_experts, device=expert_A.device)).sum(0)


def permuted(x_AD: Tensor, order_A: Tensor) -> Tensor:
    """The rows of x_AD in this order, each once."""
    y_AD: Tensor = _Permuted.apply(x_AD, order_A)  # type: ignore[no-untyped-call]
    return y_AD


class _Permuted(torch.autograd.Function):
    """Its gradient goes back by the inverse order, without the zeros and additions that indexing needs."""

    @staticmethod
    def forward(ctx: Any, x_AD: Tensor, order_A: Tensor) -> Tensor:
        ctx.save_for_backward(order_A)
        return x_AD.index_select(0, order_A)

    @staticmethod
    def backward(ctx: Any, gradient_AD: Tensor) -> tuple[Tensor, None]:
        (order_A,) = ctx.saved_tensors
        return torch.empty_like(gradient_AD).index_copy_(0, order_A, gradient_AD), None
