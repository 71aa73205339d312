"""E feed-forward experts as stacked weights, each applied to the tokens that were sent to it.

    y_n = sum_k w_nk expert_{e_nk}(x_n),   expert_e(x) = activation(x W_in,e + b_in,e) W_out,e + b_out,e

The A = N K assignments are sorted by expert, so that each expert meets its tokens as one block of rows. On a CPU a loop
multiplies block by block; on a GPU one grouped matrix product does. A token has K experts unless `kept_NK` says less.

N tokens, K experts a token, A assignments, E experts, D width, F hidden units (G = F or 2F of them before a gate).
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
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

    def forward(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, kept_NK: Tensor | None = None) -> Tensor:
        """y_ND, each token's weighted sum over its experts, or over those of them that `kept_NK` says."""
        if kept_NK is not None:
            return self.some(x_ND, expert_NK, weight_NK, kept_NK)
        dispatch = Dispatch.of(expert_NK, len(self.in_weight))
        run = self.grouped if x_ND.is_cuda else self.looped
        return dispatch.summed(run(dispatch.sent(x_ND), dispatch.count_E), weight_NK)

    def some(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, kept_NK: Tensor) -> Tensor:
        """y_ND where tokens have different numbers of experts, perhaps none: 0 then."""
        token_A, choice_A = kept_NK.nonzero(as_tuple=True)
        expert_A = expert_NK[token_A, choice_A]
        order_A = expert_A.argsort(stable=True)
        token_A, choice_A = token_A[order_A], choice_A[order_A]
        run = self.grouped if x_ND.is_cuda else self.looped
        y_AD = run(x_ND[token_A], counts(expert_A, len(self.in_weight)))
        weighted_AD = y_AD * weight_NK[token_A, choice_A].unsqueeze(-1).to(y_AD.dtype)
        return torch.zeros_like(x_ND, dtype=y_AD.dtype).index_add(0, token_A, weighted_AD)

    def all(self, x_ND: Tensor) -> Tensor:
        """y_ND, the plain sum over all experts, each of which sees every token."""
        return functools.reduce(torch.add, (self.one(x_ND, *weights) for weights in self._each()))

    def looped(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """Expert by expert: rows of x_AD are sorted by expert, count_E of each. An expert without rows is skipped."""
        counts = count_E.tolist()
        done = [
            self.one(rows_MD, *weights)
            for rows_MD, weights in zip(x_AD.split(counts), self._each(), strict=True)
            if len(rows_MD)
        ]
        return torch.cat(done)

    def one(self, x_ND: Tensor, w_in: Tensor, b_in: Tensor | None, w_out: Tensor, b_out: Tensor | None) -> Tensor:
        """One expert on all of these rows."""
        return _affine(self.activation.of(_affine(x_ND, w_in, b_in)), w_out, b_out)

    def grouped(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """The same in one grouped matrix product a layer, in autocast's precision where that is on.

        Raises:
            ValueError: width or hidden units do not fill whole strides.
        """
        hidden_AG = _grouped(x_AD, self.in_weight, self.in_bias, count_E)
        return _grouped(self.activation.of(hidden_AG), self.out_weight, self.out_bias, count_E)

    def _each(self) -> Iterator[tuple[Any, ...]]:
        """Each expert's weights, in the order of `one`."""
        stacked = self.in_weight, self.in_bias, self.out_weight, self.out_bias
        return zip(*([None] * len(self.in_weight) if w is None else w.unbind() for w in stacked), strict=True)


class Linears(nn.Module):
    """E linear maps, each of its own rows; what `Experts` are made of, for those who want no activation between."""

    def __init__(self, num_experts: int, inputs: int, outputs: int, biases: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(num_experts, outputs)) if biases else None

    def forward(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """y_AF of rows that are sorted by expert, count_E of each."""
        run = _grouped if x_AD.is_cuda else _looped
        return run(x_AD, self.weight, self.bias, count_E)


@dataclass(frozen=True, slots=True, eq=False)
class Dispatch:
    """The way of N tokens' rows to K experts each, and back."""

    order_A: Tensor
    """Which assignment each sorted row is."""
    back_A: Tensor
    """Which sorted row each assignment is."""
    count_E: Tensor
    """Rows of each expert."""
    num_choices: int
    """K."""

    @classmethod
    def of(cls, expert_NK: Tensor, num_experts: int) -> "Dispatch":
        """By the experts of each token, integer."""
        expert_A = expert_NK.flatten()
        order_A = expert_A.argsort(stable=True)
        return cls(order_A, order_A.argsort(), counts(expert_A, num_experts), expert_NK.shape[1])

    def sent(self, x_ND: Tensor) -> Tensor:
        """A row an assignment, (A, D), sorted by expert."""
        x_AD = x_ND.unsqueeze(1).expand(-1, self.num_choices, -1).flatten(0, 1)
        return permuted(x_AD, self.order_A)

    def summed(self, y_AD: Tensor, weight_NK: Tensor) -> Tensor:
        """y_ND, each token's weighted sum over its sorted rows."""
        y_NKD = permuted(y_AD, self.back_A).view(*weight_NK.shape, -1)
        return (y_NKD * weight_NK.unsqueeze(-1).to(y_NKD.dtype)).sum(1)


def _looped(x_AD: Tensor, weight_EDF: Tensor, bias_EF: Tensor | None, count_E: Tensor) -> Tensor:
    biases = [None] * len(weight_EDF) if bias_EF is None else bias_EF.unbind()
    parts = zip(x_AD.split(count_E.tolist()), weight_EDF.unbind(), biases, strict=True)
    return torch.cat([_affine(rows_MD, weight_DF, bias_F) for rows_MD, weight_DF, bias_F in parts if len(rows_MD)])


def _grouped(x_AD: Tensor, weight_EDF: Tensor, bias_EF: Tensor | None, count_E: Tensor) -> Tensor:
    device = x_AD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_AD.dtype
    stride = STRIDE_BYTES // dtype.itemsize
    for size in weight_EDF.shape[1:]:
        if size % stride:
            raise ValueError(f"experts: width and hidden must be multiples of {stride}, not {size}")
    stop_E = count_E.cumsum(0).to(torch.int32)
    product_AF = F.grouped_mm(x_AD.to(dtype), weight_EDF.to(dtype), offs=stop_E)
    if bias_EF is None:
        return product_AF
    # its own bias argument has no gradient
    expert_A = torch.repeat_interleave(count_E, output_size=len(x_AD))
    return product_AF + bias_EF.to(dtype).index_select(0, expert_A)


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
