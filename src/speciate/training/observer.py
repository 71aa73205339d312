"""The observer of a training run: what the selectors do on the probe set, and the loss on the validation set.

It stands outside the model (hooks), never sees the training batch, draws no random numbers and leaves no gradient, so
a run with it and one without have the same bits. Collapse happens within the first tens of steps, so it observes often
at first.
"""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from speciate.config.run import TelemetrySpec
from speciate.data.blocks import BlockSet
from speciate.model.token_batch import in_domains
from speciate.model.transformer import Transformer
from speciate.training.objective_base import Objective
from speciate.training.probe import Arrays, batches, observe, tally_arrays


def observation_due(telemetry: TelemetrySpec, step: int, num_steps: int) -> bool:
    """Return whether selectors are observed after `step` updates: often early, then regularly, and at the end."""
    if step <= telemetry.early_until and step % telemetry.early_every == 0:
        return True
    return step % telemetry.every == 0 or step == num_steps


def validation_due(telemetry: TelemetrySpec, step: int, num_steps: int) -> bool:
    """Return whether the run is validated after `step` updates, and its modules' metrics are collected."""
    return step % telemetry.validation_every == 0 or step == num_steps


@runtime_checkable
class ReportsTelemetry(Protocol):
    """An optimizer that reports numbers about its updates."""

    def telemetry(self) -> dict[str, float]:
        """Return numbers by name."""


def optimizer_telemetry(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return what an optimizer reports about its updates; empty for one that reports nothing."""
    return optimizer.telemetry() if isinstance(optimizer, ReportsTelemetry) else {}


class Observer:
    """Observes one run, on a balanced prefix of the probe set."""

    def __init__(self, telemetry: TelemetrySpec, objective: Objective, probe: BlockSet, validation: BlockSet) -> None:
        self.telemetry, self.objective = telemetry, objective
        prefix = probe.prefix(telemetry.probe_blocks)
        self.token_BT = torch.from_numpy(prefix.tokens)
        self.document_BT = torch.from_numpy(prefix.document).long()
        self.domain_B = torch.from_numpy(prefix.domain).long()
        self.num_documents = len(probe.documents)
        self.domains = validation.domains
        # the blocks of each pack together, in order: which blocks share a matrix product decides its last bits
        arrays = (validation.tokens, validation.document, validation.label)
        self.validation = [
            (torch.tensor(int(pack)), *(torch.from_numpy(array[validation.domain == pack]).long() for array in arrays))
            for pack in np.unique(validation.domain)
        ]

    def observe(
        self, model: Transformer, step: int, telemetry: Arrays, *, with_tallies: bool = True, with_metrics: bool = True
    ) -> list[list[object]]:
        """Append one observation to `telemetry`, and return the metrics that modules record.

        Each array of `telemetry` has the observations as its first axis; `steps` holds their steps. `path/choice` has a
        bit for each position and slot, in bytes of eight slots. A model without selectors appends nothing.

        Args:
            model: the model to observe.
            step: the number of its updates so far.
            telemetry: altered in place.
            with_tallies: whether to append to `telemetry`.
            with_metrics: whether to collect metrics.
        """
        tallies, metrics, choices = observe(
            model,
            self.objective,
            self.token_BT,
            self.document_BT,
            num_documents=self.num_documents,
            domain_B=self.domain_B,
            with_metrics=with_metrics,
        )
        if not with_tallies:
            return metrics
        new: Arrays = {"steps": np.array(step, dtype=np.int64), **tally_arrays(tallies)} if tallies else {}
        # a bit for each slot: one byte a position with eight experts, so that choices can be compared between steps
        new |= {f"{path}/choice": np.packbits(choice_PS, axis=1) for path, choice_PS in choices.items()}
        for name, value in new.items():
            telemetry[name] = np.concatenate([telemetry[name], value[None]]) if name in telemetry else value[None]
        return metrics

    @torch.no_grad()
    def validate(self, model: Transformer, objective: Objective) -> dict[str, float]:
        """Return the mean validation loss of each domain's documents, in nats per token, without auxiliary losses."""
        was_training = model.training
        model.eval()
        losses: dict[str, list[Tensor]] = {domain: [] for domain in self.domains}
        device = next(model.parameters()).device
        for tensors in self.validation:
            pack, token_BT, document_BT, label_BT = (tensor.to(device) for tensor in tensors)
            for start, batch_BT in batches(token_BT):
                rows = slice(start, start + len(batch_BT))
                label_BS = label_BT[rows, 1:]
                loss_mask_BS = objective.loss_mask(model, batch_BT, document_BT[rows])
                with in_domains(pack.expand(len(batch_BT))):
                    nats_BS = objective.token_nll(model, batch_BT, document_BT[rows]).double()
                for index, domain in enumerate(self.domains):
                    losses[domain].append(nats_BS[loss_mask_BS & (label_BS == index)])
        model.train(was_training)
        return {domain: float(torch.cat(nats).mean()) for domain, nats in losses.items()}
