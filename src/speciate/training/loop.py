"""The training loop: one run from its spec, blocks and seed, the same bits every time.

A step draws its blocks by number (stateless, so that any step can be resumed), accumulates gradients over
micro-batches, clips, updates, and lets the selectors adjust. The loss that is reported is the objective's alone; the
selectors' own losses are added to what is minimised and reported beside it.

The loss of a step is the mean over all its predictions, however they are spread over its M micro-batches: with c_i of
them in micro-batch i and mean m_i there, sum_i c_i m_i / sum_i c_i. The selectors' losses are averaged over
micro-batches. An objective therefore offers

    objective(model, token_BT, document_BT)            the mean loss of a micro-batch's predictions; 0 where it has none
    objective.counted(model, token_BT, document_BT)    which predictions those are, known before the model runs
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from speciate.selection.selection import auxiliary_loss, recording, selectors
from speciate.spec import RunSpec
from speciate.training.arithmetic import autocast, uncompiled
from speciate.training.checkpoint import State
from speciate.training.observe import Observer, due


@dataclass
class Clock:
    """Seconds that a run spent on each of its parts; reported, and in no table, since no two runs agree on it."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """Adds the block's CPU seconds to `part`."""
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - started


@dataclass(frozen=True)
class Run:
    """What a run needs beside its state."""

    spec: RunSpec
    objective: torch.nn.Module
    factor: Callable[[int], float]
    """Step -> share of the peak learning rate."""
    tokens: Callable[[int], Tensor]
    """Step -> the step's blocks, (blocks_per_step, T) int64."""
    observer: Observer
    documents: Callable[[int], Tensor] | None = None
    """Step -> the document of each position of those blocks; None where the model does not separate documents."""


def update(run: Run, state: State) -> dict[str, float]:
    """One optimizer step; returns what happened in it.

    Raises:
        ValueError: the loss or the gradient is not finite, or nothing is predicted; the weights are still those before
            the step.
    """
    settings, model = run.spec.training, state.model
    rate = set_rates(state.optimizer, run.factor(state.step))
    for selector in selectors(model).values():
        selector.before_update(state.step / settings.num_steps)
    loss = auxiliary = 0.0
    for token_BT, document_BT, parts in micro_batches(run, state):
        with autocast(settings, token_BT.device), recording(model) as record:
            objective_loss = run.objective(model, token_BT, document_BT)
        total = objective_loss / parts
        if record:
            selectors_loss = auxiliary_loss(record)
            total = total + selectors_loss / settings.accumulation
            auxiliary += float(selectors_loss.detach()) / settings.accumulation
        total.backward()
        loss += float(objective_loss.detach()) / parts
    norms = gradient_norms(model) if run.spec.telemetry.gradient_norms else {}
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip))
    if not math.isfinite(loss + auxiliary + norm):
        raise ValueError(
            f"run {run.spec.ablation}, seed {run.spec.seed}: step {state.step}: loss {loss}, auxiliary {auxiliary}, "
            f"gradient norm {norm}; no update was made"
        )
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    for selector in selectors(model).values():
        selector.after_update()
    if state.average is not None:
        state.average.follow(model, state.step + 1)
    return {"loss": loss, "auxiliary": auxiliary, "grad_norm": norm, "rate": rate, **norms}


def gradient_norms(model: torch.nn.Module) -> dict[str, float]:
    """The norm of the gradient of each selector's own parameters, by `grad_norm/<module path>`; of those with any."""
    norms: dict[str, float] = {}
    for path, selector in selectors(model).items():
        gradients = [parameter.grad for parameter in selector.parameters() if parameter.grad is not None]
        if gradients:
            norms[f"grad_norm/{path}"] = float(torch.nn.utils.get_total_norm(gradients))
    return norms


def micro_batches(run: Run, state: State) -> list[tuple[Tensor, Tensor | None, float]]:
    """The step's blocks in portions: tokens, documents, and what a portion's mean loss is divided by in the step's.

    That is the step's predictions over the portion's: `accumulation`, unless documents are kept apart, when one portion
    has more predictions than another.
    """
    num_portions = run.spec.training.accumulation
    tokens = run.tokens(state.step).chunk(num_portions)
    documents = [None] * num_portions if run.documents is None else run.documents(state.step).chunk(num_portions)
    portions = list(zip(tokens, documents, strict=True))
    counts = [int(run.objective.counted(state.model, *portion).sum()) for portion in portions]  # type: ignore[operator]
    if not sum(counts):
        raise ValueError(f"run {run.spec.ablation}, seed {run.spec.seed}: step {state.step}: nothing is predicted")
    parts = [sum(counts) / count if count else math.inf for count in counts]
    return [(*portion, part) for portion, part in zip(portions, parts, strict=True)]


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Sets each group's learning rate to its peak times `factor`; returns the base rate now in force."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(min(group["peak"] / group["scale"] for group in optimizer.param_groups) * factor)


def train(
    run: Run,
    state: State,
    save: Callable[[State], None],
    stop: Callable[[], object],
    follow: Callable[[State, dict[str, float]], None],
    clock: Clock,
) -> bool:
    """Trains from `state` to the end of the run, or to a request to stop.

    Args:
        run: the run.
        state: where to begin; altered in place.
        save: saves the state; called every `checkpoint_every` steps and when stopped.
        stop: whether to stop after the current step.
        follow: called after each step with the state and what happened, for progress.
        clock: collects where the time went.

    Returns:
        True when the run is complete, False when it was stopped and saved.
    """
    settings, telemetry = run.spec.training, run.spec.telemetry

    def look() -> None:
        """Observes the state after `state.step` updates."""
        device = next(state.model.parameters()).device
        with clock.measuring("observe"), autocast(settings, device), uncompiled(settings):
            if selectors(state.model) and due(telemetry, state.step, settings.num_steps):
                run.observer.look(state.model, state.step, state.telemetry)  # type: ignore[arg-type]
        with clock.measuring("validate"), autocast(settings, device), uncompiled(settings):
            if state.step % telemetry.validation_every == 0 or state.step == settings.num_steps:
                losses = run.observer.validate(state.model, run.objective)  # type: ignore[arg-type]
                state.metrics.append(json.dumps({"step": state.step, "validation": losses}) + "\n")

    if state.step == 0:
        look()
    while state.step < settings.num_steps:
        with clock.measuring("update"):
            happened = update(run, state)
        state.metrics.append(json.dumps({"step": state.step, **happened}) + "\n")
        state.step += 1
        look()
        follow(state, happened)
        if state.step < settings.num_steps and (stop() or state.step % settings.checkpoint_every == 0):
            with clock.measuring("save"):
                save(state)
            if stop():
                return False
    return True
