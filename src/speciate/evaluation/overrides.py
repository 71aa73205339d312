"""Override what a selector chooses for one forward pass, from outside the model.

A change is a function of one call of a selector (its arguments and its output) that returns another output. It enters
by an ordinary forward hook, so the model has no code for it, and outside of `override` every bit is as before. An
importance of masked diffusion chooses its masks in a method, `mask_probs`, which is replaced on the module alone.

N decisions among S slots, B blocks of T tokens, D domains.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from speciate.selection.selection import Selector
from speciate.training.diffusion.adaptive_masking import AdaptiveMasker


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a selector, as an intervention sees it."""

    selector: Any
    """The module that was called."""
    args: tuple[Any, ...]
    """The arguments that it was called with."""
    output: Any
    """The output that it gave."""
    draw: torch.Generator
    """Random numbers of this intervention on this batch."""
    load_DS: Tensor
    """Share of each domain's choices that each slot has without any intervention, on all blocks; rows sum to one."""
    slot: int = -1
    """The slot that the intervention is about, or the number of slots that it keeps; -1: neither."""

    @property
    def load_S(self) -> Tensor:
        """The mean load over domains."""
        return self.load_DS.mean(0)

    def uniforms(self, *shape: int) -> Tensor:
        """Draw numbers in [0, 1), float64, the same ones on every device."""
        numbers = torch.rand(shape, generator=self.draw, dtype=torch.float64, device="cpu")
        return numbers.to(self.load_DS.device)


Change = Callable[[Call], Any]
"""(call) -> what the selector returns instead; it must not alter the output in place."""


@dataclass(frozen=True, slots=True, eq=False)
class Intervention:
    """A kind of intervention: a file of `evaluation/intervention`."""

    changes: Mapping[type[Selector], Change]
    """Class of selectors -> the change that it makes to their calls."""
    variants: Literal["none", "slots", "kept"] = "none"
    """What it has a variant for. none: it has no variants; slots: each slot; kept: each number of kept slots."""
    applies: Callable[[Selector], bool] = lambda selector: True
    """Whether it exists for this selector of one of these classes."""

    def change_of(self, selector: Selector) -> Change | None:
        """Return the change that it makes to calls of this selector; None: it does not exist for it."""
        fitting = (change for kind, change in self.changes.items() if isinstance(selector, kind))
        change = next(fitting, None)
        return change if change is not None and self.applies(selector) else None


@contextmanager
def override(selector: Selector, change: Callable[[tuple[Any, ...], Any], Any]) -> Iterator[None]:
    """Replace what `selector` returns inside the `with` block.

    Args:
        selector: a selector of the model that runs inside.
        change: (arguments, output) -> the output instead; for an importance, those of `mask_probs`.
    """
    if isinstance(selector, AdaptiveMasker):
        chosen = selector.mask_probs

        def changed(*args: Any) -> Any:
            return change(args, chosen(*args))

        vars(selector)["mask_probs"] = changed
        try:
            yield
        finally:
            del vars(selector)["mask_probs"]
        return
    handle = selector.register_forward_hook(lambda module, args, output: change(args, output))
    try:
        yield
    finally:
        handle.remove()


def permutation_within(group_N: Tensor, order_N: Tensor) -> Tensor:
    """Return a permutation of N places, (N,): place n takes from place `result[n]`, always of its own group.

    Args:
        group_N: the group of each place, integer.
        order_N: a random number for each place.
    """
    by_chance = order_N.argsort(stable=True)
    shuffled = by_chance[group_N[by_chance].argsort(stable=True)]
    result = torch.empty_like(shuffled)
    result[group_N.argsort(stable=True)] = shuffled
    return result
