import pathlib

import numpy as np
import pytest

from speciate.data import encoded, encoding, lexical
from speciate.data.documents import Document, write_documents
from speciate.data.tokenizer import bpe
from speciate.data.tokens import FittedTokenizer
from speciate.kinds import options_of

TEXTS = ["def f(x):\n    return 'é' + x  # c\n", "", "?broken", "x = [1, 2]\n" * 40]


def tokenizer(entries: int = 280) -> FittedTokenizer:
    options = options_of("data/tokenizer", "bpe")(kind="bpe", entries=entries)
    return FittedTokenizer(bpe.build(options, TEXTS, None).to_str(), "bpe")


def write(folder: pathlib.Path, language: str | None, fitted: FittedTokenizer) -> dict[str, object]:
    rows = [Document(f"id{index}", "code", f"group{index % 2}", text) for index, text in enumerate(TEXTS)]
    write_documents(folder / "source.parquet", rows)
    targets = encoding.Targets(*(folder / f"probe.{part}" for part in ("tokens.npy", "documents.parquet", "types.npy")))
    return encoding.write_encoded(folder / "source.parquet", fitted, targets, language)


def test_documents_lie_end_to_end(tmp_path: pathlib.Path) -> None:
    fitted = tokenizer()
    counts = write(tmp_path, "python", fitted)
    split = encoded.read_encoded(tmp_path, "probe", fitted.manifest)
    assert split.tokens_N.dtype == np.uint16
    rows = split.documents.to_pylist()
    assert [row["id"] for row in rows] == ["id0", "id1", "id2", "id3"]
    assert [row["group"] for row in rows] == ["group0", "group1", "group0", "group1"]
    assert [row["bytes"] for row in rows] == [len(text.encode()) for text in TEXTS]
    assert rows[0]["start"] == 0
    assert [row["start"] for row in rows[1:]] == [row["stop"] for row in rows[:-1]]
    assert rows[-1]["stop"] == len(split.tokens_N) == counts["tokens"]
    for row, text in zip(rows, TEXTS, strict=True):
        assert fitted.decode(split.tokens_N[row["start"] : row["stop"]]) == text
    assert split.starts_D.tolist() == [row["start"] for row in rows]
    assert split.lengths_D.tolist() == [row["stop"] - row["start"] for row in rows]


def test_types_belong_to_their_tokens(tmp_path: pathlib.Path) -> None:
    fitted = tokenizer()
    counts = write(tmp_path, "python", fitted)
    types = np.load(tmp_path / "probe.types.npy")
    tokens = np.load(tmp_path / "probe.tokens.npy")
    assert types.dtype == np.uint8
    assert len(types) == len(tokens)
    assert counts["documents_refused"] == 1
    assert counts["tokens_by_type"] == {name: int((types == index).sum()) for index, name in enumerate(lexical.TYPES)}
    ids, lengths = fitted.encode(TEXTS[:1])
    expected, _ = lexical.token_types(TEXTS[0], fitted.token_bytes[ids])
    assert types[: lengths[0]].tolist() == expected.tolist()
    assert len(set(expected.tolist())) > 4


def test_without_a_language_every_type_is_other(tmp_path: pathlib.Path) -> None:
    counts = write(tmp_path, None, tokenizer())
    assert not np.load(tmp_path / "probe.types.npy").any()
    assert counts["documents_refused"] == 0


def test_another_tokenizer_is_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path, None, tokenizer())
    with pytest.raises(ValueError, match=r"probe.documents.parquet: was encoded with another tokenizer"):
        encoded.read_encoded(tmp_path, "probe", tokenizer(283).manifest)


def test_equal_input_gives_equal_bytes(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "python", tokenizer())
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_files_that_do_not_belong_together_are_refused(tmp_path: pathlib.Path) -> None:
    fitted = tokenizer()
    write(tmp_path, None, fitted)
    np.save(tmp_path / "probe.tokens.npy", np.zeros(7, np.uint16))
    with pytest.raises(ValueError, match=r"probe.tokens.npy: has 7 tokens of type uint16, but probe.documents.parquet"):
        encoded.read_encoded(tmp_path, "probe", fitted.manifest)
    (tmp_path / "probe.documents.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"probe.documents.parquet: cannot be read"):
        encoded.read_encoded(tmp_path, "probe", fitted.manifest)
    (tmp_path / "probe.documents.parquet").unlink()
    with pytest.raises(ValueError, match=r"probe.documents.parquet: cannot be read"):
        encoded.read_encoded(tmp_path, "probe", fitted.manifest)
