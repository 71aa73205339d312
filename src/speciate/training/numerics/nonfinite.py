"""A step whose loss or gradient is not finite: undone and left out, or the end of the run, with where it came first."""

from typing import Any

from torch import Tensor

from speciate.model.token_batch import in_domains
from speciate.training.checkpoint.store import State
from speciate.training.context import StepSnapshot, TrainContext, micro_batch_domains, micro_batches
from speciate.training.numerics import loss_monitor
from speciate.training.numerics.loss_monitor import FailedRun
from speciate.training.numerics.precision import autocast, uncompiled


def skip_or_fail(run: TrainContext, state: State, before: StepSnapshot, seen: dict[str, float]) -> dict[str, float]:
    """Undoes a step that is not finite; what happened is that it was skipped.

    Raises:
        FailedRun: it must not be skipped; the report says where the first such number was.
    """
    words = f"step {state.step}: loss {seen['loss']}, auxiliary {seen['auxiliary']}, gradient norm {seen['grad_norm']}"
    allowed = loss_monitor.PATIENCE if run.spec.training.on_nonfinite == "skip" else 0
    if loss_monitor.skipped_in_a_row(state.metrics) < allowed:
        before.restore(state)
        return {"skipped": 1.0, "lr": seen["lr"]}
    gradients = {
        "gradient_norms": loss_monitor.gradient_norms(state.model),
        "gradients_not_finite": loss_monitor.not_finite(state.model, gradients=True),
    }
    before.restore(state)
    where = first_not_finite(run, state)
    before.restore(state)
    report = {"step": state.step, **seen, **where, **gradients}
    report["weights_not_finite"] = loss_monitor.not_finite(state.model, gradients=False)
    report["blocks"] = [] if run.rows is None else run.rows(state.step).tolist()
    if allowed:
        words += f", after {allowed} steps in a row that were skipped"
    place = where["module"] or "no module's output, so in the loss or the gradient"
    reason = f"{words}; first in {place}; no update was made"
    raise FailedRun(f"{run.name}: {reason}", {"reason": reason, **report})


def first_not_finite(run: TrainContext, state: State) -> dict[str, Any]:
    """The first micro-batch, from 0, and the module in it whose output is not finite; None and None for none."""
    # of sharded ones a forward pass is everybody's, and here each process would stop at its own
    portions = [] if run.ranks.sharded else micro_batches(run, state)
    for index, (token_BT, document_BT, _) in enumerate(portions):

        def forward(token_BT: Tensor = token_BT, document_BT: Tensor | None = document_BT, index: int = index) -> None:
            told = in_domains(micro_batch_domains(run, state, index, len(portions)))
            with autocast(run.spec.training, token_BT.device), uncompiled(run.spec.training), told:
                run.objective(state.model, token_BT, document_BT)

        module = loss_monitor.first_not_finite(state.model, forward)
        if module is not None:
            return {"micro_batch": index, "module": module}
    return {"micro_batch": None, "module": None}
