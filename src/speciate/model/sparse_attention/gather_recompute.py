"""A function of each query and the k keys that it chose, whose backward pass computes it again.

    out_r = f(asked_r, kept[index_r1], ..., kept[index_rk], shared)     for each query r

The gathered keys, k times as large as the keys themselves, are made for some queries at a time and dropped; what is
kept for the backward pass are the inputs and the indices. So memory grows with the number of queries, at k fixed. The
gradient of a key is the sum over all queries that chose it, added into one tensor.

R queries (of all blocks), C of them at once, M keys (of all blocks), k chosen.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Function = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, ...]]
"""(asked, each (C, ...); kept, each (C, k, ...); shared) -> outputs, each (C, ...)."""
ELEMENTS = 2**19
"""Of gathered keys, held at once."""


def gather_recompute(
    function: Function, index_Rk: Tensor, asked: Sequence[Tensor], kept: Sequence[Tensor], shared: Sequence[Tensor] = ()
) -> tuple[Tensor, ...]:
    """The function's outputs for all queries.

    Args:
        function: of some queries; differentiable, and draws nothing at random.
        index_Rk: each query's keys, as rows of `kept`.
        asked: what belongs to a query, each (R, ...).
        kept: what belongs to a key, each (M, ...).
        shared: what belongs to all.
    """
    outputs: tuple[Tensor, ...] = _Gathered.apply(function, index_Rk, len(asked), len(kept), *asked, *kept, *shared)  # type: ignore[no-untyped-call]
    return outputs


def _parts(index_Rk: Tensor, kept: Sequence[Tensor]) -> Iterator[slice]:
    """Queries whose keys fit into memory together."""
    a_query = index_Rk.shape[1] * sum(tensor[0].numel() for tensor in kept)
    size = max(1, ELEMENTS // max(1, a_query))
    for start in range(0, len(index_Rk), size):
        yield slice(start, start + size)


def _rows(tensor: Tensor, index_Ck: Tensor) -> Tensor:
    """tensor[index_Ck]."""
    return tensor.index_select(0, index_Ck.flatten()).view(*index_Ck.shape, *tensor.shape[1:])


class _Gathered(torch.autograd.Function):
    """Keeps inputs alone."""

    @staticmethod
    def forward(
        ctx: Any, function: Function, index_Rk: Tensor, num_asked: int, num_kept: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Runs the function on some queries at a time."""
        asked, kept = tensors[:num_asked], tensors[num_asked : num_asked + num_kept]
        shared = tensors[num_asked + num_kept :]
        ctx.function, ctx.counts = function, (num_asked, num_kept)
        ctx.save_for_backward(index_Rk, *tensors)
        ctx.set_materialize_grads(False)
        found: list[tuple[Tensor, ...]] = []
        for part in _parts(index_Rk, kept):
            keys = [_rows(tensor, index_Rk[part]) for tensor in kept]
            found.append(function([tensor[part] for tensor in asked], keys, shared))
        return tuple(torch.cat(outputs) for outputs in zip(*found, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Runs it again, with gradient, and adds up that of keys and of what is shared."""
        index_Rk, *tensors = ctx.saved_tensors
        num_asked, num_kept = ctx.counts
        needed = ctx.needs_input_grad[4:]
        before = num_asked + num_kept
        # a query's own gradients are written, the others added up
        totals = [torch.zeros_like(tensor) if need else None for tensor, need in zip(tensors, needed, strict=True)]
        for part in _parts(index_Rk, tensors[num_asked:before]):
            own = [tensor[part] for tensor in tensors[:num_asked]]
            own += [_rows(tensor, index_Rk[part]) for tensor in tensors[num_asked:before]]
            leaves = [
                tensor.detach().requires_grad_(need)
                for tensor, need in zip([*own, *tensors[before:]], needed, strict=True)
            ]
            found = iter(_gradients(ctx.function, leaves, (num_asked, before), gradients, part))
            for number, total in enumerate(totals):
                gradient = None if total is None else next(found, None)
                if total is None or gradient is None:
                    continue
                if number < num_asked:
                    total[part] = gradient
                elif number < before:
                    total.index_add_(0, index_Rk[part].flatten(), gradient.flatten(0, 1))
                else:
                    total += gradient
        return (None, None, None, None, *totals)


def _gradients(
    function: Function,
    leaves: list[Tensor],
    borders: tuple[int, int],
    gradients: Sequence[Tensor | None],
    part: slice,
) -> tuple[Tensor | None, ...]:
    """Of each leaf that needs one, from the gradients of the outputs of these queries."""
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
