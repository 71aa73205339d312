"""Measure, on a CPU, what reading the next steps' blocks in a thread costs and could gain, as a GPU run does it.

    python benchmarks/feed.py

Bar: 1 for reading ahead over reading when needed, in CPU time of a run, so the thread costs nothing. The third column
is the reading alone, which is the most that reading ahead could gain. Steps are small (width 64, 2 layers, 16 blocks
of 128 tokens from a memory-mapped file of 64 MiB), so reading weighs as much as it ever does.
"""

import argparse
import pathlib
import tempfile

import numpy as np
import torch
from distributed import LENGTH, NUM_BLOCKS, VOCABULARY
from timing import medians, show

from speciate.config.components import component_module, options_of
from speciate.config.run import ModelSpec
from speciate.model.transformer import Transformer
from speciate.training.prefetch import Batch, BatchPrefetcher

NUM_STEPS = 5


def main() -> None:
    """Time training with and without the prefetching thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ffn = {"kind": "dense", "hidden": 256}
    block = {"mixer": {"kind": "attention"}, "ffn": ffn, "depth": "every"}
    shape = {"width": 64, "num_layers": 2, "context": LENGTH, "block": block}
    model = Transformer(ModelSpec.model_validate(shape), VOCABULARY)
    options = options_of("training/objective", "causal")(kind="causal")
    objective = component_module(options).Objective(options)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "blocks.npy"
        draw = np.random.default_rng(0)
        np.save(file, draw.integers(0, VOCABULARY, (2**18, LENGTH), dtype=np.uint16))
        blocks = np.load(file, mmap_mode="r")

        def read(step: int) -> Batch:
            rows = np.random.default_rng(step).integers(0, len(blocks), NUM_BLOCKS)
            return torch.from_numpy(blocks[rows].astype(np.int64)), None

        def run(ahead: int) -> None:
            with BatchPrefetcher(read, NUM_STEPS, ahead) as feed:
                for step in range(NUM_STEPS):
                    objective(model, feed(step)[0]).backward()

        def alone() -> None:
            for step in range(NUM_STEPS):
                read(step)

        cases = {"ahead": lambda: run(2), "in_time": lambda: run(0), "reading_alone": alone}
        show("reading ahead on a CPU", medians(cases, rounds), "ahead", {"in_time": 1.0})


if __name__ == "__main__":
    main()
