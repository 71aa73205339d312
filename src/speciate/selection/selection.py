"""What every learned selector reports, and how an observer outside the model collects it.

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
    of capacity c, uniform over the visible keys for a sparse-attention indexer. Divergence is measured against it.
    """

    probs_NS: Tensor
    """Probabilities before the choice is made; rows sum to one. Without noise and without a balancing bias."""
    chosen_NS: Tensor
    """The choice itself, with 1/k on each of k chosen slots; rows sum to one. No gradient."""
    null_NS: Tensor
    """What an unlearned selector would do; rows sum to one. Broadcastable, so (1, S) serves a constant one."""
    token_N: Tensor
    """Which position of the flattened batch each decision is about: a selector behind another sees only some."""
    loss: Tensor
    """The selector's own auxiliary loss, weighted, a scalar; zero where it has none. Never part of a reported loss."""


class Reports(Protocol):
    """What a selector's forward returns: anything that carries its Selection."""

    @property
    def selection(self) -> Selection:
        """What this call selected."""
        ...


class Selector(nn.Module):
    """A module that decides where computation goes. Its forward returns an object with a `selection`.

    The training loop calls the two hooks below around each optimizer step; most selectors need neither.
    """

    num_slots: int

    def before_update(self, progress: float) -> None:
        """Called before the step's first forward. progress: share of the training already done, in [0, 1)."""

    def after_update(self) -> None:
        """Called once the optimizer has stepped."""


def selectors(model: nn.Module) -> dict[str, Selector]:
    """Every selector of a model under its module path, in the order of the forward pass's definition."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Selector)}


_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


@contextmanager
def recomputation() -> Iterator[None]:
    """What runs inside repeats an earlier forward pass for its gradient: nothing in it is recorded or counted anew."""
    before = _recomputing.set(True)
    try:
        yield
    finally:
        _recomputing.reset(before)


def recomputing() -> bool:
    """Whether this forward pass is a repetition; a selector that counts its calls must leave those out."""
    return _recomputing.get()


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, Selection]]:
    """Collects the Selection of each selector that runs inside the block, under its module path.

    Ordinary forward hooks do it: the model knows nothing of its observer. A selector may run once in one recording.

    Raises:
        RuntimeError: a selector ran twice, so that its first Selection would be lost.
    """
    record: dict[str, Selection] = {}

    def collect(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Reports) -> None:
            if recomputing():
                return
            if path in record:
                raise RuntimeError(f"selector {path} ran twice in one recording; open one recording a forward pass")
            record[path] = real(output.selection)

        return hook

    handles = [module.register_forward_hook(collect(path)) for path, module in selectors(model).items()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def real(selection: Selection) -> Selection:
    """The selection without decisions about padding, whose `token_N` is negative; see `Tokens.take`."""
    if not bool((selection.token_N < 0).any()):
        return selection
    kept_N = selection.token_N >= 0
    null_NS = selection.null_NS if len(selection.null_NS) == 1 else selection.null_NS[kept_N]
    parts = (selection.probs_NS[kept_N], selection.chosen_NS[kept_N], null_NS, selection.token_N[kept_N])
    return Selection(*parts, loss=selection.loss)


def auxiliary_loss(record: dict[str, Selection]) -> Tensor:
    """Mean of the selectors' own losses over the selectors that ran (Fedus et al. 2021 sum; S1 averages over layers).

    The mean keeps a loss's weight comparable between models of different depth.

    Raises:
        ValueError: nothing was recorded.
    """
    if not record:
        raise ValueError("no selector ran; a dense model has no auxiliary loss")
    return torch.stack([selection.loss for selection in record.values()]).mean()
