"""The training loop: one run from its spec, blocks and seed, the same bits every time.

A step draws its blocks by number (stateless, so that any step can be resumed), accumulates gradients over
micro-batches, clips, updates, and lets the selectors adjust. The loss that is reported is the objective's alone; the
selectors' own losses are added to what is minimised and reported beside it.

The loss of a step is the mean over all its predictions, however they are spread over its M micro-batches: with c_i of
them in micro-batch i and mean m_i there, sum_i c_i m_i / sum_i c_i. The selectors' losses are averaged over
micro-batches. An objective therefore offers

    objective(model, token_BT, document_BT)            the mean loss of a micro-batch's predictions; 0 where it has none
    objective.counted(model, token_BT, document_BT)    which predictions those are, known before the model runs

What a step draws and counts before its update is put back where the update does not come: it is tried again in smaller
portions when memory runs out, left out when it is not finite, or it is the run's last.

run.py says what a run is, and how a step's blocks are spread; failing.py what becomes of a step that is not finite.
"""

import json
import math
from collections.abc import Callable

import torch

from speciate.model.token_batch import in_domains
from speciate.selection.selection import selectors
from speciate.training.checkpoint.store import State
from speciate.training.context import Clock as Clock
from speciate.training.context import StepSnapshot, micro_batch_domains, micro_batches
from speciate.training.context import TrainContext as TrainContext
from speciate.training.distributed.ranks import Step, number
from speciate.training.numerics import loss_monitor, oom
from speciate.training.numerics.loss_monitor import FailedRun
from speciate.training.numerics.nonfinite import skip_or_fail
from speciate.training.numerics.precision import autocast, uncompiled
from speciate.training.observer import due, noted


def train_step(run: TrainContext, state: State) -> dict[str, float]:
    """One optimizer step; returns what happened in it.

    Raises:
        FailedRun: the loss or the gradient is not finite, and such a step is not to be skipped.
        MemoryError: there is none left; says what to lower.
        ValueError: nothing is predicted.

        In each case the weights are still those before the step.
    """
    settings, model = run.spec.training, state.model
    rate = set_rates(state.optimizer, run.factor(state.step))
    begun = state.step / settings.num_steps
    for selector in selectors(model).values():
        selector.before_update(begun)
    run.objective.before_update(begun)
    before = StepSnapshot(state)
    loss, auxiliary = forward_backward_with_oom_retry(run, state, before)
    norms = gradient_norms(model) if run.spec.telemetry.gradient_norms else {}
    # not clipped before it is known to be finite: clipping by a norm that is not would spread it to every layer
    norm_tensor = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    norm = number(norm_tensor)
    if not math.isfinite(loss + auxiliary + norm):
        return skip_or_fail(run, state, before, {"loss": loss, "auxiliary": auxiliary, "grad_norm": norm, "lr": rate})
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), settings.max_grad_norm, norm_tensor)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    for selector in selectors(model).values():
        selector.after_update()
    if state.average is not None:
        state.average.follow(model, state.step + 1)
    return {"loss": loss, "auxiliary": auxiliary, "grad_norm": norm, "lr": rate, **norms}


def forward_backward(run: TrainContext, state: State) -> tuple[float, float]:
    """Runs the step's micro-batches forward and backward; the step's loss and the selectors' own."""
    step, losses = run.step or Step(run.objective, state.model), []
    portions = micro_batches(run, state)
    for index, (token_BT, document_BT, parts) in enumerate(portions):
        with run.ranks.synchronised(step, last=index == len(portions) - 1):
            with (
                autocast(run.spec.training, token_BT.device),
                in_domains(micro_batch_domains(run, state, index, len(portions))),
            ):
                objective_loss, selectors_loss = step(token_BT, document_BT)
            total = objective_loss / parts
            if selectors_loss is not None:
                total = total + selectors_loss / len(portions)
            total.backward()
        losses.append((objective_loss.detach(), parts, 0.0 if selectors_loss is None else selectors_loss.detach()))
    # read once all are queued: a GPU is waited for here, not at every micro-batch
    loss, auxiliary = run.ranks.mean(
        sum(float(mean) / parts for mean, parts, _ in losses),
        sum(float(own) / len(portions) for _, _, own in losses),
    )
    return loss, auxiliary


def forward_backward_with_oom_retry(run: TrainContext, state: State, before: StepSnapshot) -> tuple[float, float]:
    """`accumulate`, in smaller portions where memory runs out and the run allows them.

    Raises:
        MemoryError: no smaller portions are allowed, or there are none.
    """
    settings = run.spec.training
    while True:
        try:
            return forward_backward(run, state)
        except (MemoryError, RuntimeError) as error:
            if not oom.is_out_of_memory(error):
                raise
            why = " ".join(str(error).split())[:200]
        # outside of the handler, which keeps the tensors of what failed alive
        before.restore(state)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        now = state.grad_accumulation or settings.grad_accumulation
        larger = oom.more(settings.blocks_per_step, now)
        # one process of several cannot try again alone
        if not settings.oom_retry or larger is None or run.ranks.world > 1:
            advice = oom.advice(settings, now)
            raise MemoryError(f"{run.name}: step {state.step}: out of memory ({why}): {advice}")
        state.grad_accumulation = larger
        state.metrics.append(json.dumps({"step": state.step, "grad_accumulation": larger}) + "\n")


def gradient_norms(model: torch.nn.Module) -> dict[str, float]:
    """The norm of the gradient of each selector's own parameters, by `grad_norm/<module path>`; of those with any."""
    norms: dict[str, float] = {}
    for path, selector in selectors(model).items():
        gradients = [parameter.grad for parameter in selector.parameters() if parameter.grad is not None]
        if gradients:
            norms[f"grad_norm/{path}"] = number(torch.nn.utils.get_total_norm(gradients))
    return norms


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Sets each group's learning rate to its peak times `factor`; returns the base rate now in force."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(min(group["peak"] / group["scale"] for group in optimizer.param_groups) * factor)


def check_divergence(
    run: TrainContext, watch: loss_monitor.LossMonitor, happened: dict[str, float], step: int
) -> dict[str, float]:
    """How far the step's loss jumped, where it did. Raises FailedRun where the run has diverged."""
    if "loss" not in happened:
        return {}
    spike = watch.update(happened["loss"])
    median = watch.diverged()
    if median is not None:
        reason = f"step {step}: diverged: median loss {median:.4g} of the last steps, {run.loss_limit:.4g} allowed"
        raise FailedRun(f"{run.name}: {reason}", {"reason": reason, "step": step, "median_loss": median})
    return {} if spike is None else {"spike": spike}


def observe_if_due(run: TrainContext, state: State, clock: Clock) -> None:
    """Observes the state after `state.step` updates, where that is due."""
    settings, telemetry = run.spec.training, run.spec.telemetry
    if not run.ranks.observes:
        return
    device = next(state.model.parameters()).device
    watching = run.ranks.observing(state.model)
    with clock.measuring("observe"), watching, autocast(settings, device), uncompiled(settings):
        counting = bool(selectors(state.model)) and due(telemetry, state.step, settings.num_steps)
        noting = noted(telemetry, state.step, settings.num_steps)
        if counting or noting:
            measured = run.observer.look(state.model, state.step, state.telemetry, counting, noting)
            if measured:
                state.metrics.append(json.dumps({"step": state.step, "measured": measured}) + "\n")
    watching = run.ranks.observing(state.model)
    with clock.measuring("validate"), watching, autocast(settings, device), uncompiled(settings):
        if noting:
            losses = run.observer.validate(state.model, run.objective)
            told: dict[str, float] = getattr(state.optimizer, "telemetry", dict)()
            also = {"optimizer": told} if told else {}
            state.metrics.append(json.dumps({"step": state.step, "validation": losses, **also}) + "\n")


def train(
    run: TrainContext,
    state: State,
    keep: Callable[[State], None],
    save: Callable[[State], None],
    stop: Callable[[], object],
    follow: Callable[[State, dict[str, float]], None],
    clock: Clock,
) -> bool:
    """Trains from `state` to the end of the run, or to a request to stop.

    Args:
        run: the run.
        state: where to begin; altered in place.
        keep: called after each step, before a save, since a run that continues from there does not come back to it.
        save: saves the state; called every `checkpoint_every` steps and when stopped.
        stop: whether to stop after the current step.
        follow: called after each step, and its save, with the state and what happened, for progress.
        clock: collects where the time went.

    Returns:
        True when the run is complete, False when it was stopped and saved.

    Raises:
        FailedRun: a step was not finite, or the run diverged.
    """
    settings = run.spec.training
    watch = loss_monitor.LossMonitor(state.metrics, run.loss_limit, settings.num_steps)
    if state.step == 0:
        observe_if_due(run, state, clock)
    while state.step < settings.num_steps:
        with clock.measuring("update"):
            happened = train_step(run, state)
        state.metrics.append(json.dumps({"step": state.step, **happened}) + "\n")
        state.step += 1
        observe_if_due(run, state, clock)
        happened |= check_divergence(run, watch, happened, state.step)
        keep(state)
        saving = state.step < settings.num_steps and (stop() or state.step % settings.checkpoint_every == 0)
        if saving:
            with clock.measuring("save"):
                save(state)
        follow(state, happened)  # once it is saved: what is said may reach nobody any more
        if saving and stop():
            return False
    return True
