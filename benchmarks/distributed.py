"""Measure how long a training step takes with two gloo processes instead of one.

    python benchmarks/distributed.py

Bar: two processes train at least 1.6 times as many tokens per second as one (a step takes at most .625 of the time).
The model is a dense GPT of width 256 with 6 layers and a vocabulary of 4,096; a step has 32 blocks of 128 tokens, and
each process computes on one thread.

The bar is about wall-clock time: `one, wall`. Besides, `one` has the CPU milliseconds of a step; of two processes
it takes the one that needs more, gloo's threads included. That is what the clock would show if two cores were free
and no process waited for the other. On a busy machine it is the only number to rely on; the load is printed with
it.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training import loop
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.distributed.ranks import Ranks

WIDTH, NUM_LAYERS, NUM_HEADS, VOCABULARY = 256, 6, 8, 4096
NUM_BLOCKS, LENGTH, BAR = 32, 128, 1 / 1.6


def prepared(ranks: Ranks) -> tuple[TrainContext, State]:
    """Return a run on random blocks, without an observer."""
    torch.manual_seed(0)
    block = {
        "mixer": {"kind": "attention", "num_heads": NUM_HEADS},
        "ffn": {"kind": "dense", "hidden": 4 * WIDTH},
        "depth": "every",
    }
    settings = {
        "ablation": "dense",
        "seed": 0,
        "model": {"width": WIDTH, "num_layers": NUM_LAYERS, "context": LENGTH, "block": block},
        "objective": "causal",
        "optimizer": "adamw",
        "schedule": "constant",
        "training": {"num_steps": 1000, "blocks_per_step": NUM_BLOCKS, "processes": ranks.world},
    }
    spec = RunSpec.model_validate(settings)
    model = ranks.place(Transformer(spec.model, VOCABULARY))
    optimizer = component_module(spec.optimizer).build(spec.optimizer, model)
    objective = component_module(spec.objective).Objective(spec.objective)
    token_BT: Tensor = torch.randint(VOCABULARY, (NUM_BLOCKS, LENGTH)).chunk(ranks.world)[ranks.rank]
    run = TrainContext(
        spec=spec,
        objective=objective,
        lr_factor=lambda step: 1.0,
        tokens=lambda step: token_BT,
        observer=None,
        ranks=ranks,
        loss_module=ranks.loss_module(objective, model),
    )
    return run, State(0, model, optimizer, [], {})


def work(rank: int, world: int, folder: str, rounds: int, parallel: str) -> None:
    """Time steps; each process writes the seconds of each, by its own CPU time and by the clock."""
    torch.set_num_threads(1)
    if world > 1:
        limit = datetime.timedelta(seconds=300)
        store = f"file://{folder}/store-{parallel}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=limit)
    ranks = Ranks(rank, world, fsdp=parallel == "fsdp")
    run, state = prepared(ranks)
    seconds = []
    for _ in range(2 + rounds):
        ranks.barrier()
        cpu, wall = time.process_time(), time.perf_counter()
        loop.train_step(run, state)
        seconds.append((time.process_time() - cpu, time.perf_counter() - wall))
    (pathlib.Path(folder) / f"{rank}.json").write_text(json.dumps(seconds[2:]))
    if world > 1:
        dist.destroy_process_group()


def main() -> None:
    """Time one process, then two, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="steps to take the median of, in each of three turns")
    rounds = parser.parse_args().rounds
    cpu: dict[str, list[float]] = {}
    wall: dict[str, list[float]] = {}
    for _ in range(3):
        for parallel, world in (("ddp", 1), ("ddp", 2), ("fsdp", 2)):
            with tempfile.TemporaryDirectory() as folder:
                torch.multiprocessing.spawn(work, (world, folder, rounds, parallel), nprocs=world)
                times_of_ranks = [
                    json.loads((pathlib.Path(folder) / f"{rank}.json").read_text()) for rank in range(world)
                ]
            name = "one" if world == 1 else f"two_{parallel}"
            for step in zip(*times_of_ranks, strict=True):  # of a step, the process that takes longest
                cpu.setdefault(name, []).append(max(seconds for seconds, _ in step))
                wall.setdefault(name, []).append(max(seconds for _, seconds in step))
    cpu_ms, wall_ms = (
        {name: round(1000 * statistics.median(values), 1) for name, values in seconds.items()}
        for seconds in (cpu, wall)
    )
    for ours in ("two_ddp", "two_fsdp"):
        row = {
            "benchmark": f"{ours.replace('_', ' processes, ')}, a step",
            "cpu_ms": {name: cpu_ms[name] for name in ("one", ours)},
            "ours": ours,
            "ours_over": {
                "one": {"ratio": round(cpu_ms[ours] / cpu_ms["one"], 3), "bar": BAR},
                "one, wall": {
                    "ratio": round(wall_ms[ours] / wall_ms["one"], 3),
                    "bar": BAR,
                    "of": "wall_ms",
                    "peer": "one",
                },
            },
            "wall_ms": {name: wall_ms[name] for name in ("one", ours)},
            "tokens_per_second": {name: round(1000 * NUM_BLOCKS * LENGTH / value) for name, value in wall_ms.items()},
            "load": os.getloadavg()[0],
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
