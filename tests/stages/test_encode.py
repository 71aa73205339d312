"""Test what the stages fit and encode log, count and refuse."""

import json
import pathlib

import pytest
from tests.data.tokens.tokenizer import published

from speciate.cli import execute
from speciate.config.components import component_module, options_of
from speciate.config.stage import SPLITS
from speciate.data.documents import Document, write_documents
from speciate.data.shard import Shard
from speciate.data.tokens.manifest import read_manifest
from speciate.data.tokens.read import read_encoded
from speciate.stages import encode, fit

TEXTS = ["The naïve café is open.", "def f(x):\n    return x\n", "", "x = 12 * 13\n" * 9, "日本語 🙂"]


def call(verb: object, *arguments: object) -> None:
    execute([verb.__name__.rpartition(".")[2], *map(str, arguments)])


def write(folder: pathlib.Path, **texts: list[str]) -> None:
    for split in SPLITS:
        rows = [Document(f"{split}{n}", "code", f"{n}", text) for n, text in enumerate(texts.get(split, TEXTS))]
        write_documents(folder / f"{split}.parquet", rows)


def fitted(folder: pathlib.Path, tokenizer: dict[str, object], *more: object) -> None:
    (folder / "fit.json").write_text(json.dumps({"tokenizer": tokenizer}))
    files = ["--documents", folder / "train.parquet", "--output-folder", folder / "fit"]
    call(fit, "--spec", folder / "fit.json", *files, *more)


def published_tokenizer(folder: pathlib.Path, text: str, end: str) -> None:
    """Fetch and fit a published tokenizer."""
    (folder / "mine").mkdir()
    (folder / "mine" / "tokenizer.json").write_text(text)
    archive = {"kind": "tokenizer_files", "path": str(folder / "mine")}
    options = options_of("data/fetch/sources", "tokenizer_files").model_validate(archive)
    component_module(options).fetch(options, "tokenizer", folder / "archive", Shard())
    spec = {"kind": "pretrained", "archive": archive, "end_of_text": end}
    fitted(folder, spec, "--archive", folder / "archive")


def encoded(folder: pathlib.Path, **settings: object) -> dict[str, object]:
    (folder / "encode.json").write_text(json.dumps({"domain": "code", "language": None, **settings}))
    where = ["--split-folder", folder, "--tokenizer-folder", folder / "fit", "--output-folder", folder / "out"]
    call(encode, "--spec", folder / "encode.json", *where)
    return json.loads((folder / "out" / "counts.json").read_text())


def test_the_encoder_is_logged(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    fitted(tmp_path, {"kind": "bpe", "entries": 290})
    counts = encoded(tmp_path, language="python")
    assert counts["encoder"].startswith("fastokens ")
    assert counts["encoder_reason"] is None
    assert counts["documents_checked"] == len(TEXTS) * len(SPLITS)
    assert counts["tokenizer_fingerprint"] == read_manifest(tmp_path / "fit").fingerprint
    assert counts["splits"]["train"]["documents"] == sum(counts["splits"]["train"]["by_octave"]) == len(TEXTS)
    assert f"code: encoding with {counts['encoder']}\n" in capsys.readouterr().err


def test_a_published_tokenizer_is_fitted_and_encodes(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    published_tokenizer(tmp_path, published.llama(), "</s>")
    counts = encoded(tmp_path)
    assert counts["encoder"].startswith("tokenizers ")
    log = capsys.readouterr().err
    assert "end-of-text token </s>" in log
    assert "its tokens do not keep every byte" in log
    assert f"code: encoding with {counts['encoder']} because the tokenizer is not byte-level: its steps" in log
    manifest = read_manifest(tmp_path / "fit")
    split = read_encoded(tmp_path / "out", "test", manifest)
    assert (manifest.kind, manifest.lossless) == ("pretrained", False)
    assert split.documents["bytes"].to_pylist() == [len(text.encode()) for text in TEXTS]
    with pytest.raises(
        ValueError, match=r"^domains.code.language: lexical types of python need .*: write `language: null` for"
    ):
        encoded(tmp_path, language="python")


def test_empty_splits(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    fitted(tmp_path, {"kind": "bpe", "entries": 290})
    write(tmp_path, train=[], validation=[], test=[], probe=[])
    counts = encoded(tmp_path, language="python")["splits"]
    for split in SPLITS:
        assert counts[split]["documents"] == counts[split]["tokens"] == 0
        assert len(read_encoded(tmp_path / "out", split, read_manifest(tmp_path / "fit")).tokens_N) == 0


def test_a_changed_vocabulary_is_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    fitted(tmp_path, {"kind": "bpe", "entries": 290})
    encoded(tmp_path)
    fitted(tmp_path, {"kind": "bpe", "entries": 291})
    with pytest.raises(
        ValueError, match=r"train.documents.parquet: was encoded with another tokenizer than [0-9a-f]{10}"
    ):
        read_encoded(tmp_path / "out", "train", read_manifest(tmp_path / "fit"))


def test_a_tokenizer_can_be_fitted_to_a_part(tmp_path: pathlib.Path) -> None:
    write(tmp_path, train=[f"{word} " * 40 for word in ("alpha", "beta", "gamma", "delta")])
    fitted(tmp_path, {"kind": "bpe", "entries": 261, "max_bytes": 300})
    part = (tmp_path / "fit" / "tokenizer.json").read_text()
    assert "al" in json.loads(part)["model"]["vocab"]
    assert "be" not in json.loads(part)["model"]["vocab"]
    write(tmp_path)
    written = {}
    for max_bytes in (None, 10**6):
        fitted(tmp_path, {"kind": "bpe", "entries": 290, "max_bytes": max_bytes})
        written[max_bytes] = (tmp_path / "fit" / "tokenizer.json").read_bytes()
    assert written[None] == written[10**6]


def test_what_is_switched_off_is_said_and_two_encodings_are_the_same(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    description = json.loads(published.byte_level())
    description["model"]["dropout"] = 0.2
    published_tokenizer(tmp_path, json.dumps(description), "<|end|>")
    assert "tokenizer.json: dropout 0.2: switched off\n" in capsys.readouterr().err
    assert read_manifest(tmp_path / "fit").switched_off == ["dropout 0.2"]
    first = encoded(tmp_path)
    tokens = (tmp_path / "out" / "train.tokens.npy").read_bytes()
    assert encoded(tmp_path) == first
    assert (tmp_path / "out" / "train.tokens.npy").read_bytes() == tokens


def test_lost_text_is_counted_and_warned_of(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, train=["the thing", "the 日本語 thing"], validation=["the"], test=["the"], probe=["the"])
    published_tokenizer(tmp_path, published.silent(), "</s>")
    counts = encoded(tmp_path)["splits"]["train"]
    assert (counts["documents_with_loss"], counts["lost_characters"], counts["lost_bytes"]) == (1, 3, 9)
    told = "the tokenizer loses 3 characters (9 of 28 bytes, 32.14%) in 1 of 2 documents"
    log = capsys.readouterr().err
    assert f"warning: domain code, train: {told}\n" in log
    assert "validation: the tokenizer loses" not in log


def test_documents_that_would_lose_all_their_text_are_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path, train=["日本語の文章です。"] * 20)
    published_tokenizer(tmp_path, published.silent(), "</s>")
    with pytest.raises(
        ValueError, match=r"^domains.code: document train0: the tokenizer has no token for any of its 9"
    ):
        encoded(tmp_path)
