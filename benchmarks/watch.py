"""Measure what watching adds to the steps of a training at the default cadence, on one CPU core.

    python benchmarks/watch.py

Bar: at most .02 of a step. A small Mixtral of transformers is trained in a plain loop: one update without a watch, one
whose hooks are idle, one whose choices are counted and checked, and one check on a probe are timed by turns. The probe
has as many rows as a training batch. One step in `every` is checked:

    watched on a probe     = every x update + check on a probe
    watched on its batches = (every - 1) x update + update, counted and checked

each over every x update. Idle hooks return at once, and what they cost is far below the noise of an update.
"""

import argparse
import inspect
import json

import torch
from timing import medians
from transformers import MixtralConfig, MixtralForCausalLM

from speciate.watch import Watch

BAR, ROWS, LENGTH, VOCABULARY = 0.02, 16, 128, 4096
SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}


def model() -> MixtralForCausalLM:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=VOCABULARY, num_hidden_layers=4, num_local_experts=8, num_experts_per_tok=2, **SIZES
    )
    return MixtralForCausalLM(config).train()


def main() -> None:
    """Time each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds to take the median of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    every = inspect.signature(Watch).parameters["every"].default
    trained = model()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4)
    batch, probe = (torch.randint(VOCABULARY, (ROWS, LENGTH)) for _ in range(2))
    steps = iter(range(1, 10**9))

    def update() -> None:
        trained(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def watched(watch: Watch) -> None:
        update()
        watch.step(next(steps))

    on_probe = Watch(trained, {"input_ids": probe}, every=1, steps=10**6)
    on_batches = Watch(trained, every=1, steps=10**6)
    # it is never due, so its hooks return at once; on_batches' are idle while it is not active
    idle = Watch(trained, every=10**9, steps=10**9)

    def counted() -> None:
        on_batches._counter.active = True
        watched(on_batches)
        on_batches._counter.active = False

    on_batches._counter.active = False
    cases = {
        "update": update,
        "update with idle hooks": lambda: watched(idle),
        "update, counted and checked": counted,
        "check on a probe": lambda: on_probe.step(next(steps)),
    }
    seconds = medians(cases, rounds, warm_rounds=2)
    plain = every * seconds["update"]
    of_runs = {
        "watched on a probe": plain + seconds["check on a probe"],
        "watched on its batches": plain + seconds["update, counted and checked"] - seconds["update"],
    }
    for name, value in of_runs.items():
        row = {
            "benchmark": f"{every} steps {name}",
            "cpu_ms": {
                name: round(1000 * total, 2) for name, total in {name: value, "unwatched": plain, **seconds}.items()
            },
            "ours": name,
            "ours_over": {"unwatched": {"ratio": round(value / plain, 4), "bar": 1 + BAR}},
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
