"""Measure what each option of a training step costs or gains over the plain float32 step, on one CPU core.

    python benchmarks/precision.py

A step is measured for benchmarks/step.py's dense shape (width 256, 6 layers, vocabulary 4,096, 16 blocks of 128
tokens) and for the same shape with 8 experts of a quarter of its hidden units, top-2. An option whose purpose is
speed has a bar of 1; it pays on this machine if its ratio is lower. bfloat16 needs a processor that multiplies it
(AVX512-BF16, AMX); elsewhere a step takes 20 times as long, so those rows are left out unless --option names them.
Recomputation should cost one more forward pass, about a third; it saves the memory kept between the passes. Muon's
iteration costs the same for any batch, so its share is larger here than with real batches.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from timing import medians, show
from torch import Tensor

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training import loop
from speciate.training.checkpoint.ema import WeightAverage
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.numerics import precision

WIDTH, NUM_LAYERS, NUM_HEADS, VOCABULARY = 256, 6, 8, 4096
NUM_BLOCKS, LENGTH = 16, 128
FFN: dict[str, dict[str, Any]] = {
    "dense": {"kind": "dense", "hidden": 4 * WIDTH},
    "moe": {"kind": "moe", "num_experts": 8, "top_k": 2, "hidden": WIDTH, "router": "learned", "balance": "auxiliary"},
}
ADAMW, MUON = {"kind": "adamw"}, {"kind": "muon", "iteration": "float32"}
# name -> the run's training, its optimizer, the bar of its time over the plain step's
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "bfloat16": ({"precision": "bfloat16"}, ADAMW, 1.0),
    "compile": ({"compile": True}, ADAMW, 1.0),
    "activation_checkpointing": ({"activation_checkpointing": True}, ADAMW, 1.4),
    "deterministic": ({"deterministic": True}, ADAMW, 1.05),
    "ema": ({"ema": 0.999}, ADAMW, 1.05),
    "muon": ({}, MUON, 1.5),
    "muon_bfloat16": ({}, {"kind": "muon"}, 1.5),
}


def prepared(ffn: str, training: dict[str, Any], optimizer: dict[str, Any]) -> tuple[TrainContext, State]:
    """Return a run on random blocks, without an observer."""
    torch.manual_seed(0)
    block = {"mixer": {"kind": "attention", "num_heads": NUM_HEADS}, "ffn": FFN[ffn], "depth": "every"}
    settings = {
        "ablation": ffn,
        "seed": 0,
        "model": {"width": WIDTH, "num_layers": NUM_LAYERS, "context": LENGTH, "block": block},
        "objective": "causal",
        "optimizer": optimizer,
        "schedule": "constant",
        "training": {"num_steps": 1000, "blocks_per_step": NUM_BLOCKS, **training},
    }
    spec = RunSpec.model_validate(settings)
    model = Transformer(spec.model, VOCABULARY)
    built = component_module(spec.optimizer).build(spec.optimizer, model)
    precision.prepare_blocks(spec.training, model)
    average = None if spec.training.ema is None else WeightAverage(model, spec.training.ema, warmup=False)
    token_BT = torch.randint(VOCABULARY, (NUM_BLOCKS, LENGTH))
    objective = component_module(spec.objective).Objective(spec.objective)
    run = TrainContext(
        spec=spec, objective=objective, lr_factor=lambda step: 1.0, tokens=lambda step: token_BT, observer=None
    )
    return run, State(0, model, built, [], {}, average)


def updating(ffn: str, training: dict[str, Any], optimizer: dict[str, Any]) -> Callable[[], None]:
    """Return a function that makes one update after another."""
    run, state = prepared(ffn, training, optimizer)

    def step() -> None:
        with precision.determinism(run.spec.training):
            loop.train_step(run, state)

    return step


def kept_mib(ffn: str, training: dict[str, Any]) -> float:
    """Return the MiB that a forward pass keeps for the backward pass, without parameters; each storage counts once."""
    run, state = prepared(ffn, training, ADAMW)
    parameter_storages = {parameter.untyped_storage().data_ptr() for parameter in state.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run.objective(state.model, run.tokens(0))
    num_bytes = sum(
        tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in parameter_storages
    )
    return round(num_bytes / 2**20, 1)


def main() -> None:
    """Time the options that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    usual = [name for name in OPTIONS if "bfloat16" not in name or torch.cpu._is_avx512_bf16_supported()]
    parser.add_argument("--option", nargs="*", choices=OPTIONS, default=usual, help="options to time")
    arguments = parser.parse_args()
    left_out = ", ".join(name for name in OPTIONS if name not in arguments.option)
    if left_out:
        print(f"precision: not timed: {left_out}", file=sys.stderr)
    torch.set_num_threads(1)
    for ffn in FFN:
        cases = {"float32": updating(ffn, {}, ADAMW)}
        cases |= {name: updating(ffn, *OPTIONS[name][:2]) for name in arguments.option}
        seconds = medians(cases, arguments.rounds, warm_rounds=2)
        for name in arguments.option:
            show(
                f"{ffn} update: {name}",
                {case: seconds[case] for case in ("float32", name)},
                name,
                {"float32": OPTIONS[name][2]},
            )
        mib = {
            name: kept_mib(ffn, {"activation_checkpointing": name == "recomputed"}) for name in ("plain", "recomputed")
        }
        over = {"plain": {"ratio": round(mib["recomputed"] / mib["plain"], 3), "bar": 0.5}}
        row = {"benchmark": f"{ffn} memory between the passes", "mib": mib, "ours": "recomputed", "ours_over": over}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
