"""How a run's numbers are computed, never which: precision, recomputed activations, compiled parts, determinism.

What each costs or gains is measured by benchmarks/precision.py. On one AVX2 core, over the plain float32 step: bfloat16
21.7 (the processor does not multiply it), compiled 0.94 to 1.00 dense and 1.04 with experts, recomputed 1.28 and 1.17
with a tenth of the memory between the passes. Compiling and bfloat16 are for machines that have what they need.
"""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import nn

from speciate.config.run import TrainingSpec
from speciate.model.block import Block
from speciate.selection.selection import selectors

# Without it cuBLAS has no deterministic matrix product; read when a process first uses the GPU.
CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def autocast(settings: TrainingSpec, device: torch.device) -> torch.autocast:
    """Matrix products in the run's precision inside the block; weights stay float32, and so do the routers' logits."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16")


def prepare(settings: TrainingSpec, model: nn.Module, backend: str = "inductor") -> None:
    """Sets a model's blocks up as the run wants them: to be recomputed, to be compiled.

    Args:
        settings: the run's.
        model: altered in place; the names of its parts stay as they are.
        backend: of torch.compile.
    """
    for block in model.modules():
        if isinstance(block, Block):
            block.recompute = settings.activation_checkpointing
            if settings.compile:
                for part in without_selectors(block):
                    # one graph for each shape, whatever was seen before it: a resumed run must see the same ones
                    part.compile(dynamic=False, backend=backend)


def without_selectors(block: Block) -> list[nn.Module]:
    """What of a block may be compiled: all of it, or its mixer and feed-forward layer as far as no selector is inside.

    Hooks of selectors are thus never inside a compiled graph, nor is what their choices make the shapes of.
    """
    if not selectors(block):
        return [block.depth]
    return [part for part in (block.mixer, block.ffn) if not selectors(part)]


def uncompiled(settings: TrainingSpec) -> contextlib.AbstractContextManager[object]:
    """Compiled parts run as they were written inside the block: an observer's own shapes are not worth a graph each."""
    if not settings.compile:  # to ask for it imports the whole compiler
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextlib.contextmanager
def determinism(settings: TrainingSpec) -> Iterator[None]:
    """Inside the block torch takes deterministic algorithms alone, where the run asks for it."""
    before = torch.are_deterministic_algorithms_enabled()
    if settings.deterministic:
        os.environ.setdefault(*CUBLAS_WORKSPACE)
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
