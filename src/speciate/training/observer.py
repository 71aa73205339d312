"""The observer of a training run: what the selectors do on the probe set, and the loss on the validation set.

It stands outside the model (hooks), never sees the training batch, draws no random numbers and leaves no gradient, so
that a run with and without it has the same bits. Collapse happens within the first tens of steps: it looks often early.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from speciate.config.run import TelemetrySpec
from speciate.data.blocks import BlockSet
from speciate.model.token_batch import in_domains
from speciate.model.transformer import Transformer
from speciate.selection.metrics import collect_metrics
from speciate.selection.selection import recording
from speciate.selection.tally import Tally, tally
from speciate.training.checkpoint.store import Arrays
from speciate.training.loss.objective import Objective

BLOCKS_AT_ONCE = 32


def batches(token_BT: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first block, blocks) in portions that keep memory small."""
    for start in range(0, len(token_BT), BLOCKS_AT_ONCE):
        yield start, token_BT[start : start + BLOCKS_AT_ONCE]


def run_selectors(
    model: Transformer, objective: Objective, token_BT: Tensor, document_BT: Tensor, domain_B: Tensor | None = None
) -> None:
    """Runs, on probe blocks, all whose Selections and notes are to be seen: what the objective says, or the decoder."""
    with in_domains(domain_B):
        objective.run_probe(model, token_BT, document_BT)


@torch.no_grad()
def observe(
    model: Transformer,
    objective: Objective,
    token_BT: Tensor,
    document_BT: Tensor,
    num_documents: int,
    domain_B: Tensor | None = None,
    noting: bool = True,
) -> tuple[dict[str, Tally], list[list[object]]]:
    """What `model` does on these blocks: every selector's Tally over documents, by module path, and what is noted.

    Args:
        model: put into evaluation mode, so without noise, and back.
        objective: says what runs on probe blocks.
        token_BT: token ids.
        document_BT: the document of each position.
        num_documents: number of groups of each Tally.
        domain_B: the domain of each block, for a router that is told.
        noting: whether modules are listened to, which some of them work for.

    Returns:
        The tallies, and [path, name, at, mean] of each measurement.
    """
    tallies: dict[str, Tally] = {}
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    token_BT, document_BT = token_BT.to(device), document_BT.to(device)
    with collect_metrics(model, objective) if noting else nullcontext() as meter:
        for start, portion_BT in batches(token_BT):
            part = slice(start, start + len(portion_BT))
            document_P, of_B = document_BT[part].flatten(), None if domain_B is None else domain_B[part]
            with recording(model) as record:
                run_selectors(model, objective, portion_BT, document_BT[part], of_B)
            for path, selection in record.items():
                counted = tally(selection, document_P[selection.token_N], num_documents)
                tallies[path] = tallies[path] + counted if path in tallies else counted
    model.train(was_training)
    return tallies, [] if meter is None else meter.rows()


def due(telemetry: TelemetrySpec, step: int, num_steps: int) -> bool:
    """Whether the selectors are observed after `step` updates: often early, then regularly, always at the end."""
    if step <= telemetry.early_until and step % telemetry.early_every == 0:
        return True
    return step % telemetry.every == 0 or step == num_steps


def noted(telemetry: TelemetrySpec, step: int, num_steps: int) -> bool:
    """Whether modules are listened to after `step` updates: with each validation, since some notes are dear."""
    return step % telemetry.validation_every == 0 or step == num_steps


def arrays_of(tallies: dict[str, Tally]) -> Arrays:
    """A Tally a selector as named arrays, `path/field`."""
    return {f"{path}/{field.name}": getattr(one, field.name) for path, one in tallies.items() for field in fields(one)}


class Observer:
    """Looks at one run at its cadence, on a balanced prefix of the probe set."""

    def __init__(self, telemetry: TelemetrySpec, objective: Objective, probe: BlockSet, validation: BlockSet) -> None:
        self.telemetry, self.objective = telemetry, objective
        prefix = probe.prefix(telemetry.probe_blocks)
        self.token_BT = torch.from_numpy(prefix.tokens)
        self.document_BT = torch.from_numpy(prefix.document).long()
        self.domain_B = torch.from_numpy(prefix.domain).long()
        self.num_documents = len(probe.documents)
        self.domains = validation.domains
        # each pack's blocks together, as they come: which blocks share a product of matrices decides its last bits
        sets = (validation.tokens, validation.document, validation.label)
        self.validation = [
            (torch.tensor(int(pack)), *(torch.from_numpy(part[validation.domain == pack]).long() for part in sets))
            for pack in np.unique(validation.domain)
        ]

    def look(
        self, model: Transformer, step: int, seen: Arrays, counting: bool = True, noting: bool = True
    ) -> list[list[object]]:
        """Adds one observation to `seen`: arrays with a first axis of observations, and `steps`; returns the notes.

        A model without selectors adds nothing to `seen`.

        Args:
            model: to be looked at.
            step: its updates so far.
            seen: where it is added.
            counting: whether it is.
            noting: whether there are notes.
        """
        probe = (self.token_BT, self.document_BT, self.num_documents, self.domain_B)
        tallies, measured = observe(model, self.objective, *probe, noting=noting)
        if not counting:
            return measured
        new: Arrays = {"steps": np.array(step, dtype=np.int64), **arrays_of(tallies)} if tallies else {}
        for name, value in new.items():
            seen[name] = np.concatenate([seen[name], value[None]]) if name in seen else value[None]
        return measured

    @torch.no_grad()
    def validate(self, model: Transformer, objective: Objective) -> dict[str, float]:
        """Mean loss on the validation set by the documents' domain, in nats a token; no auxiliary loss is in it."""
        was_training = model.training
        model.eval()
        found: dict[str, list[Tensor]] = {domain: [] for domain in self.domains}
        device = next(model.parameters()).device
        for portion in self.validation:
            pack, token_BT, document_BT, label_BT = (part.to(device) for part in portion)
            for start, portion_BT in batches(token_BT):
                of_BT = document_BT[start : start + len(portion_BT)]
                label_BS = label_BT[start : start + len(portion_BT), 1:]
                counted_BS = objective.loss_mask(model, portion_BT, of_BT)
                with in_domains(pack.expand(len(portion_BT))):
                    nats_BS = objective.token_nll(model, portion_BT, of_BT).double()
                for index, domain in enumerate(self.domains):
                    found[domain].append(nats_BS[counted_BS & (label_BS == index)])
        model.train(was_training)
        return {domain: float(torch.cat(nats).mean()) for domain, nats in found.items()}
