"""Measure the memory per document of the stages that sort, from peaks at two sizes, mapped pages included."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from speciate.config.components import options_of
from speciate.data import disk_permutation
from speciate.data.arrays import scratch
from speciate.data.arrays.npy import read_array
from speciate.data.dedup.candidates import SignedScope, find_similar_pairs
from speciate.data.dedup.clusters import NEAR, cluster_documents
from speciate.data.dedup.signatures import SignedShard
from speciate.data.mixture.interleave import interleave, shuffled_blocks
from speciate.data.shard import Shard
from speciate.data.tokens.encoded import EncodedSplit
from speciate.stages.pack import Spec as PackSpec
from speciate.stages.pack import pack_split

SIZES = (4_000, 80_000)
HASHES = 100
TOKENS = 300


def stored(file: pathlib.Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Write random integers to a file in chunks of rows; return them memory-mapped."""
    draw = np.random.default_rng(0)
    high = np.iinfo(dtype).max if np.dtype(dtype).itemsize > 2 else 500
    with file.open("wb") as handle:
        header = {"shape": shape, "fortran_order": False, "descr": np.dtype(dtype).str}
        np.lib.format.write_array_header_1_0(handle, header)
        for start in range(0, shape[0], 1 << 10):
            draw.integers(0, high, (min(1 << 10, shape[0] - start), *shape[1:]), dtype).tofile(handle)
    return read_array(file)


def bucket(folder: pathlib.Path, count: int) -> Callable[[], None]:
    """Prepare pairs of documents that share a bucket and differ in all but their bands."""
    shingles = stored(folder / "shingles.npy", np.uint32, (count * HASHES,))
    digests = stored(folder / "digests.npy", np.uint64, (count, 5))
    np.save(folder / "bands.npy", np.arange(count, dtype=np.uint64)[None] // 2 * (2**64 // count))
    np.save(folder / "ends.npy", np.arange(1, count + 1) * HASHES)
    bands, ends = (read_array(folder / f"{name}.npy") for name in ("bands", "ends"))

    def run() -> None:
        scope = SignedScope([SignedShard("a", Shard(), digests, ends, bands, shingles, ends)])
        assert len(find_similar_pairs(scope, range(1), 0.5)) == 0

    return run


def clusters(folder: pathlib.Path, count: int) -> Callable[[], None]:
    """Prepare documents that are similar in pairs, every second of which is dropped."""

    def run() -> None:
        firsts = range(0, count, 1000)
        pairs = (np.arange(first, min(first + 1000, count)).reshape(-1, 2) for first in firsts)
        policies = np.full(count, NEAR, np.int8)
        clusters_found = cluster_documents(
            np.arange(count, dtype=np.int32), pairs, policies, lambda documents: np.ones(len(documents), bool)
        )
        assert (clusters_found.replacement_D >= 0).sum() == count // 2

    return run


def balance(folder: pathlib.Path, count: int) -> Callable[[], None]:
    """Prepare a mixture of five blocks per document."""
    return lambda: (
        interleave([shuffled_blocks("a", 4 * count, 0), shuffled_blocks("b", count, 0)]).shape == (5 * count, 2) or None
    )


def pack(folder: pathlib.Path, count: int) -> Callable[[], None]:
    """Prepare documents of a little more than two blocks."""
    stored(folder / "tokens.npy", np.uint16, (TOKENS * count,))

    def run() -> None:
        stops = np.arange(1, count + 1) * TOKENS
        encoded = EncodedSplit(read_array(folder / "tokens.npy"), pa.table({"start": stops - TOKENS, "stop": stops}))
        spec = PackSpec(domain="a", packing=options_of("data/packing", "best_fit")(kind="best_fit"), block_length=128)
        assert pack_split(encoded, spec, 0, folder, split="train")["blocks"] == (TOKENS + 1) * count // 128

    return run


STAGES = {"bucket": (bucket, 80), "cluster": (clusters, 50), "balance": (balance, 30), "pack": (pack, 150)}
"""Stage -> its workload, and the most bytes of memory per additional document."""


def status(name: str) -> int:
    """Read a line of this process's /proc status, in bytes."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure(folder: pathlib.Path) -> None:
    """Print the bytes per additional document of each stage."""
    scratch.PARTITION_ROWS = disk_permutation.PARTITION_ROWS = 1 << 13  # so that the larger size has many parts
    bytes_per_document = {}
    for stage, (prepared, _) in STAGES.items():
        peaks = []
        for count in (SIZES[0], *SIZES):  # the first run loads libraries
            run = prepared(folder, count)
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # reset the peak
            before = status("VmRSS")
            run()
            peaks.append(status("VmHWM") - before)
        bytes_per_document[stage] = (peaks[2] - peaks[1]) / (SIZES[1] - SIZES[0])
    print(json.dumps(bytes_per_document))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Measure in a separate process, whose memory nothing else has enlarged."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"  # so that memory freed by one stage does not serve the next
    command = [sys.executable, __file__, str(tmp_path_factory.mktemp("memory"))]
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    bytes_per_document: dict[str, float] = json.loads(output)
    return bytes_per_document


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the system does not report a process's peak"
)
@pytest.mark.parametrize("stage", STAGES)
def test_memory_per_document_is_small(stage: str, measured: dict[str, float]) -> None:
    assert measured[stage] < STAGES[stage][1]


if __name__ == "__main__":
    measure(pathlib.Path(sys.argv[1]))
