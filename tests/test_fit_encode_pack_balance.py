"""The four verbs from split documents to a mixture, one after the other, on a small corpus."""

import json
import pathlib
import random
import sys

import numpy as np
import pytest

from speciate import balance, encode, fit, pack
from speciate.data.blocks import TrainBlocks, read_mixture, read_set
from speciate.data.documents import Document, read_documents, write_documents
from speciate.data.sampler import block_rows
from speciate.data.tokens import read_tokenizer
from speciate.data.vocabulary import read_manifest

DOMAINS = ("code", "prose")
SPLITS = ("train", "validation", "test", "probe")
HELD_OUT = {"validation_blocks": 4, "test_blocks": 4, "probe_blocks": 3, "seed": 0}


def texts(domain: str, num: int) -> list[str]:
    draw = random.Random(f"{domain} {num}")
    words = ["spam", "eggs", "naïve", "café", "return", "value", "日本"]
    if domain == "code":
        return [
            "".join(
                f"def f{draw.randrange(99)}(x):\n    return x + {draw.randrange(9)}  # {draw.choice(words)}\n"
                for _ in range(n)
            )
            for n in (draw.randrange(1, 9) for _ in range(num))
        ]
    return [" ".join(draw.choice(words) for _ in range(draw.randrange(3, 90))) + ".\n" for _ in range(num)]


def call(monkeypatch: pytest.MonkeyPatch, verb: object, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [verb.__name__, *map(str, arguments)])
    verb.main()


def spec(folder: pathlib.Path, name: str, **settings: object) -> pathlib.Path:
    (folder / f"{name}.json").write_text(json.dumps(settings))
    return folder / f"{name}.json"


def split_documents(folder: pathlib.Path, sizes: dict[str, int]) -> None:
    for domain in DOMAINS:
        (folder / "split" / domain).mkdir(parents=True)
        for split in SPLITS:
            rows = [
                Document(f"{split}{index}", domain, f"{split}{index // 2}", text)
                for index, text in enumerate(texts(domain, sizes[domain] if split == "train" else sizes.get(split, 12)))
            ]
            write_documents(folder / "split" / domain / f"{split}.parquet", rows)


def build(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, packing: str = "best_fit") -> pathlib.Path:
    train = [folder / "split" / domain / "train.parquet" for domain in DOMAINS]
    options = spec(folder, "fit", tokenizer={"kind": "bpe", "entries": 300})
    call(monkeypatch, fit, "--spec", options, "--documents", *train, "--output-folder", folder / "fit")
    for domain in DOMAINS:
        language = "python" if domain == "code" else None
        arguments = ["--tokenizer-folder", folder / "fit", "--output-folder"]
        options = spec(folder, "encode", domain=domain, language=language)
        source = ["--split-folder", folder / "split" / domain]
        call(monkeypatch, encode, "--spec", options, *source, *arguments, folder / "encode" / domain)
        options = spec(folder, "pack", domain=domain, packing={"kind": packing}, block_length=32)
        source = ["--encoded-folder", folder / "encode" / domain]
        call(monkeypatch, pack, "--spec", options, *source, *arguments, folder / "pack" / domain)
    options = spec(folder, "balance", domains=DOMAINS, mixture={"kind": "truncate"}, held_out=HELD_OUT)
    where = {part: [f"{domain}={folder / part / domain}" for domain in DOMAINS] for part in ("pack", "encode")}
    arguments = ["--packed", *where["pack"], "--encoded", *where["encode"], "--tokenizer-folder", folder / "fit"]
    call(monkeypatch, balance, "--spec", options, *arguments, "--output-folder", folder / "mixture")
    return folder / "mixture"


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_the_training_blocks_hold_the_documents(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, packing: str
) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50})
    folder = build(tmp_path, monkeypatch, packing)
    tokenizer = read_tokenizer(tmp_path / "fit")
    blocks = TrainBlocks(folder)
    mixture = read_mixture(folder)
    assert len(blocks) == sum(mixture.train_blocks.values()) == 2 * min(mixture.available_blocks["train"].values())
    assert (blocks.vocabulary, blocks.block_length, mixture.domains) == (300, 32, ["code", "prose"])

    whole = {
        domain: [d.text for d in read_documents(tmp_path / "split" / domain / "train.parquet")] for domain in DOMAINS
    }
    rows = block_rows(0, 0, len(blocks), len(blocks))
    tokens, documents = blocks.tokens(rows), blocks.documents(rows)
    assert tokens.dtype == documents.dtype == np.int64
    domain_of = np.load(folder / "train.npy")[rows, 0]
    for domain, tokens_T, documents_T in zip(domain_of, tokens, documents, strict=True):
        for document in set(documents_T.tolist()):
            run = tokens_T[documents_T == document]
            ends = np.flatnonzero(run == mixture.end_of_text)
            assert ends.tolist() in ([], [len(run) - 1])
            text = tokenizer.decode(run[: len(run) - len(ends)]).strip("\ufffd")  # a character may be cut in two
            assert text in whole[DOMAINS[domain]][document]
            assert not len(ends) or whole[DOMAINS[domain]][document].endswith(text)


def test_the_held_out_sets(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50})
    folder = build(tmp_path, monkeypatch)
    tokenizer = read_tokenizer(tmp_path / "fit")
    for name, blocks_each in [("validation", 4), ("test", 4), ("probe", 3)]:
        held = read_set(folder, name)
        assert held.tokens.shape == held.document.shape == (2 * blocks_each, 32)
        assert held.domain.tolist() == [0, 1] * blocks_each
        assert held.domains == DOMAINS
        for domain in DOMAINS:
            source = {d.id: d for d in read_documents(tmp_path / "split" / domain / f"{name}.parquet")}
            for row in held.documents[held.documents["domain"] == domain].itertuples():
                for block, where in zip(held.tokens, held.document == row.document, strict=True):
                    run = block[where]
                    text = tokenizer.decode(run[run != tokenizer.manifest.end_of_text]).strip("\ufffd")
                    assert text in source[row.id].text
        assert (held.types is None) == (name != "probe")
    assert held.types[held.domain == 0].any()
    assert not held.types[held.domain == 1].any()
    part = held.prefix(2)
    assert len(part) == 4
    assert (part.tokens == held.tokens[:4]).all()
    assert part.documents is held.documents
    with pytest.raises(ValueError, match="the probe set has 3 blocks of each domain, fewer than 4"):
        held.prefix(4)


def test_the_same_input_gives_the_same_bytes_anywhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "one", tmp_path / "deeper" / "two"]
    for folder in folders:
        folder.mkdir(parents=True)
        split_documents(folder, {"code": 30, "prose": 25})
        build(folder, monkeypatch)
    files = [file.relative_to(folders[0]) for file in sorted(folders[0].rglob("*")) if file.is_file()]
    assert len(files) > 40
    for file in files:
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


def test_warnings_and_counts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    split_documents(tmp_path, {"code": 200, "prose": 30, "validation": 1})
    folder = build(tmp_path, monkeypatch)
    mixture = read_mixture(folder)
    assert mixture.imbalance > 1.5
    assert len(mixture.warnings) == 2
    assert "times the tokens of prose" in mixture.warnings[0]
    assert "held_out.validation_blocks: " in mixture.warnings[1]
    assert mixture.held_out_blocks["validation"] == min(mixture.available_blocks["validation"].values()) == 3
    printed = capsys.readouterr().err
    assert all(f"warning: {warning}" in printed for warning in mixture.warnings)
    counts = json.loads((tmp_path / "pack" / "code" / "counts.json").read_text())["splits"]["train"]
    tokens = json.loads((tmp_path / "encode" / "code" / "counts.json").read_text())["splits"]["train"]
    assert counts["tokens_in"] == tokens["tokens"] + tokens["documents"]
    assert counts["tokens_in"] == counts["tokens_packed"] + counts["tokens_dropped"]
    assert counts["blocks"] == mixture.available_blocks["train"]["code"]


def test_a_domain_too_small_for_a_block_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50})
    (tmp_path / "split" / "prose" / "test.parquet").unlink()
    write_documents(tmp_path / "split" / "prose" / "test.parquet", [Document("a", "prose", "a", "short")])
    with pytest.raises(
        ValueError, match=r"domains.prose: too small for one block of the test split \(blocks: code \d+"
    ):
        build(tmp_path, monkeypatch)
    assert not (tmp_path / "mixture" / "mixture.json").exists()


def test_a_pack_that_is_not_the_mixtures_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50})
    folder = build(tmp_path, monkeypatch)
    np.save(tmp_path / "pack" / "prose" / "train.blocks.npy", np.zeros((3, 32), np.uint16))
    with pytest.raises(ValueError, match=r"mixture.json: prose's pack has blocks \(3, 32\), not"):
        TrainBlocks(folder)


@pytest.mark.parametrize(
    "given", [["code=x"], ["code=x", "prose=y", "math=z"], ["code=x", "prose"], ["code=x", "code=y"]]
)
def test_domain_arguments(given: list[str]) -> None:
    with pytest.raises(ValueError, match="--packed: needs DOMAIN=DIR once for each of code, prose"):
        balance.by_domain(given, DOMAINS, "--packed")


def test_pieces_of_other_blocks_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50})
    build(tmp_path, monkeypatch)
    pieces = tmp_path / "pack" / "prose" / "test.pieces.npy"
    pieces.write_bytes((tmp_path / "pack" / "code" / "test.pieces.npy").read_bytes())
    with pytest.raises(ValueError, match=r"test.pieces.npy: does not belong to the blocks beside it"):
        balance.read_pack(pieces.parent, tmp_path / "encode" / "prose", "test", read_manifest(tmp_path / "fit"))
