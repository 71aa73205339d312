"""Measure training steps on a GPU in bfloat16: dense, mixture of experts, and sparse attention by length.

    python benchmarks/gpu.py

Without a GPU it prints nothing. The dense model is GPT-2 small, the mixture has 8 experts, and sparse attention is
compared with dense attention at growing lengths.

Bars on one H200: the dense model reaches at least 45 % of the peak, and the mixture of experts at least 35 % of it in
active FLOPs. The mixture's layer is at least twice as fast as transformers' Mixtral experts (eager) on the same
tokens. At 32,768 tokens, gated sparse attention (k of 2,048, trained by KL) is faster than dense flash attention,
forward and backward. A case that does not fit into memory is printed as such. Utilisation is the model's own
operations (model/profiling/flops.py) over the peak in the device's data sheet; the peak of a plain matrix product is
next to it. Times are measured by CUDA events: medians of 5, after 3 to warm up.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
from moe import layer, mixtral
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from speciate.config.components import component_module
from speciate.config.run import ModelSpec, RunSpec
from speciate.model.profiling.flops import flops_per_token, measure_peak_flops, peak_flops
from speciate.model.profiling.mixer_cost import build_mixer
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer
from speciate.selection.selection import record_selections
from speciate.training import loop
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.distributed.ranks import Ranks
from speciate.training.numerics import precision

WIDTH, NUM_LAYERS, NUM_HEADS, VOCABULARY, LENGTH = 768, 12, 12, 50304, 1024
FFN: dict[str, dict[str, Any]] = {
    "dense": {"kind": "dense", "hidden": 3072},
    "moe_top1": {"kind": "moe", "num_experts": 8, "hidden": 3072, "router": "learned", "balance": "auxiliary"},
}
BARS = {"dense": 0.45, "moe_top1": 0.35}
LENGTHS, K = (8192, 16384, 32768), 2048
MIXERS: dict[str, dict[str, Any]] = {
    "gsa": {"kind": "gsa", "indexer": {"kind": "kl", "width": 64}, "budget": {"kind": "fixed", "k": K}},
    "dense_flash": {"kind": "attention"},
}


def seconds_of(case: Callable[[], object], rounds: int) -> float:
    """Return the median seconds of a call, by the device's clock."""
    times = []
    for index in range(3 + rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        case()
        stop.record()
        torch.cuda.synchronize()
        if index >= 3:
            times.append(start.elapsed_time(stop) / 1000)
    return statistics.median(times)


def utilisation(name: str, num_blocks: int, compiled: bool, rounds: int) -> dict[str, Any]:
    """Measure the share of the device's peak that a whole training step reaches."""
    device = torch.device("cuda")
    block = {"mixer": {"kind": "attention", "num_heads": NUM_HEADS}, "ffn": FFN[name], "depth": "every"}
    settings = {
        "ablation": name,
        "seed": 0,
        "model": {"width": WIDTH, "num_layers": NUM_LAYERS, "context": LENGTH, "block": block},
        "objective": {"kind": "causal", "chunk": 8192},
        "optimizer": {"kind": "adamw", "lr": 0.0003},
        "schedule": "constant",
        "training": {"blocks_per_step": num_blocks, "precision": "bfloat16", "compile": compiled},
    }
    spec = RunSpec.model_validate(settings)
    ranks = Ranks(device=device)
    model = Transformer(spec.model, VOCABULARY)
    flops = flops_per_token(model, LENGTH)
    ranks.place(model)
    optimizer = component_module(spec.optimizer).build(spec.optimizer, model)
    precision.prepare_blocks(spec.training, model)
    objective = component_module(spec.objective).Objective(spec.objective)
    token_BT = torch.randint(VOCABULARY, (num_blocks, LENGTH)).pin_memory()
    run = TrainContext(
        spec=spec,
        objective=objective,
        lr_factor=lambda step: 1.0,
        tokens=lambda step: token_BT,
        observer=None,
        ranks=ranks,
    )
    state = State(0, model, optimizer, [], {})
    seconds = seconds_of(lambda: loop.train_step(run, state), rounds)
    peak = peak_flops(device, "bfloat16") or measure_peak_flops(device, "bfloat16", size=8192)
    rate = num_blocks * LENGTH / seconds
    return {
        "benchmark": f"{name}{' compiled' if compiled else ''}, bf16 update",
        "device": torch.cuda.get_device_name(),
        "tokens_per_second": round(rate),
        "mfu": round(rate * flops / peak, 4),
        "mfu_of_measured_peak": round(rate * flops / measure_peak_flops(device, "bfloat16", size=8192), 4),
        "ours": name,
        "ours_over": {"the device's peak": {"ratio": round(rate * flops / peak, 4), "at_least": BARS[name]}},
        "allocated_mib": round(torch.cuda.max_memory_allocated() / 2**20),
    }


def experts(top_k: int, rounds: int) -> dict[str, Any]:
    """Time forward and backward of one layer, ours against transformers', in milliseconds."""
    x_BTD = torch.randn(64, 512, 256, device="cuda", requires_grad=True)
    tokens = TokenBatch.of(torch.randint(512, x_BTD.shape[:2], device="cuda"))
    shape = {"num_experts": 8, "top_k": top_k, "hidden": 1024, "activation": "swiglu"}
    ours = layer({"kind": "moe", "router": "learned", "balance": "none", **shape}).cuda()
    modules: dict[str, nn.Module] = {name: mixtral(top_k, name).cuda() for name in ("eager", "grouped_mm")}
    cases: dict[str, Callable[[], torch.Tensor]] = {"ours": lambda: ours(x_BTD, tokens)}
    cases |= {f"mixtral_{name}": lambda module=module: module(x_BTD) for name, module in modules.items()}

    def both_ways(case: Callable[[], torch.Tensor]) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            y_BTD = case()
        y_BTD.sum().backward()

    times = {name: seconds_of(lambda case=case: both_ways(case), rounds) for name, case in cases.items()}
    over = {name: {"ratio": round(times["ours"] / times[name], 3), "bar": 0.5} for name in times if name != "ours"}
    rounded = {name: round(1000 * value, 2) for name, value in times.items()}
    return {"benchmark": f"moe top-{top_k} layer, bf16", "cuda_ms": rounded, "ours": "ours", "ours_over": over}


def passes(mixer: nn.Module, x_BTD: torch.Tensor, tokens: TokenBatch) -> None:
    """Return forward and backward of one mixer with its indexer's loss; dense attention is flash attention or fails."""
    with (
        torch.autocast("cuda", torch.bfloat16),
        sdpa_kernel(SDPBackend.FLASH_ATTENTION),
        record_selections(mixer) as record,
    ):
        y_BTD = mixer(x_BTD, tokens)
    loss = y_BTD.float().sum() + sum(selection.loss for selection in record.values())
    loss.backward()


def attention(length: int, rounds: int) -> dict[str, Any]:
    """Time one block of that length, gated sparse attention against dense flash attention, in milliseconds."""
    times: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, mixer_options in MIXERS.items():
        block = {"mixer": {"num_heads": NUM_HEADS, **mixer_options}, "ffn": "dense", "depth": "every"}
        shape = {"width": WIDTH, "context": length, "position": "rotary", "biases": False, "block": block}
        mixer = build_mixer(ModelSpec.model_validate(shape), length).cuda()
        x_BTD = torch.randn(1, length, WIDTH, device="cuda", requires_grad=True)
        tokens = TokenBatch.of(torch.zeros(1, length, dtype=torch.long, device="cuda"))
        try:
            times[name] = seconds_of(lambda mixer=mixer, x=x_BTD, tokens=tokens: passes(mixer, x, tokens), rounds)
        except torch.cuda.OutOfMemoryError as error:
            failed[name] = str(error).splitlines()[0]
        del mixer, x_BTD
        torch.cuda.empty_cache()
    line: dict[str, Any] = {"benchmark": f"sparse attention, T {length}, bf16, forward and backward"}
    line["cuda_ms"] = {name: round(1000 * value, 2) for name, value in times.items()}
    if failed:
        line["failed"] = failed
    elif length == max(LENGTHS):
        over = {"ratio": round(times["gsa"] / times["dense_flash"], 3), "bar": 1.0}
        line |= {"ours": "gsa", "ours_over": {"dense_flash": over}}
    return line


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--blocks", type=int, default=32, help=f"blocks of {LENGTH} tokens in a step")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        return
    for name in FFN:
        for compiled in (False, True):
            torch.cuda.reset_peak_memory_stats()
            print(json.dumps(utilisation(name, arguments.blocks, compiled, arguments.rounds)), flush=True)
    for top_k in (1, 2):
        print(json.dumps(experts(top_k, arguments.rounds)), flush=True)
    for length in LENGTHS:
        print(json.dumps(attention(length, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
