"""E feed-forward experts with stacked weights, each applied to the tokens that are routed to it.

    y_n = sum_k w_nk expert_{e_nk}(x_n),   expert_e(x) = activation(x W_in,e + b_in,e) W_out,e + b_out,e

The A = N K assignments are sorted by expert, so that each expert gets its tokens as one block of rows. On a CPU a loop
multiplies block by block; on a GPU one grouped matrix product does it. A token has K experts unless `kept_NK` drops
some.

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

# A grouped matrix product needs operands whose strides are multiples of this many bytes.
STRIDE_BYTES = 16


ExpertWeights = tuple[Tensor, Tensor | None, Tensor, Tensor | None]
"""The matrix and the bias of an expert's first layer, and those of its second."""


class Experts(nn.Module):
    """The experts' weights; a token's output is the weighted sum over its experts."""

    def __init__(self, num_experts: int, width: int, hidden: int, activation: Activation, *, biases: bool) -> None:
        super().__init__()
        self.activation = activation
        inputs = hidden * activation.inputs
        self.in_weight = nn.Parameter(torch.empty(num_experts, width, inputs))
        self.out_weight = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.in_bias = nn.Parameter(torch.empty(num_experts, inputs)) if biases else None
        self.out_bias = nn.Parameter(torch.empty(num_experts, width)) if biases else None

    def forward(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, kept_NK: Tensor | None = None) -> Tensor:
        """Return y_ND, each token's weighted sum over its experts, or over those that `kept_NK` keeps."""
        if kept_NK is not None:
            return self.run_kept(x_ND, expert_NK, weight_NK, kept_NK)
        dispatch = Dispatch.of(expert_NK, len(self.in_weight))
        run = self.run_grouped if x_ND.is_cuda else self.run_looped
        return dispatch.combine_rows(run(dispatch.gather_rows(x_ND), dispatch.count_E), weight_NK)

    def run_kept(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, kept_NK: Tensor) -> Tensor:
        """Return y_ND if tokens have different numbers of experts; a token without any gets 0."""
        token_A, choice_A = kept_NK.nonzero(as_tuple=True)
        expert_A = expert_NK[token_A, choice_A]
        order_A = expert_A.argsort(stable=True)
        token_A, choice_A = token_A[order_A], choice_A[order_A]
        run = self.run_grouped if x_ND.is_cuda else self.run_looped
        y_AD = run(x_ND[token_A], count_by_expert(expert_A, len(self.in_weight)))
        weighted_AD = y_AD * weight_NK[token_A, choice_A].unsqueeze(-1).to(y_AD.dtype)
        return torch.zeros_like(x_ND, dtype=y_AD.dtype).index_add(0, token_A, weighted_AD)

    def sum_of_all(self, x_ND: Tensor) -> Tensor:
        """Return y_ND, the unweighted sum over all experts, each of which sees every token."""
        return functools.reduce(torch.add, (self.run_expert(x_ND, weights) for weights in self._weights_of_each()))

    def run_looped(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """Run expert by expert on rows that are sorted by expert, count_E of each; skip experts without rows."""
        counts = count_E.tolist()
        outputs = [
            self.run_expert(rows_MD, weights)
            for rows_MD, weights in zip(x_AD.split(counts), self._weights_of_each(), strict=True)
            if len(rows_MD)
        ]
        return torch.cat(outputs) if outputs else _no_rows(x_AD, self.out_weight)

    def run_expert(self, x_ND: Tensor, weights: ExpertWeights) -> Tensor:
        """Run one expert on all rows."""
        w_in, b_in, w_out, b_out = weights
        return _affine(self.activation.apply(_affine(x_ND, w_in, b_in)), w_out, b_out)

    def run_grouped(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """Do what `run_looped` does by one grouped matrix product a layer, in autocast's precision if it is on.

        Raises:
            ValueError: the width or the number of hidden units does not fill whole strides.
        """
        if not len(x_AD):
            return _no_rows(x_AD, self.out_weight)
        hidden_AG = _grouped(x_AD, self.in_weight, self.in_bias, count_E)
        return _grouped(self.activation.apply(hidden_AG), self.out_weight, self.out_bias, count_E)

    def _weights_of_each(self) -> Iterator[ExpertWeights]:
        """Yield each expert's weights."""
        stacked = self.in_weight, self.in_bias, self.out_weight, self.out_bias
        return zip(*([None] * len(self.in_weight) if w is None else w.unbind() for w in stacked), strict=True)


class Linears(nn.Module):
    """E linear maps, each applied to its own rows: `Experts` with one layer and no activation."""

    def __init__(self, num_experts: int, inputs: int, outputs: int, biases: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(num_experts, outputs)) if biases else None

    def forward(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """Return y_AF of rows that are sorted by expert, count_E of each."""
        run = _grouped if x_AD.is_cuda else _looped
        return run(x_AD, self.weight, self.bias, count_E)


@dataclass(frozen=True, slots=True, eq=False)
class Dispatch:
    """How N tokens' rows are sorted by expert, K experts each, and how they get back."""

    order_A: Tensor
    """The assignment of each sorted row."""
    back_A: Tensor
    """The sorted row of each assignment."""
    count_E: Tensor
    """Number of rows of each expert."""
    num_choices: int
    """Number of experts of a token, K."""

    @classmethod
    def of(cls, expert_NK: Tensor, num_experts: int) -> "Dispatch":
        """Sort by the experts of each token, integer."""
        expert_A = expert_NK.flatten()
        order_A = expert_A.argsort(stable=True)
        return cls(order_A, order_A.argsort(), count_by_expert(expert_A, num_experts), expert_NK.shape[1])

    def gather_rows(self, x_ND: Tensor) -> Tensor:
        """Return one row for each assignment, (A, D), sorted by expert."""
        x_AD = x_ND.unsqueeze(1).expand(-1, self.num_choices, -1).flatten(0, 1)
        return permute_rows(x_AD, self.order_A)

    def combine_rows(self, y_AD: Tensor, weight_NK: Tensor) -> Tensor:
        """Return y_ND, each token's weighted sum over its sorted rows."""
        y_NKD = permute_rows(y_AD, self.back_A).view(*weight_NK.shape, -1)
        return (y_NKD * weight_NK.unsqueeze(-1).to(y_NKD.dtype)).sum(1)


def _looped(x_AD: Tensor, weight_EDF: Tensor, bias_EF: Tensor | None, count_E: Tensor) -> Tensor:
    biases = [None] * len(weight_EDF) if bias_EF is None else bias_EF.unbind()
    parts = zip(x_AD.split(count_E.tolist()), weight_EDF.unbind(), biases, strict=True)
    outputs = [_affine(rows_MD, weight_DF, bias_F) for rows_MD, weight_DF, bias_F in parts if len(rows_MD)]
    return torch.cat(outputs) if outputs else _no_rows(x_AD, weight_EDF)


def _no_rows(x_AD: Tensor, weight_EDF: Tensor) -> Tensor:
    """Return what experts with these last weights make of no rows."""
    return x_AD.new_zeros(len(x_AD), weight_EDF.shape[-1])


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
    # grouped_mm's bias argument has no gradient
    expert_A = torch.repeat_interleave(count_E, output_size=len(x_AD))
    return product_AF + bias_EF.to(dtype).index_select(0, expert_A)


def _affine(x_ND: Tensor, weight_DF: Tensor, bias_F: Tensor | None) -> Tensor:
    return x_ND @ weight_DF if bias_F is None else torch.addmm(bias_F, x_ND, weight_DF)


def count_by_expert(expert_A: Tensor, num_experts: int) -> Tensor:
    """Return how often each expert occurs, (E) integer."""
    if not expert_A.is_cuda:
        return expert_A.bincount(minlength=num_experts)
    # bincount would make the CPU wait for the GPU, to learn the size of its output
    return (expert_A.unsqueeze(-1) == torch.arange(num_experts, device=expert_A.device)).sum(0)


def permute_rows(x_AD: Tensor, order_A: Tensor) -> Tensor:
    """Return the rows of x_AD in this order, each once."""
    y_AD: Tensor = _Permuted.apply(x_AD, order_A)  # type: ignore[no-untyped-call]
    return y_AD


class _Permuted(torch.autograd.Function):
    """A permutation whose gradient is the inverse one, without the zeros and additions that indexing needs."""

    @staticmethod
    def forward(ctx: Any, x_AD: Tensor, order_A: Tensor) -> Tensor:
        ctx.save_for_backward(order_A)
        return x_AD.index_select(0, order_A)

    @staticmethod
    def backward(ctx: Any, gradient_AD: Tensor) -> tuple[Tensor, None]:
        (order_A,) = ctx.saved_tensors
        return torch.empty_like(gradient_AD).index_copy_(0, order_A, gradient_AD), None
