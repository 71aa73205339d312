"""Compare gated sparse attention with dense SDPA at growing block lengths, on one CPU core.

    python benchmarks/gsa.py [--lengths 512 ... 16384]

It measures the memory kept for the backward pass, training and decoding. Bars: memory grows linearly with T at fixed
k (32 times the tokens keep at most 1.05 times 32 times the bytes), and at T = 16,384 it is faster than dense
attention, forward and backward. One mixer has width 256, 4 heads, both gates, k = 64, and an indexer of 4 heads of 16
dimensions, trained by KL (its loss is part of the step) or frozen. Dense attention is mixer/attention.py, whose SDPA
keeps no T x T tensor either. Decoding is one token after T - 1 others. Each line has the slope of log time against
log T since the previous length.
"""

import argparse
import json
import math
from typing import Any

import torch

from speciate.config.run import ModelSpec
from speciate.model.profiling.mixer_cost import MixerCost, measure_mixer_costs

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
K = 64


def model(mixer: dict[str, Any]) -> ModelSpec:
    """Return a model with that mixer."""
    block = {"mixer": {"num_heads": 4, **mixer}, "ffn": "dense", "depth": "every"}
    shape = {"width": 256, "context": 512, "position": "rotary", "norm": "rms", "biases": False, "init_std": 0.06}
    return ModelSpec.model_validate({**shape, "block": block})


def sparse(indexer: str) -> ModelSpec:
    """Return a model with sparse attention."""
    shape = {} if indexer == "window" else {"width": 16}
    return model({"kind": "gsa", "indexer": {"kind": indexer, **shape}, "budget": {"kind": "fixed", "k": K}})


def slope(now: MixerCost, before: MixerCost | None, field: str) -> float | None:
    """Return the slope of log time over log T."""
    if before is None:
        return None
    times = math.log(getattr(now, field) / getattr(before, field))
    return round(times / math.log(now.length / before.length), 2)


def main() -> None:
    """Measure every length, then compare the longest with the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = {"gsa": sparse("kl"), "gsa_frozen": sparse("as_published"), "window": sparse("window")}
    models["dense"] = model({"kind": "attention"})
    before: dict[str, MixerCost] = {}
    first: dict[str, MixerCost] = {}
    for length in arguments.lengths:
        rows = {row.name: row for row in measure_mixer_costs(models, [length], arguments.rounds)}
        for field, title in (("train_ms", "forward and backward"), ("decode_ms", "decoding a token")):
            line: dict[str, Any] = {
                "benchmark": f"sparse attention, T {length}, {title}",
                "cpu_ms": {name: round(getattr(row, field), 2) for name, row in rows.items()},
                "slope": {name: slope(row, before.get(name), field) for name, row in rows.items()},
            }
            if field == "train_ms" and length == max(arguments.lengths):
                over = {"ratio": round(rows["gsa"].train_ms / rows["dense"].train_ms, 3), "bar": 1.0}
                line |= {"ours": "gsa", "ours_over": {"dense": over}}
            print(json.dumps(line), flush=True)
        kept = {name: round(row.kept_bytes / 2**20, 2) for name, row in rows.items()}
        first = first or rows
        line = {"benchmark": f"sparse attention, T {length}, memory kept", "mib": kept}
        if length == max(arguments.lengths) > first["gsa"].length:
            linear = first["gsa"].kept_bytes * length / first["gsa"].length
            line["mib"] = {**kept, "linear": round(linear / 2**20, 2)}
            over = {"ratio": round(rows["gsa"].kept_bytes / linear, 3), "bar": 1.05}
            line |= {"ours": "gsa", "ours_over": {"linear": over}}
        print(json.dumps(line), flush=True)
        before = rows


if __name__ == "__main__":
    main()
