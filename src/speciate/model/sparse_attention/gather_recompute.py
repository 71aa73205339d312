"""Compute a function of each query and the k keys that it chose; the backward pass recomputes it.

    out_r = f(per_query_r, per_key[index_r1], ..., per_key[index_rk], shared)     for each query r

The gathered keys, k times as large as the keys themselves, are made for some queries at a time and dropped. The
backward pass keeps only the inputs and the indices, so at fixed k memory grows with the number of queries. The gradient
of a key is the sum over all queries that chose it, accumulated in one tensor.

R queries (of all blocks), C of them at once, M keys (of all blocks), k chosen.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Function = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, ...]]
"""(per_query, each (C, ...); per_key, each (C, k, ...); shared) -> outputs, each (C, ...)."""
ELEMENTS = 2**19
"""Number of elements of gathered keys held at once."""


def gather_recompute(
    function: Function,
    index_Rk: Tensor,
    per_query: Sequence[Tensor],
    per_key: Sequence[Tensor],
    *,
    shared: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """Return the function's outputs for all queries.

    Args:
        function: takes some queries at a time; it is differentiable and draws no random numbers.
        index_Rk: each query's keys, as rows of `per_key`.
        per_query: tensors with a row a query, each (R, ...).
        per_key: tensors with a row a key, each (M, ...).
        shared: tensors that all queries use.
    """
    counts = (len(per_query), len(per_key))
    outputs: tuple[Tensor, ...] = _Gathered.apply(function, index_Rk, *counts, *per_query, *per_key, *shared)  # type: ignore[no-untyped-call]
    return outputs


def _parts(index_Rk: Tensor, per_key: Sequence[Tensor]) -> Iterator[slice]:
    """Yield slices of queries whose gathered keys are held together."""
    elements_of_query = index_Rk.shape[1] * sum(tensor[0].numel() for tensor in per_key)
    size = max(1, ELEMENTS // max(1, elements_of_query))
    for start in range(0, len(index_Rk), size):
        yield slice(start, start + size)


def _rows(tensor: Tensor, index_Ck: Tensor) -> Tensor:
    """Return tensor[index_Ck]."""
    return tensor.index_select(0, index_Ck.flatten()).view(*index_Ck.shape, *tensor.shape[1:])


class _Gathered(torch.autograd.Function):
    """Keeps only its inputs for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, function: Function, index_Rk: Tensor, num_per_query: int, num_per_key: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Run the function on some queries at a time."""
        per_query, per_key = tensors[:num_per_query], tensors[num_per_query : num_per_query + num_per_key]
        shared = tensors[num_per_query + num_per_key :]
        ctx.function, ctx.counts = function, (num_per_query, num_per_key)
        ctx.save_for_backward(index_Rk, *tensors)
        ctx.set_materialize_grads(False)
        chunks: list[tuple[Tensor, ...]] = []
        for part in _parts(index_Rk, per_key):
            keys = [_rows(tensor, index_Rk[part]) for tensor in per_key]
            chunks.append(function([tensor[part] for tensor in per_query], keys, shared))
        return tuple(torch.cat(outputs) for outputs in zip(*chunks, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run it again with gradient, and sum the gradients of keys and of shared tensors."""
        index_Rk, *tensors = ctx.saved_tensors
        num_per_query, num_per_key = ctx.counts
        needed = ctx.needs_input_grad[4:]
        num_rows = num_per_query + num_per_key
        # the gradients of queries are assigned, the others summed
        totals = [torch.zeros_like(tensor) if need else None for tensor, need in zip(tensors, needed, strict=True)]
        for part in _parts(index_Rk, tensors[num_per_query:num_rows]):
            gathered = [tensor[part] for tensor in tensors[:num_per_query]]
            gathered += [_rows(tensor, index_Rk[part]) for tensor in tensors[num_per_query:num_rows]]
            leaves = [
                tensor.detach().requires_grad_(need)
                for tensor, need in zip([*gathered, *tensors[num_rows:]], needed, strict=True)
            ]
            leaf_gradients = iter(_gradients(ctx.function, leaves, (num_per_query, num_rows), gradients, part=part))
            for number, total in enumerate(totals):
                gradient = None if total is None else next(leaf_gradients, None)
                if total is None or gradient is None:
                    continue
                if number < num_per_query:
                    total[part] = gradient
                elif number < num_rows:
                    total.index_add_(0, index_Rk[part].flatten(), gradient.flatten(0, 1))
                else:
                    total += gradient
        return (None, None, None, None, *totals)


def _gradients(
    function: Function,
    leaves: list[Tensor],
    borders: tuple[int, int],
    gradients: Sequence[Tensor | None],
    *,
    part: slice,
) -> tuple[Tensor | None, ...]:
    """Return the gradient of each leaf that needs one, from the gradients of these queries' outputs."""
    with torch.enable_grad():
        outputs = function(leaves[: borders[0]], leaves[borders[0] : borders[1]], leaves[borders[1] :])
    wanted = [
        (output, gradient[part])
        for output, gradient in zip(outputs, gradients, strict=True)
        if gradient is not None and output.requires_grad
    ]
    if not wanted:
        return ()
    inputs = [leaf for leaf in leaves if leaf.requires_grad]
    return torch.autograd.grad(
        [output for output, _ in wanted], inputs, [gradient for _, gradient in wanted], allow_unused=True
    )
