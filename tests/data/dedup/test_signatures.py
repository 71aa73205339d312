"""Test a document's signature, row group by row group, against its text."""

import hashlib
import pathlib

import numpy as np
import pytest

from speciate.config.data import Duplicates
from speciate.data import documents
from speciate.data.dedup import signatures
from speciate.data.dedup.shingles import shingle_hashes
from speciate.data.dedup.signatures import (
    ID_COLUMN,
    ORDER_COLUMNS,
    SIGNATURE_FILES,
    TEXT_COLUMNS,
    SignedShard,
    read_signed_shards,
    sign_documents,
)
from speciate.data.documents import Document, write_documents
from speciate.data.splits.group_key import group_key

NEAR = Duplicates(ngram=3, permutations=24, bands=6)
WORDS = [f"w{index}" for index in range(40)]
ROWS = [
    Document(f"d{index}", "prose", f"g{index % 7}", " ".join(WORDS[index % 23 : index % 23 + index % 17]) or "…")
    for index in range(300)
]


def signed(folder: pathlib.Path, rows: list[Document], near: Duplicates | None = NEAR) -> SignedShard:
    write_documents(folder / "documents.parquet", rows)
    (folder / "0-of-1").mkdir(exist_ok=True)
    files = {name: folder / "0-of-1" / name for name in SIGNATURE_FILES}
    assert sign_documents(folder / "documents.parquet", files, 5, near) == len(rows)
    return read_signed_shards("prose", folder, 1)[0]


def number(data: bytes) -> list[int]:
    return [int.from_bytes(data[start : start + 8], "big") for start in range(0, len(data), 8)]


def test_digests_are_of_text_group_and_id(tmp_path: pathlib.Path) -> None:
    result = signed(tmp_path, ROWS)
    assert result.digests_D5.dtype == np.uint64
    for row, values in zip(ROWS, result.digests_D5, strict=True):
        assert values[TEXT_COLUMNS].tolist() == number(hashlib.blake2b(row.text.encode(), digest_size=16).digest())
        assert values[ORDER_COLUMNS].tolist() == number(group_key(row.group, 5))
        assert values[[ID_COLUMN]].tolist() == number(hashlib.blake2b(row.id.encode(), digest_size=8).digest())
    assert result.bytes_D.tolist() == [len(row.text.encode()) for row in ROWS]


def test_row_groups_do_not_show(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signed(tmp_path, ROWS)
    reference = {name: (tmp_path / "0-of-1" / name).read_bytes() for name in SIGNATURE_FILES}
    monkeypatch.setattr(documents, "ROW_GROUP_DOCUMENTS", 7)
    signed(tmp_path, ROWS)
    assert len(list(documents.read_tables(tmp_path / "documents.parquet"))) == 43
    assert reference == {name: (tmp_path / "0-of-1" / name).read_bytes() for name in SIGNATURE_FILES}


def test_the_smallest_shingles_are_kept(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "MAX_SHINGLES", 8)
    result = signed(tmp_path, ROWS)
    for index, row in enumerate(ROWS):
        assert (
            result.shingles(index).tolist()
            == sorted({value >> 32 for value in shingle_hashes(row.text, 3).tolist()})[:8]
        )


def test_bands_agree_for_equal_texts_and_for_no_two_without_words(tmp_path: pathlib.Path) -> None:
    texts = ["…", "...", "…", "a b c d e", "A, b; C\nd e", "a b c d f"]
    result = signed(tmp_path, [Document(str(index), "prose", "g", text) for index, text in enumerate(texts)])
    assert result.bands_BD.shape == (6, 6)
    for values in result.bands_BD.tolist():
        assert values[0] == values[2] != values[1]
        assert values[3] == values[4]
    assert len(set(result.bands_BD[:, 0].tolist())) == 6
    assert [len(result.shingles(index)) for index in range(6)] == [0, 0, 0, 3, 3, 3]


def test_without_near_duplicates_there_are_no_bands(tmp_path: pathlib.Path) -> None:
    result = signed(tmp_path, ROWS, None)
    assert (result.bands_BD.shape, result.shingles_S.shape) == ((0, 300), (0,))
    assert len(result.shingles(299)) == 0


@pytest.mark.parametrize("near", [NEAR, None])
def test_a_shard_without_documents(tmp_path: pathlib.Path, near: Duplicates | None) -> None:
    result = signed(tmp_path, [], near)
    assert len(result) == 0
    assert result.bands_BD.shape == (6 if near else 0, 0)


def test_damaged_files_are_named(tmp_path: pathlib.Path) -> None:
    signed(tmp_path, ROWS)
    np.save(tmp_path / "0-of-1" / "ends.npy", np.arange(10))
    with pytest.raises(ValueError, match="0-of-1: its files belong to different documents"):
        read_signed_shards("prose", tmp_path, 1)
    (tmp_path / "0-of-1" / "ends.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"ends.npy: is truncated"):
        read_signed_shards("prose", tmp_path, 1)
    (tmp_path / "documents.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"documents.parquet: is not a documents file"):
        sign_documents(tmp_path / "documents.parquet", {}, 0, NEAR)
