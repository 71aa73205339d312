"""What a selector's choice is worth: the loss under each intervention minus the loss without it, document by document.

    cost = -log p(token) with one selector's choice overridden, minus the same without

in nats per token, on the first blocks of the probe set. Everything else of the model runs as trained. Blocks go through
in batches in which every domain has as many; within a batch, the layers below the selector are not computed again.

B blocks of T tokens, S predictions, G documents.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speciate.data.blocks import BlockSet
from speciate.evaluation.intervention import (
    kept_lifted,
    kept_loaded,
    kept_random,
    latest_keys,
    load_matched,
    load_matched_in_domain,
    masked_control,
    masked_slot,
    random_slots,
    top_slot,
)
from speciate.evaluation.kept_slots import numbers_kept
from speciate.evaluation.overrides import Call, Change, Intervention, override
from speciate.model.initial_weights import generator
from speciate.model.token_batch import TokenBatch, in_domains
from speciate.model.transformer import Transformer
from speciate.selection.selection import Selector, record_selections, selectors
from speciate.training.objective_base import Objective
from speciate.training.probe import BLOCKS_AT_ONCE

INTERVENTIONS: dict[str, Intervention] = {
    module.__name__.rpartition(".")[2]: module.INTERVENTION
    for module in (
        load_matched,
        load_matched_in_domain,
        random_slots,
        top_slot,
        masked_slot,
        masked_control,
        kept_loaded,
        kept_lifted,
        kept_random,
        latest_keys,
    )
}
"""Every kind of intervention, by the name of its file."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Blocks that go through the model together."""

    number: int
    token_BT: Tensor
    document_BT: Tensor
    domain_B: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Sums of nats by document."""

    nats_G: np.ndarray[Any, np.dtype[np.float64]]
    tokens_G: np.ndarray[Any, np.dtype[np.float64]]
    """Number of predictions."""

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.nats_G + other.nats_G, self.tokens_G + other.tokens_G)


@dataclass(frozen=True, slots=True)
class Case:
    """One intervention on one selector."""

    selector: str
    """Its module path."""
    intervention: str
    slot: int
    """The slot that it is about, or the number of slots that it keeps; -1: neither."""


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What every pass over the blocks needs."""

    model: Transformer
    objective: Objective
    num_documents: int
    seed: int

    def nats(self, batch: Batch) -> Sums:
        """Return the nats of a batch, as the model is now."""
        with in_domains(batch.domain_B):
            nats_BS, counted_BS = self.objective.probe_nll(self.model, batch.token_BT, batch.document_BT)
        document_N = batch.document_BT[:, 1:][counted_BS].cpu()
        nats_N = nats_BS[counted_BS].double().cpu()
        sums = torch.zeros(2, self.num_documents, dtype=torch.float64)
        sums[0].index_add_(0, document_N, nats_N)
        sums[1].index_add_(0, document_N, torch.ones_like(nats_N))
        return Sums(*sums.numpy())


def batches(blocks: BlockSet, device: str | torch.device = "cpu") -> list[Batch]:
    """Return the blocks in batches of whole rounds, in each of which every domain has one block."""
    num_domains = max(1, len(blocks.domains))
    size = max(1, BLOCKS_AT_ONCE // num_domains) * num_domains
    arrays = (blocks.tokens, blocks.document, blocks.domain)
    tensors = [torch.from_numpy(np.ascontiguousarray(array)).long().to(device) for array in arrays]
    parts = zip(*(tensor.split(size) for tensor in tensors), strict=True)
    return [Batch(number, *part) for number, part in enumerate(parts)]


def cases(model: Transformer, load: dict[str, Tensor], max_slots: int) -> list[Case]:
    """Return every intervention on every selector that made a decision.

    Args:
        model: the model.
        load: share of each domain's choices that each slot of a selector has, by its path.
        max_slots: largest number of slots of a selector that are masked, spread evenly over their order by load.
    """
    planned: list[Case] = []
    for path, selector in selectors(model).items():
        for name, intervention in INTERVENTIONS.items():
            if path not in load or intervention.change_of(selector) is None:
                continue
            variants = [-1]
            if intervention.variants == "slots":
                variants = spread_slots(load[path].mean(0), max_slots)
            elif intervention.variants == "kept":
                variants = numbers_kept(selector)
            planned += [Case(path, name, slot) for slot in variants]
    return planned


def spread_slots(load_S: Tensor, max_slots: int) -> list[int]:
    """Return the slots that have a load, or `max_slots` of them at equal distances in the order of their load."""
    by_load = [slot for slot in load_S.argsort(descending=True, stable=True).tolist() if load_S[slot] > 0]
    if len(by_load) > max_slots:
        by_load = [by_load[round(place * (len(by_load) - 1) / max(1, max_slots - 1))] for place in range(max_slots)]
    return sorted(by_load)


class _Replay(nn.Module):
    """Stands for the blocks below a layer: returns the residual stream that they gave."""

    def __init__(self, x_BTD: Tensor) -> None:
        super().__init__()
        self.x_BTD = x_BTD

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        return self.x_BTD


@contextmanager
def keep_inputs(model: Transformer) -> Iterator[dict[int, Tensor]]:
    """Keep the input of every block of the model that runs inside, by the block's number."""
    kept: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            kept[layer] = args[0]

        return hook

    handles = [block.register_forward_pre_hook(keep(layer)) for layer, block in enumerate(model.blocks)]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def start_at(model: Transformer, layer: int, x_BTD: Tensor) -> Iterator[None]:
    """Let the model begin at block `layer`, with this input, whatever tokens it reads."""
    blocks, frozen = model.blocks, model.frozen_layers
    model.blocks, model.frozen_layers = nn.ModuleList([_Replay(x_BTD), *list(blocks)[layer:]]), None
    try:
        yield
    finally:
        model.blocks, model.frozen_layers = blocks, frozen


def layer_of(model: Transformer, selector: Selector) -> int | None:
    """Return the number of the block that holds the selector; None: it is outside the blocks."""
    layers = (layer for layer, block in enumerate(model.blocks) if any(part is selector for part in block.modules()))
    return next(layers, None)


@torch.no_grad()
def nats_by_case(
    model: Transformer, objective: Objective, blocks: BlockSet, *, seed: int, max_slots: int
) -> tuple[Sums, dict[Case, Sums]]:
    """Return the nats by document without and with every intervention.

    Args:
        model: in evaluation mode.
        objective: gives each prediction's nats.
        blocks: blocks of the probe set; every domain has as many.
        seed: seed of the random choices.
        max_slots: largest number of slots of a selector that are masked one by one.
    """
    setting = Setting(model, objective, len(blocks.documents), seed)
    parts = batches(blocks, next(model.parameters()).device)
    clean, load = without_intervention(setting, parts)
    planned = cases(model, load, max_slots)
    results: dict[Case, Sums] = {}
    for batch in parts if planned else ():
        with keep_inputs(model) as inputs:
            setting.nats(batch)
        for case in planned:
            sums = intervene(setting, case, batch, load=load[case.selector], inputs=inputs)
            results[case] = results[case] + sums if case in results else sums
    return clean, results


def without_intervention(setting: Setting, parts: list[Batch]) -> tuple[Sums, dict[str, Tensor]]:
    """Return the nats by document, and by the selector's path the share of each domain's choices that a slot has."""
    sums: list[Sums] = []
    num_domains = 1 + max(int(batch.domain_B.max()) for batch in parts)
    chosen: dict[str, Tensor] = {}
    for batch in parts:
        with record_selections(setting.model) as record:
            sums.append(setting.nats(batch))
        for path, selection in record.items():
            domain_N = batch.domain_B[selection.token_N // batch.token_BT.shape[1]]
            total_DS = selection.chosen_NS.new_zeros(num_domains, selection.chosen_NS.shape[1], dtype=torch.float64)
            total_DS.index_add_(0, domain_N, selection.chosen_NS.double())
            chosen[path] = chosen[path] + total_DS if path in chosen else total_DS
    load = {
        path: total_DS / total_DS.sum(1, keepdim=True).clamp_min(1e-12)
        for path, total_DS in chosen.items()
        if total_DS.sum() > 0
    }
    clean = sums[0]
    for part in sums[1:]:
        clean = clean + part
    return clean, load


def intervene(setting: Setting, case: Case, batch: Batch, *, load: Tensor, inputs: dict[int, Tensor]) -> Sums:
    """Return the nats of a batch under one intervention.

    Args:
        setting: the model and its objective.
        case: the intervention.
        batch: the blocks.
        load: share of each domain's choices that each slot of the selector has.
        inputs: input of each block of the model on this batch, without intervention.
    """
    selector = selectors(setting.model)[case.selector]
    change = INTERVENTIONS[case.intervention].change_of(selector)
    assert change is not None, "a case exists only where the intervention does"
    draw = generator("intervention", case.selector, case.intervention, case.slot, batch.number, setting.seed)
    layer = layer_of(setting.model, selector)
    begin = nullcontext() if layer is None else start_at(setting.model, layer, inputs[layer])
    with override(selector, _changed(selector, change, draw, load=load, slot=case.slot)), begin:
        return setting.nats(batch)


def _changed(
    selector: Selector, change: Change, draw: torch.Generator, *, load: Tensor, slot: int
) -> Callable[[tuple[Any, ...], Any], Any]:
    return lambda args, output: change(Call(selector, args, output, draw, load, slot))
