"""The Selection that every learned selector reports, and how an observer outside the model records it.

Shape suffixes: N decisions, S slots.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """One call of one selector: N decisions among S slots.

    The null is what an unlearned selector would do: uniform for a router of experts, (1 - c, c) for a Mixture-of-Depths
    with capacity c, uniform over the visible keys for an indexer of sparse attention. Divergence is measured from it.
    """

    probs_NS: Tensor
    """Probabilities before the choice, without noise and balancing bias; rows sum to one."""
    chosen_NS: Tensor
    """The choice, with 1/k on each of k chosen slots; rows sum to one. It has no gradient."""
    null_NS: Tensor
    """Probabilities of an unlearned selector; rows sum to one. Broadcastable, so a constant null is (1, S)."""
    token_N: Tensor
    """Index of each decision's token in the flattened batch; a selector behind another one sees only some tokens."""
    loss: Tensor
    """The selector's weighted auxiliary loss, a scalar; zero if it has none. Never part of a reported loss."""


class HasSelection(Protocol):
    """What a selector's forward returns: any object with a `selection`."""

    @property
    def selection(self) -> Selection:
        """The Selection of this call."""
        ...


class Selector(nn.Module):
    """Base of the modules that decide where computation goes. Its forward returns an object with a `selection`.

    The training loop calls the two hooks below around each optimizer step; most selectors need neither.
    """

    num_slots: int
    """Number of slots, S."""

    def before_update(self, progress: float) -> None:
        """Prepare an optimizer step, before its first forward; `progress` is the share of training done, in [0, 1)."""

    def after_update(self) -> None:
        """Update the selector after the optimizer has stepped."""


def selectors(model: nn.Module) -> dict[str, Selector]:
    """Return every selector of a model by its module path, in the order in which modules are defined."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Selector)}


_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


@contextmanager
def mark_recomputation() -> Iterator[None]:
    """Mark what runs inside as the repetition of a forward pass, of which nothing is recorded or counted again."""
    before = _recomputing.set(True)
    try:
        yield
    finally:
        _recomputing.reset(before)


def is_recomputing() -> bool:
    """Tell whether this forward pass is a repetition; a selector that counts its calls must ignore those."""
    return _recomputing.get()


@contextmanager
def record_selections(model: nn.Module) -> Iterator[dict[str, Selection]]:
    """Record the Selection of each selector that runs inside the `with` block, by its module path.

    It uses ordinary forward hooks, so the model knows nothing of its observer. A selector may run only once in it.

    Raises:
        RuntimeError: a selector ran twice, so its first Selection would be lost.
    """
    record: dict[str, Selection] = {}

    def collect(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: HasSelection) -> None:
            if is_recomputing():
                return
            if path in record:
                raise RuntimeError(
                    f"selector {path} ran twice in one record_selections(); open one for each forward pass"
                )
            record[path] = drop_padding(output.selection)

        return hook

    handles = [module.register_forward_hook(collect(path)) for path, module in selectors(model).items()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def drop_padding(selection: Selection) -> Selection:
    """Return the selection without decisions about padding, whose `token_N` is negative; see `TokenBatch.select`."""
    if not bool((selection.token_N < 0).any()):
        return selection
    kept_N = selection.token_N >= 0
    null_NS = selection.null_NS if len(selection.null_NS) == 1 else selection.null_NS[kept_N]
    parts = (selection.probs_NS[kept_N], selection.chosen_NS[kept_N], null_NS, selection.token_N[kept_N])
    return Selection(*parts, loss=selection.loss)


def auxiliary_loss(record: dict[str, Selection]) -> Tensor:
    """Return the mean of the auxiliary losses of the selectors that ran (Fedus et al. 2021 sum; S1 takes the mean).

    With the mean, a loss's weight is comparable between models of different depth.

    Raises:
        ValueError: no Selection was recorded.
    """
    if not record:
        raise ValueError("no selector ran; a dense model has no auxiliary loss")
    return torch.stack([selection.loss for selection in record.values()]).mean()
