"""Measure how long a large trace takes to be read and judged, and how much memory: the bars are 5 minutes and 4 GiB.

    python benchmarks/doctor_trace.py [--tokens 10000000] [--keep FOLDER]

The trace is in Speciate's own format: 48 layers of 64 experts, of which each token chooses 8, in documents of six
labels, with a router that depends on the label in every other layer. 10 M tokens are 3.8 G choices and a file of
about 5 GB, in a temporary folder unless one is named, where a later run finds it. Reading and judging (B = 999) run in
a process of their own on two threads, which reports its own largest memory.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from speciate.analysis.routing.judge import judge
from speciate.traces.read import read_trace
from speciate.traces.write import TraceWriter

LAYERS, EXPERTS, CHOSEN, LABELS = 48, 64, 8, 6
BLOCK = 1 << 16
MEAN_LENGTH = 600
SUBSETS = 4096
"""Sets of experts among which the tokens of a label draw."""
MOST_SECONDS, MOST_MIB = 300, 4096


def generate(path: pathlib.Path, tokens: int) -> None:
    """Write a trace of that many tokens."""
    draw = np.random.default_rng(0)
    # the experts of each set are drawn without replacement, by Gumbel noise on the label's preferences
    subset_LDSK = np.empty((LAYERS, LABELS, SUBSETS, CHOSEN), dtype=np.uint8)
    for layer in range(LAYERS):
        prefers_DE = draw.normal(size=(LABELS, EXPERTS)) * (layer % 2) * 0.5
        noisy = prefers_DE[:, None] + draw.gumbel(size=(LABELS, SUBSETS, EXPERTS))
        subset_LDSK[layer] = np.argsort(-noisy, axis=-1)[..., :CHOSEN]
    with TraceWriter(path, num_experts=EXPERTS, num_chosen=CHOSEN) as trace:
        document, at = 0, 0
        for start in range(0, tokens, BLOCK):
            num = min(BLOCK, tokens - start)
            numbers, positions = np.empty(num, dtype=np.int64), np.empty(num, dtype=np.int64)
            done = 0
            while done < num:  # a document may go on in the next block
                length = 1 + int(np.random.default_rng(document).exponential(MEAN_LENGTH))
                taken = min(length - at, num - done)
                numbers[done : done + taken], positions[done : done + taken] = document, np.arange(at, at + taken)
                done, at = done + taken, at + taken
                if at == length:
                    document, at = document + 1, 0
            label_N = numbers * 7919 % LABELS
            token_N = (50_000 * draw.random(num) ** 3).astype(np.int64)
            names = [f"document {number}" for number in range(document + 1)]
            documents, labels = [names[number] for number in numbers], [f"label {label}" for label in label_N]
            for layer in range(LAYERS):
                set_N = (token_N * 31 + draw.integers(0, 64, num)) % SUBSETS
                trace.add(
                    layer,
                    subset_LDSK[layer][label_N, set_N],
                    document=documents,
                    position=positions,
                    token=token_N,
                    label=labels,
                )


def largest_memory() -> float:
    """Return this process's largest memory, MiB; the kernel's other figure begins with that of the parent."""
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def measure(path: pathlib.Path) -> None:
    """Read and judge a trace, and print the times."""
    start = time.perf_counter()
    record = read_trace(path)
    read = time.perf_counter() - start
    figures = {"read": read, "tokens": float(record.documents["num_tokens"].sum())}
    figures["read_mib"] = largest_memory()
    start = time.perf_counter()
    judge(record)
    figures["judge"] = time.perf_counter() - start
    figures["mib"] = largest_memory()
    figures["cpu"] = time.process_time()
    print(json.dumps(figures))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the trace, which stays")
    parser.add_argument("--measure", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        return measure(arguments.measure)
    with tempfile.TemporaryDirectory() as temporary:
        path = (arguments.keep or pathlib.Path(temporary)) / f"trace-{arguments.tokens}.parquet"
        start = time.perf_counter()
        if not path.is_file():
            generate(path, arguments.tokens)
        made = time.perf_counter() - start
        command = [sys.executable, __file__, "--measure", str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures = json.loads(done.stdout)
        seconds = figures["read"] + figures["judge"]
        size = path.stat().st_size / 1e9
    line = {
        "benchmark": f"doctor, {arguments.tokens} tokens",
        "ours": "doctor",
        "seconds": {"doctor": seconds, "limit": MOST_SECONDS, "generate": made, **figures},
        "mib": {"doctor": figures["mib"], "limit": MOST_MIB},
        "gigabytes": size,
        "ours_over": {
            "5 minutes": {"ratio": seconds / MOST_SECONDS, "bar": 1.0, "of": "seconds", "peer": "limit"},
            "4 GiB": {"ratio": figures["mib"] / MOST_MIB, "bar": 1.0, "of": "mib", "peer": "limit"},
        },
    }
    print(json.dumps(line))
    return None


if __name__ == "__main__":
    main()
