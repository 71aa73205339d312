"""Run a model on probe blocks, and collect what its selectors choose and what its modules record.

The probe stands outside the model (forward hooks), draws no random numbers and leaves no gradient.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speciate.model.token_batch import in_domains
from speciate.model.transformer import Transformer
from speciate.selection.metrics import collect_metrics
from speciate.selection.selection import record_selections
from speciate.selection.tally import Tally, tally
from speciate.training.objective_base import Objective

Arrays = dict[str, npt.NDArray[np.generic]]
"""Named arrays, as telemetry and probe files hold them."""
BLOCKS_AT_ONCE = 32


class Observation(NamedTuple):
    """What the selectors and modules of a model did on probe blocks."""

    tallies: dict[str, Tally]
    """Each selector's Tally by document, under its module path."""
    metrics: list[list[object]]
    """[path, name, at, mean] of each metric that modules recorded."""
    choices: dict[str, npt.NDArray[np.uint8]]
    """By the selector's path, 1 on each chosen slot of each position, (P, S); a row of 0 where it did not decide."""


def batches(token_BT: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (number of the first block, blocks) in batches that keep memory small."""
    for start in range(0, len(token_BT), BLOCKS_AT_ONCE):
        yield start, token_BT[start : start + BLOCKS_AT_ONCE]


def run_selectors(
    model: Transformer, objective: Objective, token_BT: Tensor, document_BT: Tensor, *, domain_B: Tensor | None = None
) -> None:
    """Run every selector of `model` on probe blocks, as the objective says, so that hooks can record them."""
    with in_domains(domain_B):
        objective.run_probe(model, token_BT, document_BT)


@torch.no_grad()
def observe(
    model: Transformer,
    objective: Objective,
    token_BT: Tensor,
    document_BT: Tensor,
    *,
    num_documents: int,
    domain_B: Tensor | None = None,
    with_metrics: bool = True,
) -> Observation:
    """Return what each selector chose, as a Tally by document and position by position, and recorded metrics.

    Args:
        model: put into evaluation mode, so without noise, and back.
        objective: decides what runs on probe blocks.
        token_BT: token ids.
        document_BT: the document of each position.
        num_documents: number of groups of each Tally.
        domain_B: the domain of each block, for a router that sees it.
        with_metrics: whether metrics are collected; some take modules extra work.
    """
    tallies: dict[str, Tally] = {}
    choices: dict[str, npt.NDArray[np.uint8]] = {}
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    token_BT, document_BT = token_BT.to(device), document_BT.to(device)
    with collect_metrics(model, objective) if with_metrics else nullcontext() as collector:
        for start, batch_BT in batches(token_BT):
            rows = slice(start, start + len(batch_BT))
            document_P, batch_domain_B = document_BT[rows].flatten(), None if domain_B is None else domain_B[rows]
            with record_selections(model) as record:
                run_selectors(model, objective, batch_BT, document_BT[rows], domain_B=batch_domain_B)
            for path, selection in record.items():
                of_batch = tally(selection, document_P[selection.token_N], num_documents)
                tallies[path] = tallies[path] + of_batch if path in tallies else of_batch
                chosen_NS = (selection.chosen_NS > 0).cpu().numpy()
                choice_PS = choices.setdefault(path, np.zeros((token_BT.numel(), chosen_NS.shape[1]), dtype=np.uint8))
                choice_PS[start * token_BT.shape[1] + selection.token_N.cpu().numpy()] = chosen_NS
    model.train(was_training)
    return Observation(tallies, [] if collector is None else collector.rows(), choices)


def tally_arrays(tallies: dict[str, Tally]) -> Arrays:
    """Return the fields of each selector's Tally as named arrays, `path/field`."""
    return {
        f"{path}/{field.name}": getattr(selector_tally, field.name)
        for path, selector_tally in tallies.items()
        for field in fields(selector_tally)
    }
