"""Check what a reader finds, whatever its format, and add it to the record: here every trap of a trace is named.

Shape suffixes: N decisions, K chosen experts.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.selection.record_builder import UNKNOWN, RecordBuilder, SelectorShape
from speciate.selection.routing_record import NOT_CHOSEN, Integers
from speciate.traces.contract import ReadOptions
from speciate.traces.twice import contiguous_columns, names_one_twice

AT_ONCE = 1 << 15
"""Decisions of a layer that are collected before they are checked and added; a trace may have one token a line."""
MOST_EXPERTS = 8192
"""More experts than any router has: a larger id is an overflow, or marks what was not recorded."""
NARROW = 256
"""Ids that eight bits hold."""
ENOUGH = 32
"""Decisions from which on it is no accident that the choices of every layer ascend."""


@dataclass(eq=False)
class _Layer:
    path: str
    layer: int
    num_chosen: int
    ordered: bool
    num_experts: int
    decisions: int = 0
    left_out: int = 0
    largest: int = NOT_CHOSEN
    """The largest id so far."""
    waiting: list[tuple[str, dict[str, npt.NDArray[Any]]]] = field(default_factory=list)
    num_waiting: int = 0


class Decisions:
    """Takes the decisions that a reader finds, checks them, and adds them to a RecordBuilder.

    What is wrong beyond doubt is an error that names the file and the line or record. What can still be judged is
    left out or counted, and noted. Call `finish` at the end.
    """

    def __init__(self, builder: RecordBuilder, options: ReadOptions) -> None:
        self.builder, self.options = builder, options
        self._texts = {text.document: text for text in options.texts or ()}
        self._layers: dict[str, _Layer] = {}
        self._ascending, self._joined, self._missed = True, 0, 0
        self._wrong_length: list[str] = []

    def row(self, document: str, *, label: str = "", group: str = "", phase: str = "") -> int:
        """Return the row of a document, with the label and group that the user's texts give it."""
        if self._texts:
            known = self._texts.get(document)
            self._joined, self._missed = self._joined + (known is not None), self._missed + (known is None)
            if known is not None:
                label, group = known.label or label, known.group or group
        return self.builder.row(document, label=label, group=group, phase=phase or self.options.phase)

    def tokens(self, document: str, position_N: Integers) -> Integers | None:
        """Return the ids of a document's tokens at some positions, where the user gives them."""
        known = self.options.token_ids.get(document)
        if known is None or not len(position_N):
            return None
        if int(position_N.max()) >= len(known):
            self._wrong_length.append(document)
            return None
        return known[position_N]

    def add(
        self,
        where: str,
        selector: tuple[str, int],
        row_N: Integers,
        choice_NK: npt.NDArray[np.integer],
        *,
        ordered: bool = True,
        num_experts: int | None = None,
        **more: npt.NDArray[Any] | None,
    ) -> None:
        """Add decisions of one selector.

        Args:
            where: the file and the line or record that they come from.
            selector: its path, and its layer's number.
            row_N: rows of the decisions' documents, from `row`.
            choice_NK: chosen experts; -1 for none.
            ordered: whether the k are in order, as far as the format tells.
            num_experts: E, where the trace says it.
            more: `position_N`, `token_N` and `weight_NK`, as `RecordBuilder.add` takes them.

        Raises:
            ValueError: k or E differ from what was said, an id is impossible, or a token chooses an expert twice.
        """
        layer = self._layer(where, selector, choice_NK.shape[1], ordered=ordered, num_experts=num_experts)
        part = {"row_N": row_N, "choice_NK": choice_NK}
        part |= {name: value for name, value in more.items() if value is not None}
        if layer.waiting and layer.waiting[0][1].keys() != part.keys():
            self._flush(layer)
        layer.waiting.append((where, part))
        layer.num_waiting += len(row_N)
        if layer.num_waiting >= AT_ONCE:
            self._flush(layer)

    def finish(self) -> None:
        """Add what still waits, and note what only the whole of the trace shows."""
        for layer in self._layers.values():
            self._flush(layer)
        self._note_order()
        self._note_layers()
        self._note_texts()
        guessed = [layer for layer in self._layers.values() if layer.num_experts == UNKNOWN]
        if guessed:
            self.builder.add_note(
                "num_experts_guessed",
                "The trace does not say how many experts there are; the largest id that occurs was taken as the last."
                " Experts after it that no token chose would be missed: give --experts.",
            )

    def _layer(
        self, where: str, selector: tuple[str, int], k: int, *, ordered: bool, num_experts: int | None
    ) -> _Layer:
        path, number = selector
        wanted = self.options.num_chosen
        if wanted is not None and k != wanted:
            raise ValueError(f"{where}: {path} has {k} experts a token, but --chosen says {wanted}")
        said = self.options.num_experts
        if said is not None and num_experts is not None and said != num_experts:
            raise ValueError(f"{where}: {path} has {num_experts} experts by the trace, but --experts says {said}")
        layer = self._layers.get(path)
        if layer is None:
            layer = self._layers[path] = _Layer(path, number, k, ordered, num_experts or said or UNKNOWN)
        if num_experts is not None and num_experts != layer.num_experts:
            before = layer.num_experts or "an unknown number of"
            raise ValueError(f"{where}: {path} has {num_experts} experts, and {before} before it")
        if k != layer.num_chosen:
            raise ValueError(
                f"{where}: {path} has {k} experts a token, and {layer.num_chosen} before it;"
                " a layer's k is the same throughout a trace"
            )
        return layer

    def _flush(self, layer: _Layer) -> None:
        if not layer.waiting:
            return
        waiting, layer.waiting, layer.num_waiting = layer.waiting, [], 0
        names = waiting[0][1].keys()
        part = (
            waiting[0][1]
            if len(waiting) == 1
            else {name: np.concatenate([each[name] for _, each in waiting]) for name in names}
        )
        ends = np.cumsum([len(each["row_N"]) for _, each in waiting])
        places = [where for where, _ in waiting]
        choice_NK = contiguous_columns(part["choice_NK"])

        def where(at: int) -> str:
            return places[int(np.searchsorted(ends, at, side="right"))]

        self._check_range(layer, choice_NK, where)
        choice_NK = self._without_fill(layer, choice_NK, where)
        if self._ascending and layer.num_chosen > 1:
            self._ascending = bool((choice_NK[:, 1:] > choice_NK[:, :-1]).all())
        layer.largest = max(layer.largest, int(choice_NK.max()) if choice_NK.size else NOT_CHOSEN)
        layer.decisions += len(choice_NK) if choice_NK.min(initial=0) >= 0 else int((choice_NK >= 0).any(axis=1).sum())
        shape = SelectorShape(layer.path, layer.layer, layer.num_experts, layer.num_chosen, layer.ordered)
        more = {name: value for name, value in part.items() if name not in ("row_N", "choice_NK")}
        self.builder.add(shape, part["row_N"], choice_NK, **more)

    def _check_range(self, layer: _Layer, choice_NK: npt.NDArray[Any], where: Any) -> None:
        if not choice_NK.size:
            return
        limit = layer.num_experts or MOST_EXPERTS
        largest, smallest = int(choice_NK.max()), int(choice_NK.min())
        if largest < limit and smallest >= NOT_CHOSEN:
            return
        wrong = smallest if smallest < NOT_CHOSEN else largest
        at = int(np.argmax((choice_NK == wrong).any(axis=1)))
        said = (
            f"the router has {layer.num_experts} experts"
            if layer.num_experts
            else f"no router has {MOST_EXPERTS} experts"
        )
        why = (
            "a number that overflowed, or a mark for what was not recorded"
            if smallest < NOT_CHOSEN or largest >= MOST_EXPERTS
            else "a wrong number of experts, or physical ids of experts that the server holds twice"
        )
        raise ValueError(f"{where(at)}: expert {wrong} of {layer.path} is out of range: {said}; {why}")

    def _without_fill(self, layer: _Layer, choice_NK: npt.NDArray[Any], where: Any) -> npt.NDArray[Any]:
        """Take decisions that name expert 0 k times as not recorded, and refuse others that name one twice."""
        twice_N = names_one_twice(choice_NK)
        if twice_N is None:
            return choice_NK
        same_N = twice_N & (choice_NK == 0).all(axis=1)
        if not same_N[twice_N].all():
            at = int(np.argmax(twice_N & ~same_N))
            named = ", ".join(str(expert) for expert in choice_NK[at])
            raise ValueError(
                f"{where(at)}: a token of {layer.path} chooses an expert twice ({named}):"
                " k is wrong, or the axes of layers and choices are exchanged"
            )
        layer.left_out += int(same_N.sum())
        signed = choice_NK.astype(np.int16)
        signed[same_N] = NOT_CHOSEN
        return signed

    def _note_order(self) -> None:
        layers = [layer for layer in self._layers.values() if layer.num_chosen > 1 and layer.decisions]
        if not any(layer.ordered for layer in layers):
            lost = bool(layers)
        else:
            lost = self._ascending and bool(layers) and min(layer.decisions for layer in layers) >= ENOUGH
        if lost:
            self.builder.forget_order()
            self.builder.add_note(
                "order_lost",
                "The experts of each token are in the order of their numbers, not of their scores, so first choices"
                " are unknown.",
            )

    def _note_layers(self) -> None:
        layers = sorted(self._layers.values(), key=lambda layer: (layer.layer, layer.path))
        filled = [layer for layer in layers if layer.left_out]
        if filled:
            count = sum(layer.left_out for layer in filled)
            empty = [layer.path for layer in filled if not layer.decisions]
            self.builder.add_note(
                "not_recorded",
                f"{count} decision{'s name' if count > 1 else ' names'} expert 0 k times, as a writer fills what it did"
                " not record (a layer without a router, a cached prefix); such were left out"
                + (f". Nothing else is there of {_listed(empty)}." if empty else "."),
            )
        layers = [layer for layer in layers if layer.decisions]
        narrow = [
            layer.path for layer in layers if layer.num_experts > NARROW > layer.largest and layer.decisions > NARROW
        ]
        if narrow:
            self.builder.add_note(
                "narrow_ids",
                f"No expert of {_listed(narrow)} is above {NARROW - 1}, though there are more: ids that were stored in"
                " 8 bits come out as those of other experts.",
            )
        alone = [layer.path for layer in layers if layer.num_chosen == 1 and layer.largest == 0]
        if alone:
            self.builder.add_note(
                "only_expert_0",
                f"{_listed(alone)} has expert 0 for every token: it has collapsed, or the writer fills layers that"
                " have no router with zeros. With k = 1 the trace cannot tell the two apart.",
            )
        most = max((layer.decisions for layer in layers), default=0)
        fewer = [f"{layer.path} ({layer.decisions})" for layer in layers if layer.decisions < most]
        if fewer:
            self.builder.add_note(
                "uneven_layers",
                f"Layers have different numbers of tokens: most have {most}, but {_listed(fewer)}. Tokens of a layer"
                " may be missing, or files or ranks number their layers differently.",
            )
        numbers = {layer.layer for layer in layers if layer.layer >= 0}
        missing = sorted(set(range(min(numbers, default=0), max(numbers, default=0))) - numbers)
        if missing:
            self.builder.add_note(
                "missing_layers",
                f"There is nothing of layer {_listed([str(number) for number in missing])}, which lies between layers"
                " that were recorded: it has no router, or was not recorded.",
            )

    def _note_texts(self) -> None:
        if self._missed:
            few = self._missed + self._joined
            self.builder.add_note(
                "texts_not_found",
                f"{self._missed} of {few} documents have no line in the texts with their name, and so no label.",
            )
        if self._wrong_length:
            self.builder.add_note(
                "tokens_differ",
                f"There are fewer token ids than positions for {_listed(sorted(set(self._wrong_length)))}; they were"
                " not joined: another tokenizer, or other texts.",
            )


def _listed(names: list[str], most: int = 4) -> str:
    """Return the names in words, the first few of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
