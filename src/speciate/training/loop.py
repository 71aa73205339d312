"""The training loop: train one run from its spec, blocks and seed.

Its bits are the same every time on one kind of processor, with the same number of threads and processes.

A step reads its blocks by number, so a run can resume at any step. It accumulates gradients over micro-batches, clips
them, updates the weights, and then lets the selectors adjust. The reported loss is the objective's alone. The
selectors' own losses are added to what is minimised, and reported separately as `auxiliary`.

A step's loss is the mean over all its predictions, however they are spread over its micro-batches: with c_i predictions
of mean loss m_i in micro-batch i, it is sum_i c_i m_i / sum_i c_i. The selectors' losses are averaged over
micro-batches.

If no update happens, random state and buffers are restored: before a step is retried in smaller micro-batches because
memory ran out, and where a step that is not finite is skipped or ends the run.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator

import torch

from speciate.io import is_out_of_memory
from speciate.model.token_batch import in_domains
from speciate.selection.selection import selectors
from speciate.training.checkpoint.state import State
from speciate.training.context import StepSnapshot, TrainContext, micro_batches
from speciate.training.distributed.ranks import LossModule, scalar
from speciate.training.logs.timing import PhaseTimer
from speciate.training.numerics import oom
from speciate.training.numerics.loss_monitor import FailedRun, LossMonitor
from speciate.training.numerics.nonfinite import skip_or_fail
from speciate.training.numerics.precision import autocast, uncompiled
from speciate.training.observer import observation_due, optimizer_telemetry, validation_due


def train(
    context: TrainContext,
    state: State,
    *,
    save: Callable[[State], None],
    should_stop: Callable[[], object],
    on_snapshot: Callable[[State], None],
    on_step_end: Callable[[State, dict[str, float]], None],
    timer: PhaseTimer,
) -> bool:
    """Train from `state` to the end of the run, or until it should stop.

    Args:
        context: what the run needs besides its state.
        state: where to begin; altered in place.
        save: saves a checkpoint; called every `checkpoint_every` steps and before the run stops.
        should_stop: whether to stop after the current step.
        on_snapshot: called after each step and before its checkpoint, since a resumed run does not repeat the step.
        on_step_end: called after each step and its checkpoint, with the step's metrics, to report progress.
        timer: collects where the time went.

    Returns:
        True if the run is complete, False if it was stopped and saved.

    Raises:
        FailedRun: a step was not finite, or the run diverged.
    """
    settings = context.spec.training
    monitor = LossMonitor(state.metrics, context.loss_limit, settings.num_steps)
    if state.step == 0:
        observe_if_due(context, state, timer)
    while state.step < settings.num_steps:
        with timer.measure("update"):
            step_metrics = train_step(context, state)
        state.metrics.append(json.dumps({"step": state.step, **step_metrics}) + "\n")
        state.step += 1
        observe_if_due(context, state, timer)
        step_metrics |= check_divergence(context, monitor, step_metrics, state.step)
        on_snapshot(state)
        save_now = state.step < settings.num_steps and (should_stop() or state.step % settings.checkpoint_every == 0)
        if save_now:
            with timer.measure("save"):
                save(state)
        on_step_end(state, step_metrics)  # after the save: reporting may fail, for example on a closed pipe
        if save_now and should_stop():
            return False
    return True


def train_step(context: TrainContext, state: State) -> dict[str, float]:
    """Make one optimizer step; return its metrics.

    Raises:
        FailedRun: the loss or the gradient is not finite, and such a step may not be skipped.
        MemoryError: memory ran out; the message names the settings to lower.
        ValueError: the step predicts nothing.

        In each case the weights are still those before the step.
    """
    settings, model = context.spec.training, state.model
    lr = set_lr(state.optimizer, context.lr_factor(state.step))
    progress = state.step / settings.num_steps
    for selector in selectors(model).values():
        selector.before_update(progress)
    context.objective.before_update(progress)
    before = StepSnapshot(state)
    loss, auxiliary = forward_backward_with_oom_retry(context, state, before)
    selector_norms = selector_grad_norms(model) if context.spec.telemetry.gradient_norms else {}
    # clip only once the norm is known to be finite: clipping by another would spread it to every layer
    norm_tensor = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    grad_norm = scalar(norm_tensor)
    step_metrics = {"loss": loss, "auxiliary": auxiliary, "grad_norm": grad_norm, "lr": lr}
    if not math.isfinite(loss + auxiliary + grad_norm):
        return skip_or_fail(context, state, before, step_metrics)
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), settings.max_grad_norm, norm_tensor)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    for selector in selectors(model).values():
        selector.after_update()
    if state.ema is not None:
        state.ema.update(model, state.step + 1)
    return step_metrics | selector_norms


def forward_backward(context: TrainContext, state: State) -> tuple[float, float]:
    """Run the step's micro-batches forward and backward; return the step's loss and the selectors' own loss."""
    loss_module, losses = context.loss_module or LossModule(context.objective, state.model), []
    batches = micro_batches(context, state)
    for index, batch in enumerate(batches):
        with context.ranks.gradient_sync(loss_module, last=index == len(batches) - 1):
            with autocast(context.spec.training, batch.token_BT.device), in_domains(batch.domain_B):
                loss, selector_loss = loss_module(batch.token_BT, batch.document_BT)
            total = loss / batch.loss_divisor
            if selector_loss is not None:
                total = total + selector_loss / len(batches)
            total.backward()
        losses.append((loss.detach(), batch.loss_divisor, 0.0 if selector_loss is None else selector_loss.detach()))
    # read once all micro-batches are queued: the GPU is waited for here, not at each of them
    step_loss, auxiliary = context.ranks.mean(
        sum(float(loss) / divisor for loss, divisor, _ in losses),
        sum(float(selector_loss) / len(batches) for _, _, selector_loss in losses),
    )
    return step_loss, auxiliary


def forward_backward_with_oom_retry(context: TrainContext, state: State, before: StepSnapshot) -> tuple[float, float]:
    """Run `forward_backward`; if memory runs out and the run allows it, retry in smaller micro-batches.

    Raises:
        MemoryError: the run does not allow smaller micro-batches, or there are none.
    """
    settings = context.spec.training
    while True:
        try:
            return forward_backward(context, state)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
        # outside the handler, whose exception keeps the failed step's tensors alive
        before.restore(state)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        current = state.grad_accumulation or settings.grad_accumulation
        larger = oom.next_accumulation(settings.blocks_per_step, current)
        # one of several processes cannot retry by itself
        if not settings.oom_retry or larger is None or context.ranks.world > 1:
            advice = oom.advice(settings, current)
            raise MemoryError(f"{context.name}: step {state.step}: out of memory ({reason}): {advice}")
        state.grad_accumulation = larger
        state.metrics.append(json.dumps({"step": state.step, "grad_accumulation": larger}) + "\n")


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set each group's learning rate to its peak times `factor`; return the base learning rate now in force."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(min(group["peak"] / group["scale"] for group in optimizer.param_groups) * factor)


def selector_grad_norms(model: torch.nn.Module) -> dict[str, float]:
    """Return the gradient norm of each selector's own parameters, `grad_norm/<module path>`, where it has any."""
    norms: dict[str, float] = {}
    for path, selector in selectors(model).items():
        gradients = [parameter.grad for parameter in selector.parameters() if parameter.grad is not None]
        if gradients:
            norms[f"grad_norm/{path}"] = scalar(torch.nn.utils.get_total_norm(gradients))
    return norms


def check_divergence(
    context: TrainContext, monitor: LossMonitor, step_metrics: dict[str, float], step: int
) -> dict[str, float]:
    """Return how far the step's loss jumped, as `spike`, if it did. Raises FailedRun if the run has diverged."""
    if "loss" not in step_metrics:
        return {}
    spike = monitor.update(step_metrics["loss"])
    median = monitor.diverged()
    if median is not None:
        reason = (
            f"step {step}: diverged: the median loss of the last steps is {median:.4g}, above the limit of"
            f" {context.loss_limit:.4g}"
        )
        raise FailedRun(f"{context.name}: {reason}", {"reason": reason, "step": step, "median_loss": median})
    return {} if spike is None else {"spike": spike}


def observe_if_due(context: TrainContext, state: State, timer: PhaseTimer) -> None:
    """Observe the selectors and validate the model after `state.step` updates, if that is due."""
    telemetry, num_steps = context.spec.telemetry, context.spec.training.num_steps
    if not context.ranks.runs_observer:
        return
    with_tallies = bool(selectors(state.model)) and observation_due(telemetry, state.step, num_steps)
    validating = validation_due(telemetry, state.step, num_steps)
    with timer.measure("observe"), _inference(context, state):
        if with_tallies or validating:
            metrics = context.observer.observe(
                state.model, state.step, state.telemetry, with_tallies=with_tallies, with_metrics=validating
            )
            if metrics:
                state.metrics.append(json.dumps({"step": state.step, "measured": metrics}) + "\n")
    with timer.measure("validate"), _inference(context, state):
        if validating:
            row = {"step": state.step, "validation": context.observer.validate(state.model, context.objective)}
            optimizer = optimizer_telemetry(state.optimizer)
            state.metrics.append(json.dumps(row | ({"optimizer": optimizer} if optimizer else {})) + "\n")


@contextlib.contextmanager
def _inference(context: TrainContext, state: State) -> Iterator[None]:
    """Run the model as in training, but without gradients and uncompiled."""
    settings, device = context.spec.training, next(state.model.parameters()).device
    with context.ranks.inference(state.model), autocast(settings, device), uncompiled(settings):
        yield
