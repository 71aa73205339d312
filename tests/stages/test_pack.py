"""Test packing in chunks, between which the memory of mapped pages is released."""

import pathlib

import numpy as np
import pyarrow as pa
import pytest

from speciate.config.components import kinds_in, options_of
from speciate.data.arrays.npy import read_array
from speciate.data.tokens.encoded import EncodedSplit
from speciate.stages import pack
from speciate.stages.pack import Spec as PackSpec


@pytest.mark.parametrize("kind", kinds_in("data/packing"))
def test_the_chunks_do_not_change_the_blocks(
    kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    lengths_D = draw.integers(1, 90, 300)
    stops_D = np.cumsum(lengths_D)
    np.save(tmp_path / "tokens.npy", draw.integers(1, 500, int(stops_D[-1]), dtype=np.uint16))
    documents = pa.table({"start": stops_D - lengths_D, "stop": stops_D})
    encoded = EncodedSplit(read_array(tmp_path / "tokens.npy"), documents)
    spec = PackSpec(domain="one", packing=options_of("data/packing", kind)(kind=kind), block_length=16)
    results = []
    for portion, jumps, far in ((1 << 24, 1 << 24, 1), (48, 5, 30), (1 << 24, 2, 0), (1, 1, 0)):
        monkeypatch.setattr(pack, "MAX_TOKENS", portion)
        monkeypatch.setattr(pack, "MAX_JUMPS", jumps)
        monkeypatch.setattr(pack, "JUMP_TOKENS", far)
        pack.pack_split(encoded, spec, 0, tmp_path, split="train")
        results.append((tmp_path / "train.blocks.npy").read_bytes())
    assert len(np.load(tmp_path / "train.blocks.npy")) > 100
    assert len(set(results)) == 1


def test_the_document_that_reaches_max_tokens_is_the_last() -> None:
    lengths_D = np.array([7, 0, 5, 3, 6, 0])
    stops_D = np.cumsum(lengths_D)
    documents = pa.table({"start": stops_D - lengths_D, "stop": stops_D})
    encoded = EncodedSplit(np.arange(21, dtype=np.uint16), documents)
    limits = {None: 6, 1: 1, 7: 1, 8: 3, 12: 3, 13: 4, 20: 5, 21: 5, 22: 6, 10**9: 6}
    for max_tokens, kept in limits.items():
        limited = pack.limit_documents(encoded, max_tokens)
        assert limited.documents["stop"].to_pylist() == stops_D[:kept].tolist(), max_tokens
        assert limited.tokens_N.tolist() == list(range(stops_D[kept - 1])), max_tokens
