"""Numerical settings of a run: precision, activation checkpointing, compilation and determinism.

benchmarks/precision.py measures what each costs or gains. On one AVX2 core, relative to the plain float32 step:
bfloat16 21.7 (the processor does not multiply it), compiled 0.94 to 1.00 dense and 1.04 with experts, checkpointed 1.28
and 1.17 with a tenth of the memory between the passes. Compiling and bfloat16 are for machines that support them.
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
    """Return a context in which matrix products use the run's precision; weights and router logits stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=computed_in(settings, device) == "bfloat16")


def computed_in(settings: TrainingSpec, device: torch.device) -> str:
    """Return the precision in which this device multiplies matrices for the run: `float32` or `bfloat16`."""
    if settings.precision != "native":
        return settings.precision
    return "bfloat16" if multiplies_bfloat16(device) else "float32"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the device has units that multiply bfloat16; without them it is much slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    # oneDNN uses them only if it may: ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY hold it to older instructions
    allowed = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return allowed and bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def prepare_blocks(settings: TrainingSpec, model: nn.Module, backend: str = "inductor") -> None:
    """Set up a model's blocks for activation checkpointing and compilation, as the run asks.

    Args:
        settings: the run's.
        model: altered in place; the names of its modules stay as they are.
        backend: the backend of torch.compile.
    """
    for block in model.modules():
        if isinstance(block, Block):
            block.recompute = settings.activation_checkpointing
            if settings.compile:
                for module in compilable_modules(block):
                    # one graph for each shape, whatever came before: a resumed run must use the same graphs
                    module.compile(dynamic=False, backend=backend)


def compilable_modules(block: Block) -> list[nn.Module]:
    """Return the modules of a block that may be compiled: all of it, or its mixer and feed-forward layer.

    A module with a selector inside is left out, so that no selector's hook is inside a compiled graph, nor a shape that
    depends on its choices.
    """
    if not selectors(block):
        return [block.depth]
    return [module for module in (block.mixer, block.ffn) if not selectors(module)]


def uncompiled(settings: TrainingSpec) -> contextlib.AbstractContextManager[object]:
    """Return a context in which compiled modules run eagerly: a probe's shapes are not worth a graph each."""
    if not settings.compile:  # setting the stance imports the whole compiler
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextlib.contextmanager
def determinism(settings: TrainingSpec) -> Iterator[None]:
    """Use only deterministic algorithms inside the block, if the run asks for it."""
    before = torch.are_deterministic_algorithms_enabled()
    if settings.deterministic:
        os.environ.setdefault(*CUBLAS_WORKSPACE)
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
