"""Steps whose loss or gradient is not finite: skip them, or end the run and report where the first bad number was."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from speciate.model.token_batch import in_domains
from speciate.training.checkpoint.state import State
from speciate.training.context import MicroBatch, StepSnapshot, TrainContext, micro_batches
from speciate.training.distributed.ranks import scalar
from speciate.training.numerics.loss_monitor import FailedRun, skipped_in_a_row
from speciate.training.numerics.precision import autocast, uncompiled

MAX_SKIPPED = 10
"""Steps in a row that may be skipped."""


def skip_or_fail(
    context: TrainContext, state: State, before: StepSnapshot, step_metrics: dict[str, float]
) -> dict[str, float]:
    """Undo a step that is not finite; return the metrics of a skipped step.

    Raises:
        FailedRun: the step may not be skipped; the report says where the first number was that is not finite.
    """
    loss, auxiliary, grad_norm = (step_metrics[name] for name in ("loss", "auxiliary", "grad_norm"))
    message = f"step {state.step}: loss {loss}, auxiliary {auxiliary}, gradient norm {grad_norm}"
    allowed = MAX_SKIPPED if context.spec.training.on_nonfinite == "skip" else 0
    if skipped_in_a_row(state.metrics) < allowed:
        before.restore(state)
        return {"skipped": 1.0, "lr": step_metrics["lr"]}
    gradients = {
        "gradient_norms": layer_grad_norms(state.model),
        "gradients_not_finite": nonfinite_parameters(state.model, gradients=True),
    }
    before.restore(state)
    origin = find_first_nonfinite(context, state)
    before.restore(state)
    report = {"step": state.step, **step_metrics, **origin, **gradients}
    report["weights_not_finite"] = nonfinite_parameters(state.model, gradients=False)
    report["blocks"] = [] if context.rows is None else context.rows(state.step).tolist()
    if allowed:
        message += f", after {allowed} skipped steps in a row"
    if origin["module"] is None:
        where = "every module's output is finite, so the loss or the gradient is the first that is not"
    else:
        where = f"the first module whose output is not finite is {origin['module']}"
    reason = f"{message}; {where}; no update was made"
    raise FailedRun(f"{context.name}: {reason}", {"reason": reason, **report})


def find_first_nonfinite(context: TrainContext, state: State) -> dict[str, Any]:
    """Return the first micro-batch, from 0, and the module in it whose output is not finite; None and None if none."""
    # with sharded tensors a forward pass is a collective call, but here each process would stop at its own module
    batches = [] if context.ranks.sharded else micro_batches(context, state)
    for index, batch in enumerate(batches):

        def forward(batch: MicroBatch = batch) -> None:
            settings = context.spec.training
            with autocast(settings, batch.token_BT.device), uncompiled(settings), in_domains(batch.domain_B):
                context.objective(state.model, batch.token_BT, batch.document_BT)

        module = first_nonfinite_module(state.model, forward)
        if module is not None:
            return {"micro_batch": index, "module": module}
    return {"micro_batch": None, "module": None}


def first_nonfinite_module(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """Return the path of the first module whose output is not finite when `forward` runs; None if there is none."""
    paths: list[str] = []

    def make_hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            if not paths and any(isinstance(item, Tensor) and not bool(item.isfinite().all()) for item in outputs):
                paths.append(path)

        return hook

    handles = [module.register_forward_hook(make_hook(path)) for path, module in model.named_modules() if path]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return paths[0] if paths else None


@torch.no_grad()
def layer_grad_norms(model: nn.Module) -> dict[str, float]:
    """Return the gradient norm of each layer."""
    by_layer: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            by_layer.setdefault(_layer_of(name), []).append(parameter.grad)
    return {layer: scalar(torch.nn.utils.get_total_norm(gradients)) for layer, gradients in by_layer.items()}


def _layer_of(name: str) -> str:
    """`blocks.3.ffn.up.weight` -> `blocks.3`; of any other name the first part."""
    parts = name.split(".")
    return ".".join(parts[:2] if len(parts) > 1 and parts[1].isdigit() else parts[:1])


def nonfinite_parameters(model: nn.Module, gradients: bool) -> list[str]:
    """Return the parameters whose values, or gradients, are not all finite, in the order of their definition."""
    values = ((name, weight.grad if gradients else weight) for name, weight in model.named_parameters())
    return [name for name, value in values if value is not None and not bool(value.isfinite().all())]
