"""What a run takes before it is run: parameters, memory, operations, device-hours; from its shapes alone.

    parameters    by part of the model; active: those that a token uses, the mean over tokens where some skip a part
    weights, gradients                  4 bytes a parameter: both are float32, whatever is computed in
    optimizer state                     4 bytes for each copy of a parameter that its rule keeps; found by asking it
    average                             4 bytes a parameter, where the run keeps one (training.ema)
    activations   of a micro-batch, an estimate: every matrix that a token goes through keeps what it reads and what
                  it gives, in the precision of products, 2 or 4 bytes; recomputed: the blocks' inputs, 4 bytes each,
                  and that of the largest block. The head's logits are made in chunks, and left out; and so is what a
                  mixer keeps beside its projections' inputs and outputs, which grows no faster with the width.
    time          tokens x FLOPs a token (model/profiling/flops.py) / (MFU x the device's peak)

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
from speciate.model.profiling.flops import flops_per_token
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model

FLOAT = 4
"""Bytes of a float32."""
PRODUCT_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Part:
    """A part of the model."""

    name: str
    total: int
    """Parameters."""
    active: float
    """Of them, those that a token uses."""


@dataclass(frozen=True)
class ResourceEstimate:
    """What a run takes."""

    parts: tuple[Part, ...]
    memory: dict[str, float]
    """Bytes on each device, by what for."""
    flops_per_token: float
    """Of a training step."""
    tokens: int
    """Of the whole run."""

    def device_seconds(self, peak: float, mfu: float) -> float:
        """Seconds of one device of this peak, in FLOP/s, of which the model gets the share `mfu`."""
        return self.tokens * self.flops_per_token / (peak * mfu)


def estimate_resources(run: RunSpec, vocabulary: int, block_length: int) -> ResourceEstimate:
    """What a run with a tokenizer of so many entries takes, in blocks of so many tokens."""
    with torch.device("meta"):
        model = build_model(run, vocabulary)
    return ResourceEstimate(
        parts=tuple(parts(model, run)),
        memory=memory(model, run, block_length),
        flops_per_token=flops_per_token(model, block_length),
        tokens=run.training.num_steps * run.training.blocks_per_step * block_length,
    )


def parts(model: Transformer, run: RunSpec) -> Iterator[Part]:
    """The model's parts, each kind's of all its layers together; every parameter is in one."""
    found: dict[str, list[float]] = {}

    def add(name: str, module: nn.Module, share: float = 1.0) -> None:
        total = sum(parameter.numel() for parameter in module.parameters())
        idle = sum(getattr(inner, "num_idle_parameters", int)() for inner in module.modules())
        counts = found.setdefault(name, [0, 0.0])
        counts[0] += total
        counts[1] += (total - idle) * share

    for name, child in model.named_children():
        if name != "blocks":
            add(name.replace("_", " "), child)
    for layer, block in enumerate(blocks(model)):
        kinds = run.model.block_of(layer)
        names = {"mixer": kinds.mixer.kind, "ffn": kinds.ffn.kind, "depth": kinds.depth.kind}
        for name, child in block.named_children():
            share = block.share if any(child is part for part in block.wrapped) else 1.0
            add(f"{name} {names[name]}" if name in names else "norm", child, share)
    for name, (total, active) in found.items():
        if total:
            yield Part(name, int(total), active)


def blocks(model: Transformer) -> list[Block]:
    """The model's layers."""
    return [block for block in model.blocks if isinstance(block, Block)]


def memory(model: Transformer, run: RunSpec, block_length: int) -> dict[str, float]:
    """Bytes on a device that holds the whole model, by what for."""
    total = FLOAT * sum(parameter.numel() for parameter in model.parameters())
    copies = state_copies(model, run)
    state = FLOAT * sum(copies[name] * parameter.numel() for name, parameter in model.named_parameters())
    settings = run.training
    tokens = settings.blocks_per_step / (settings.grad_accumulation * settings.processes) * block_length
    size = PRODUCT_BYTES[settings.precision]
    # further heads have blocks too
    each = [size * activations(block) for block in model.modules() if isinstance(block, Block)]
    kept = sum(each)
    if settings.activation_checkpointing:
        kept = FLOAT * run.model.width * len(each) + max(each)
    found = {"weights": float(total), "gradients": float(total), "optimizer state": state}
    if settings.ema is not None:
        found["average"] = float(total)
    return {**found, "activations": tokens * kept}


def activations(block: Block) -> float:
    """Numbers that the matrices of a block read and give, for a token: the mean, where some skip it."""
    found = 0.0
    for name, child in block.named_children():
        share = block.share if any(child is part for part in block.wrapped) else 1.0
        found += share * sum(sum(p.shape[-2:]) * times for p, times in used(child, name))
    return found


def used(module: nn.Module, name: str) -> Iterator[tuple[nn.Parameter, float]]:
    """Each matrix of a module, and by how many of it a token goes: 1, or as many of a stack as it is sent to."""
    stacks = {id(p): p for p in module.parameters() if p.ndim == 3 and min(p.shape) > 1}
    of_stack: dict[int, float] = {}
    for inner in module.modules():
        idle = getattr(inner, "num_idle_matrix_elements", int)()
        own = [p for p in inner.parameters() if id(p) in stacks]
        elements = sum(p.numel() for p in own)
        if idle:
            of_stack |= {id(p): p.shape[0] * (1 - idle / elements) for p in own}
    for parameter_name, parameter in module.named_parameters():
        if parameter.ndim == 2 and not parameter_name.endswith("bias"):
            yield parameter, 1.0
        elif id(parameter) in stacks:
            yield parameter, of_stack.get(id(parameter), float(parameter.shape[0]))


class ShrunkParameters(nn.Module):
    """Parameters of the same names and dimensions as a model's, two to a side: what an optimizer is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, parameter in model.named_parameters():
            small = torch.zeros([min(side, 2) for side in parameter.shape])
            self.register_parameter(re.sub(r"\.", "/", name), nn.Parameter(small, parameter.requires_grad))

    def named_parameters(self, *args: object, **kwargs: object) -> Iterator[tuple[str, nn.Parameter]]:
        """Under the model's own names."""
        for name, parameter in super().named_parameters():
            yield name.replace("/", "."), parameter


def state_copies(model: nn.Module, run: RunSpec) -> dict[str, float]:
    """How many numbers the run's optimizer keeps for each number of each parameter, seen after one small update."""
    standing = ShrunkParameters(model)
    optimizer: torch.optim.Optimizer = run.optimizer.component().build(run.optimizer, standing)
    named = dict(standing.named_parameters())
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {name: _copies(optimizer, parameter) for name, parameter in named.items()}


def _copies(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> float:
    kept = [value for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor)]
    # a step's number is kept once for a parameter, however large
    return float(sum(math.prod(value.shape) for value in kept if value.ndim) / parameter.numel())
