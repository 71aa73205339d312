"""Change what a router makes of its tokens, from outside of any family's code.

A router's forward has one product that gives its logits, and may add a learned bias to its scores. Both are altered as
they come out of torch, inside of this router's forward alone. So every family reroutes by its own rule: its groups,
its weights and their normalisation are those that it would have had with these logits.

N tokens, S slots.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

PRODUCTS = (torch.nn.functional.linear, torch.mm, torch.matmul, Tensor.matmul, Tensor.__matmul__)
SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__)

Alter = Callable[[Tensor], Tensor]
"""(N, S) -> (N, S): alters logits, and scores with their bias."""


class AlteredLogits(TorchFunctionMode):
    """Alters the logits of one router while it is entered.

    Args:
        num_tokens: N.
        num_slots: S.
        width: number of outputs of the product; those beyond S (shared experts) stay as they are.
        alter: what becomes of logits.
        alters_sums: whether scores to which a bias has been added are altered, too.
    """

    def __init__(self, num_tokens: int, num_slots: int, *, width: int, alter: Alter, alters_sums: bool) -> None:
        super().__init__()
        self.num_tokens, self.num_slots, self.width = num_tokens, num_slots, width
        self.alter, self.alters_sums = alter, alters_sums

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in PRODUCTS and self._is_about(output, self.width):
            return self._altered(output)
        if self.alters_sums and func in SUMS and self._is_about(output, self.num_slots):
            biases = [value for value in args if isinstance(value, Tensor) and value.numel() == self.num_slots]
            if len(biases) > (self.num_tokens == 1):
                return self._altered(output)
        return output

    def _is_about(self, output: Any, width: int) -> bool:
        return (
            isinstance(output, Tensor) and output.shape[-1:] == (width,) and output.numel() == width * self.num_tokens
        )

    def _altered(self, output: Tensor) -> Tensor:
        rows_NW = output.reshape(self.num_tokens, -1)
        altered_NS = self.alter(rows_NW[:, : self.num_slots])
        return torch.cat([altered_NS, rows_NW[:, self.num_slots :]], dim=1).view(output.shape)


@contextmanager
def altered_logits(
    router: nn.Module, num_tokens: int, num_slots: int, *, alter: Alter, alters_sums: bool = True
) -> Iterator[None]:
    """Alter what a router makes of its tokens inside the `with` block.

    Args:
        router: the module that computes the logits in its forward.
        num_tokens: number of tokens of each call.
        num_slots: number of its slots.
        alter: what becomes of its logits.
        alters_sums: whether scores to which a bias has been added are altered, too.
    """
    weight = dict(router.named_parameters(recurse=False)).get("weight")
    width = len(weight) if weight is not None and weight.dim() == 2 else num_slots
    entered: list[AlteredLogits] = []

    def before(_: nn.Module, args: tuple[Any, ...]) -> None:
        mode = AlteredLogits(num_tokens, num_slots, width=width, alter=alter, alters_sums=alters_sums)
        mode.__enter__()  # type: ignore[no-untyped-call]
        entered.append(mode)

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        entered.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    handles = [router.register_forward_pre_hook(before), router.register_forward_hook(after, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def without_slots(gone_NS: Tensor) -> Alter:
    """Return what makes slots as if they were not there: logits and scores of -inf where `gone_NS` is true."""

    def alter(logits_NS: Tensor) -> Tensor:
        return logits_NS.masked_fill(gone_NS.to(logits_NS.device), -torch.inf)

    return alter


def of_other_tokens(from_N: Tensor) -> Alter:
    """Return what gives each token the logits of another one, so that every slot keeps its load."""

    def alter(logits_NS: Tensor) -> Tensor:
        return logits_NS[from_N.to(logits_NS.device)]

    return alter
