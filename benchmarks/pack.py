"""Compare every packing with `datasets.map(group_texts)`, the usual way to fill blocks.

    python benchmarks/pack.py [--tokens N] [--block-length T]

All get the same documents: random token ids with log-normal lengths (short, like word problems, or long, like code).
What counts is the work from token ids and document lengths to blocks, our table of segments included. The peer starts
from a tokenised `datasets.Dataset` that already contains end-of-text tokens. It is measured as training scripts use
it (with an attention mask, and labels as a copy) and with token ids alone. Its blocks are checked to equal those of
concat. Since the machine may be shared, CPU time is measured in rounds that take every alternative in turn, and the
median of 5 is reported.
"""

import argparse
import itertools
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from timing import medians, show

from speciate.config.components import component_module, options_of
from speciate.data.packing import segments
from speciate.data.packing.fill_blocks import fill_blocks

SHAPES = {"short documents": (5.0, 0.4), "long documents": (7.5, 1.2)}  # mean and deviation of log length
END = 0
REPEATS = 5


def documents(num_tokens: int, mean: float, deviation: float) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    """Return about `num_tokens` token ids, and the lengths of the documents that they make up."""
    draw = np.random.default_rng(0)
    lengths = np.maximum(1, draw.lognormal(mean, deviation, int(num_tokens / np.exp(mean + deviation**2 / 2))))
    lengths_D = lengths.astype(np.int64)
    return draw.integers(1, 4096, int(lengths_D.sum()), dtype=np.uint16), lengths_D


def ours(kind: str, tokens_N: npt.NDArray[np.uint16], lengths_D: npt.NDArray[np.int64], length: int) -> Any:
    """Return the blocks (B, T) that a packing makes."""
    options = options_of("data/packing", kind)(kind=kind)
    plan_M4 = segments.concatenate_plan(component_module(options).plan(options, lengths_D, length))
    blocks_BT = np.empty((int(plan_M4[-1, segments.BLOCK]) + 1, length), tokens_N.dtype)
    fill_blocks(tokens_N, np.cumsum(lengths_D) - lengths_D, lengths_D, plan_M4, end=END, blocks_BT=blocks_BT)
    return blocks_BT


def group_texts(tokenised: datasets.Dataset, length: int) -> datasets.Dataset:
    """Concatenate each batch of documents and cut it into blocks, column by column; labels are a copy of the ids."""

    def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        streams = {name: list(itertools.chain.from_iterable(lists)) for name, lists in batch.items()}
        total = len(streams["input_ids"]) // length * length
        cut = {
            name: [one[start : start + length] for start in range(0, total, length)] for name, one in streams.items()
        }
        return cut | ({"labels": cut["input_ids"].copy()} if "attention_mask" in cut else {})

    return tokenised.map(group, batched=True, keep_in_memory=True, load_from_cache_file=False)


def measure(num_tokens: int, length: int, shape: str) -> None:
    """Time each way on one shape of corpus."""
    datasets.disable_progress_bars()
    tokens_N, lengths_D = documents(num_tokens, *SHAPES[shape])
    texts = [[*text.tolist(), END] for text in np.split(tokens_N, np.cumsum(lengths_D)[:-1])]
    ids = datasets.Dataset.from_dict({"input_ids": texts})
    whole = datasets.Dataset.from_dict({"input_ids": texts, "attention_mask": [[1] * len(text) for text in texts]})
    first = group_texts(whole, length)[:50]
    assert first["input_ids"] == first["labels"] == ours("concat", tokens_N, lengths_D, length)[:50].tolist()
    ways = {
        "group_texts": lambda: group_texts(whole, length),
        "group_texts, ids alone": lambda: group_texts(ids, length),
        "concat": lambda: ours("concat", tokens_N, lengths_D, length),
        "best_fit": lambda: ours("best_fit", tokens_N, lengths_D, length),
        "best_fit_truncate": lambda: ours("best_fit_truncate", tokens_N, lengths_D, length),
    }
    seconds = medians(ways, REPEATS)
    title = f"pack {len(tokens_N) / 1e6:.1f} Mtok, T {length}: {shape}"
    show(title, seconds, "concat", {"group_texts": 1 / 50, "group_texts, ids alone": 1 / 50})
    show(title, seconds, "best_fit", {"concat": 3.0})
    show(title, seconds, "best_fit_truncate", {"concat": 3.0})


def main() -> None:
    """Time every shape of corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--block-length", type=int, default=128)
    arguments = parser.parse_args()
    for shape in SHAPES:
        measure(arguments.tokens, arguments.block_length, shape)


if __name__ == "__main__":
    main()
