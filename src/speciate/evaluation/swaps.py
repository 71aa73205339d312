"""Put the selectors of one model into another, and see what it costs: are they interchangeable?

    cost = -log p(token) with another run's selector in the place of the model's own, minus the same with its own

Everything else of the model stays. Runs of one seed begin with the same weights, so their slots can be compared by
number. Between seeds the numbers mean nothing: then each slot of the other router is also called what it agrees with
most, one to one, on the same blocks (Hungarian method).

P positions, S slots.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from speciate.data.blocks import BlockSet
from speciate.evaluation.interventions import Batch, Setting, Sums, batches, layer_of
from speciate.evaluation.overrides import override
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.model.transformer import Transformer
from speciate.selection.selection import Selector, record_selections, selectors
from speciate.training.objective_base import Objective

Change = Callable[[tuple[Any, ...], Any], Any]
"""(arguments, output) of a selector -> the output instead."""
ALL = "all"
"""Stands for all selectors of a model at once."""


@dataclass(frozen=True, slots=True)
class Donor:
    """Where a selector comes from."""

    kind: str
    """seed: another seed of the arm; arm: another arm at the same seed; step: the run itself, earlier."""
    ablation: str
    seed: int
    step: int
    """Number of updates that it has had."""


@dataclass(frozen=True, slots=True)
class Swap:
    """A selector of a donor in the place of the model's own."""

    donor: Donor
    selector: str
    """Its module path, or `all`."""
    relabelled: bool
    """Whether its slots were matched to the model's own."""


def fits(own: Selector, other: Selector) -> bool:
    """Tell whether `other` can stand in for `own`: the same class, slots, way of choosing, and shapes of weights."""
    if type(own) is not type(other) or own.num_slots != other.num_slots:
        return False
    if isinstance(own, TopK) and (own.top_k != other.top_k or type(own.choice) is not type(other.choice)):
        return False
    shapes = [{name: value.shape for name, value in part.state_dict().items()} for part in (own, other)]
    return all(shapes[1][name] == shape for name, shape in shapes[0].items() if name in shapes[1])


@contextmanager
def standing_in(model: Transformer, path: str, other: Selector) -> Iterator[None]:
    """Put `other` into the model at `path`, inside the `with` block."""
    parent, _, name = path.rpartition(".")
    module = model.get_submodule(parent)
    own = getattr(module, name)
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, own)


def choices(setting: Setting, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
    """Return the nats, and what each selector that runs chooses, (P, S) by its path; no decision is a row of zeros."""
    with record_selections(setting.model) as record:
        sums = setting.nats(batch)
    chosen: dict[str, Tensor] = {}
    for path, selection in record.items():
        chosen_NS = selection.chosen_NS.double()
        chosen_PS = chosen_NS.new_zeros(batch.token_BT.numel(), chosen_NS.shape[1])
        chosen[path] = chosen_PS.index_copy_(0, selection.token_N, chosen_NS)
    return sums, chosen


def match_slots(count_SS: Tensor) -> Tensor:
    """Return, for each slot of the other selector (row), the own slot (column) to call it by, so that most agree."""
    from scipy import optimize  # takes a second of CPU, which a study without swaps need not pay

    _, own_S = optimize.linear_sum_assignment(count_SS.cpu().numpy(), maximize=True)
    return torch.from_numpy(own_S).to(count_SS.device)


def renamed(slot_S: Tensor) -> Change:
    """Return the change of a router's output that calls slot s `slot_S[s]`."""

    def change(args: tuple[Any, ...], routing: Routing) -> Routing:
        chosen_NS = torch.zeros_like(routing.selection.chosen_NS)
        chosen_NS[:, slot_S] = routing.selection.chosen_NS
        selection = replace(routing.selection, chosen_NS=chosen_NS)
        return replace(routing, slot_NK=slot_S[routing.slot_NK], selection=selection)

    return change


@torch.no_grad()
def nats_by_swap(
    model: Transformer, objective: Objective, blocks: BlockSet, donors: Mapping[Donor, Transformer]
) -> tuple[Sums, dict[Swap, Sums]]:
    """Return the nats by document with the model's own selectors, and with those of each donor.

    Selectors outside the model's blocks stay: an importance decides what is asked, so nats could not be compared.

    Args:
        model: in evaluation mode.
        objective: gives each prediction's nats.
        blocks: blocks of the probe set.
        donors: models whose selectors stand in, in evaluation mode and on the same device.
    """
    setting = Setting(model, objective, len(blocks.documents), 0)
    parts = batches(blocks, next(model.parameters()).device)
    seen = [choices(setting, batch) for batch in parts]
    clean = functools.reduce(operator.add, (sums for sums, _ in seen))
    own = {path: part for path, part in selectors(model).items() if layer_of(model, part) is not None}
    own_choices = {path: [chosen[path] for _, chosen in seen] for path in own if all(path in part for _, part in seen)}
    results: dict[Swap, Sums] = {}
    for donor, other_model in donors.items():
        present = selectors(other_model)
        others = {path: present[path] for path in own_choices if path in present and fits(own[path], present[path])}
        for relabelled in (False, True) if donor.kind == "seed" else (False,):
            changed = {
                path: renamed(_own_names(setting, parts, (path, part), own_choices[path]))
                for path, part in others.items()
                if relabelled and isinstance(part, TopK)
            }
            if relabelled and not changed:
                continue
            for path, part in others.items() if not relabelled else ((path, others[path]) for path in changed):
                results[Swap(donor, path, relabelled)] = _swapped(setting, parts, {path: part}, changed)
            if len(others) > 1:
                results[Swap(donor, ALL, relabelled)] = _swapped(setting, parts, others, changed)
    return clean, results


def _own_names(
    setting: Setting, parts: list[Batch], selector: tuple[str, Selector], own_choices: list[Tensor]
) -> Tensor:
    """Return the own slot that each slot of the other selector agrees with, where it sees what the own one sees."""
    path, other = selector
    with standing_in(setting.model, path, other):
        other_choices = [choices(setting, batch)[1][path] for batch in parts]
    counts = [other_PS.T @ own_PS for other_PS, own_PS in zip(other_choices, own_choices, strict=True)]
    return match_slots(torch.stack(counts).sum(0))


def _swapped(
    setting: Setting, parts: list[Batch], others: Mapping[str, Selector], changed: Mapping[str, Change]
) -> Sums:
    """Return the nats with `others` in their places, and their outputs changed."""
    with ExitStack() as stack:
        for path, other in others.items():
            stack.enter_context(standing_in(setting.model, path, other))
            if path in changed:
                stack.enter_context(override(other, changed[path]))
        return functools.reduce(operator.add, (setting.nats(batch) for batch in parts))
