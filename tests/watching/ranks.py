"""Train and watch a tiny model as one of two processes: the part of `test_ranks.py` that runs in each of them."""

import json
import pathlib
from typing import Any

import torch
import torch.distributed as dist
from tests.watching.tiny import ids, mixtral
from torch.nn.parallel import DistributedDataParallel

from speciate.watch import Watch

ROWS, STEPS = 6, 3


def batch(step: int, rank: int, world: int) -> torch.Tensor:
    return ids(ROWS, seed=step).chunk(world)[rank]


def work(rank: int, folder: str) -> None:
    """Train three steps on half of each batch for each kind of probe, and write what was seen."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = ids(8, seed=50)
    for kind, probe in {"none": None, "same": rows, "shared out": rows.chunk(2)[rank]}.items():
        seen = watched(rank, None if probe is None else {"input_ids": probe})
        pathlib.Path(folder, f"{kind}-{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


def watched(rank: int, probe: dict[str, torch.Tensor] | None) -> dict[str, Any]:
    """Train and watch; return the counts, the evidence, and the steps that this rank logged."""
    model = DistributedDataParallel(mixtral().train())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    logged: list[int] = []
    watch = Watch(model, probe, every=1, steps=STEPS, armed_after=0, sink=lambda step, values: logged.append(step))
    for step in range(1, STEPS + 1):
        part = batch(step, rank, 2)
        model(input_ids=part, labels=part).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        watch.step(step)
    return {"total": watch.total, "log_wealth": watch.alarm.log_wealth_L.tolist(), "logged": logged}
