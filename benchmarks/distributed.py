"""Two gloo processes against one on the same steps: tokens a second, by the wall clock, where two cores are free.

    python benchmarks/distributed.py

Bar: two processes train at least 1.6 times as many tokens a second as one (ours over one's time at most .625). A dense
GPT shape of width 256, 6 layers, vocabulary 4,096, 16 blocks of 128 tokens a step; each process computes on one thread.
On a busy machine the figure says nothing: the load is printed beside it.
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

from speciate.kinds import component
from speciate.model.transformer import Transformer
from speciate.spec import RunSpec
from speciate.training import loop
from speciate.training.checkpoint import State
from speciate.training.distributed import Ranks

WIDTH, NUM_LAYERS, NUM_HEADS, VOCABULARY = 256, 6, 8, 4096
NUM_BLOCKS, LENGTH, BAR = 16, 128, 1 / 1.6


def prepared(ranks: Ranks) -> tuple[loop.Run, State]:
    """A run on random blocks, without an observer."""
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
    model = ranks.spread(Transformer(spec.model, VOCABULARY))
    optimizer = component(spec.optimizer).build(spec.optimizer, model)
    objective = component(spec.objective).Objective(spec.objective)
    token_BT: Tensor = torch.randint(VOCABULARY, (NUM_BLOCKS, LENGTH)).chunk(ranks.world)[ranks.rank]
    run = loop.Run(
        spec=spec,
        objective=objective,
        factor=lambda step: 1.0,
        tokens=lambda step: token_BT,
        observer=None,
        ranks=ranks,
        step=ranks.step(objective, model),
    )
    return run, State(0, model, optimizer, [], {})


def work(rank: int, world: int, folder: str, rounds: int, parallel: str) -> None:
    """Times steps; the first process writes the seconds of each."""
    torch.set_num_threads(1)
    if world > 1:
        limit = datetime.timedelta(seconds=300)
        store = f"file://{folder}/store-{parallel}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=limit)
    ranks = Ranks(rank, world, in_parts=parallel == "fsdp")
    run, state = prepared(ranks)
    seconds = []
    for _ in range(2 + rounds):
        ranks.wait()
        started = time.perf_counter()
        loop.update(run, state)
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        (pathlib.Path(folder) / f"{parallel}-{world}.json").write_text(json.dumps(seconds[2:]))
    if world > 1:
        dist.destroy_process_group()


def main() -> None:
    """Times one process, then two, by turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="steps to take the median of, in each of three turns")
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {}
    for _ in range(3):
        for parallel, world in (("ddp", 1), ("ddp", 2), ("fsdp", 2)):
            with tempfile.TemporaryDirectory() as folder:
                torch.multiprocessing.spawn(work, (world, folder, rounds, parallel), nprocs=world)
                name = "one" if world == 1 else f"two_{parallel}"
                seconds.setdefault(name, []).extend(
                    json.loads((pathlib.Path(folder) / f"{parallel}-{world}.json").read_text())
                )
    wall = {name: round(1000 * statistics.median(values), 1) for name, values in seconds.items()}
    for ours in ("two_ddp", "two_fsdp"):
        row = {
            "benchmark": f"{ours.replace('_', ' processes, ')}, wall time of a step",
            "cpu_ms": {name: wall[name] for name in ("one", ours)},  # by the wall clock; the key is run.py's
            "ours": ours,
            "ours_over": {"one": {"ratio": round(wall[ours] / wall["one"], 3), "bar": BAR}},
            "tokens_per_second": {name: round(1000 * NUM_BLOCKS * LENGTH / value) for name, value in wall.items()},
            "load": os.getloadavg()[0],
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
