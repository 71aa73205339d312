"""Estimate a run's parameters, memory, FLOPs and device time from its shapes alone, before it is run.

    parameters    by part of the model; active: those that a token uses, averaged where some tokens skip a part
    weights, gradients                  4 bytes per parameter: both are float32, whatever the compute precision; frozen
                                        layers have no gradients
    optimizer state                     4 bytes per copy of a parameter that the optimizer keeps, found by asking it
    average                             4 bytes per parameter, if the run keeps a moving average (training.ema)
    activations   of a micro-batch, estimated: every matrix that a token goes through keeps its input and its output,
                  in the compute precision, 2 or 4 bytes each. With activation checkpointing: the blocks' inputs, 4
                  bytes each, and the activations of the largest block. Left out: the head's logits, which are
                  computed in chunks, and what a mixer keeps besides its projections' inputs and outputs, which grows
                  no faster with the width.
    time          tokens x FLOPs per token (model/profiling/flops.py) / (MFU x the device's peak)

The model is built on torch's meta device: shapes without storage.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from speciate.config.run import RunSpec
from speciate.model.block import Block
from speciate.model.module_hooks import HasIdleMatrices, HasIdleParameters
from speciate.model.profiling.flops import flops_per_token
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model

FLOAT = 4
"""Bytes of a float32."""
PRODUCT_BYTES = {"float32": 4, "bfloat16": 2, "native": 2}


@dataclass(frozen=True)
class Part:
    """The parameters of one part of the model."""

    name: str
    total: int
    active: float
    """Parameters that a token uses, averaged over tokens."""


@dataclass(frozen=True)
class ResourceEstimate:
    """The parameters, memory, FLOPs and tokens of a run."""

    parts: tuple[Part, ...]
    memory: dict[str, float]
    """Bytes on each device, by purpose."""
    flops_per_token: float
    """In a training step."""
    tokens: int
    """In the whole run."""

    def device_seconds(self, peak: float, mfu: float) -> float:
        """Return the seconds that one device takes; `peak` in FLOP/s, of which the model achieves the share `mfu`."""
        return self.tokens * self.flops_per_token / (peak * mfu)


def estimate_resources(run: RunSpec, vocabulary: int, block_length: int) -> ResourceEstimate:
    """Estimate a run on blocks of `block_length` tokens, with a tokenizer of `vocabulary` token ids."""
    with torch.device("meta"):
        model = build_model(run, vocabulary)
    return ResourceEstimate(
        parts=tuple(parameters_by_part(model, run)),
        memory=memory_by_purpose(model, run, block_length),
        flops_per_token=flops_per_token(model, block_length),
        tokens=run.training.num_steps * run.training.blocks_per_step * block_length,
    )


def parameters_by_part(model: Transformer, run: RunSpec) -> Iterator[Part]:
    """Yield the model's parts, all layers of a kind together; every parameter is in exactly one part."""
    parts: dict[str, list[float]] = {}

    def add(name: str, module: nn.Module, share: float = 1.0) -> None:
        total = sum(parameter.numel() for parameter in module.parameters())
        idle = sum(inner.num_idle_parameters() for inner in module.modules() if isinstance(inner, HasIdleParameters))
        counts = parts.setdefault(name, [0, 0.0])
        counts[0] += total
        counts[1] += (total - idle) * share

    for name, child in model.named_children():
        if name != "blocks":
            add(name.replace("_", " "), child)
    for layer, block in enumerate(layers(model)):
        kinds = run.model.block_of(layer)
        names = {"mixer": kinds.mixer.kind, "ffn": kinds.ffn.kind, "depth": kinds.depth.kind}
        for name, child in block.named_children():
            share = block.share if any(child is part for part in block.wrapped) else 1.0
            add(f"{name} {names[name]}" if name in names else "norm", child, share)
    for name, (total, active) in parts.items():
        if total:
            yield Part(name, int(total), active)


def layers(model: Transformer) -> list[Block]:
    """Return the model's layers."""
    return [block for block in model.blocks if isinstance(block, Block)]


def memory_by_purpose(model: Transformer, run: RunSpec, block_length: int) -> dict[str, float]:
    """Return the bytes on a device that holds the whole model, by purpose."""
    total = FLOAT * sum(parameter.numel() for parameter in model.parameters())
    copies = optimizer_copies(model, run)
    optimizer_state = FLOAT * sum(copies[name] * parameter.numel() for name, parameter in model.named_parameters())
    settings = run.training
    tokens = settings.blocks_per_step / (settings.grad_accumulation * settings.processes) * block_length
    size = PRODUCT_BYTES[settings.precision]
    # further heads have blocks too
    by_block = [size * activations_per_token(block) for block in model.modules() if isinstance(block, Block)]
    kept = sum(by_block)
    if settings.activation_checkpointing:
        kept = FLOAT * run.model.width * len(by_block) + max(by_block)
    gradients = FLOAT * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    memory = {"weights": float(total), "gradients": float(gradients), "optimizer state": optimizer_state}
    if settings.ema is not None:
        memory["average"] = float(total)
    return {**memory, "activations": tokens * kept}


def activations_per_token(block: Block) -> float:
    """Return how many numbers a block's matrices read and write for a token, averaged where some tokens skip it."""
    numbers = 0.0
    for name, child in block.named_children():
        share = block.share if any(child is part for part in block.wrapped) else 1.0
        numbers += share * sum(sum(p.shape[-2:]) * times for p, times in matrices_used(child, name))
    return numbers


def matrices_used(module: nn.Module, name: str) -> Iterator[tuple[nn.Parameter, float]]:
    """Yield each matrix of a module and how many of it a token uses: 1, or the number of a stack it is routed to."""
    stacks = {id(p): p for p in module.parameters() if p.ndim == 3 and min(p.shape) > 1}
    used_of_stack: dict[int, float] = {}
    for inner in module.modules():
        idle = inner.num_idle_matrix_elements() if isinstance(inner, HasIdleMatrices) else 0
        stacks_inside = [p for p in inner.parameters() if id(p) in stacks]
        elements = sum(p.numel() for p in stacks_inside)
        if idle:
            used_of_stack |= {id(p): p.shape[0] * (1 - idle / elements) for p in stacks_inside}
    for parameter_name, parameter in module.named_parameters():
        if parameter.ndim == 2 and not parameter_name.endswith("bias"):
            yield parameter, 1.0
        elif id(parameter) in stacks:
            yield parameter, used_of_stack.get(id(parameter), float(parameter.shape[0]))


class ShrunkParameters(nn.Module):
    """Parameters with a model's names and dimensions, of size 2 at most: cheap to try an optimizer on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, parameter in model.named_parameters():
            small = torch.zeros([min(side, 2) for side in parameter.shape])
            self.register_parameter(re.sub(r"\.", "/", name), nn.Parameter(small, parameter.requires_grad))

    def named_parameters(self, *args: object, **kwargs: object) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters under the model's names."""
        for name, parameter in super().named_parameters():
            yield name.replace("/", "."), parameter


def optimizer_copies(model: nn.Module, run: RunSpec) -> dict[str, float]:
    """Return how many numbers the run's optimizer keeps for each number of each parameter, after a small update."""
    shrunk = ShrunkParameters(model)
    optimizer = run.optimizer.component().build(run.optimizer, shrunk)
    parameters = dict(shrunk.named_parameters())
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {name: _copies(optimizer, parameter) for name, parameter in parameters.items()}


def _copies(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> float:
    kept = [value for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor)]
    # scalars, such as the step, are kept once however large the parameter is
    return float(sum(math.prod(value.shape) for value in kept if value.ndim) / parameter.numel())
