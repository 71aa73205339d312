"""Run the four stages from split documents to a mixture on a small corpus."""

import itertools
import json
import pathlib
import random

import numpy as np
import pytest

from speciate.cli import execute
from speciate.data.blocks import TrainBlocks, read_block_set
from speciate.data.documents import Document, read_documents, write_documents
from speciate.data.mixture.manifest import read_mixture
from speciate.data.sampler import block_rows
from speciate.data.tokens.fitted import read_tokenizer
from speciate.data.tokens.manifest import read_manifest
from speciate.stages import balance, encode, fit, pack

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


def call(verb: object, *arguments: object) -> None:
    execute([verb.__name__.rpartition(".")[2], *map(str, arguments)])


def spec(folder: pathlib.Path, name: str, **settings: object) -> pathlib.Path:
    (folder / f"{name}.json").write_text(json.dumps(settings))
    return folder / f"{name}.json"


def split_documents(folder: pathlib.Path, sizes: dict[str, int], shards: int = 1) -> None:
    """Deal the documents out to the n shards one by one, so that groups are in several shards."""
    for domain in DOMAINS:
        for shard in range(shards):
            target = folder / "split" / domain / f"{shard}-of-{shards}"
            target.mkdir(parents=True)
            for split in SPLITS:
                num = sizes[domain] if split == "train" else sizes.get(split, 12)
                rows = [
                    Document(f"{split}{index}", domain, f"{split}{index // 2}", text)
                    for index, text in enumerate(texts(domain, num))
                ]
                write_documents(target / f"{split}.parquet", rows[shard::shards])


def build(
    folder: pathlib.Path,
    packing: str = "best_fit",
    shards: int = 1,
    mixture: dict[str, object] | None = None,
) -> pathlib.Path:
    parts = [f"{shard}-of-{shards}" for shard in range(shards)]
    train = [folder / "split" / domain / part / "train.parquet" for domain in DOMAINS for part in parts]
    options = spec(folder, "fit", tokenizer={"kind": "bpe", "entries": 300})
    call(fit, "--spec", options, "--documents", *train, "--output-folder", folder / "fit")
    for domain, part in itertools.product(DOMAINS, parts):
        language = "python" if domain == "code" else None
        arguments = ["--tokenizer-folder", folder / "fit", "--output-folder"]
        options = spec(folder, "encode", domain=domain, language=language)
        source = ["--split-folder", folder / "split" / domain / part]
        call(encode, "--spec", options, *source, *arguments, folder / "encode" / domain / part)
    for domain in DOMAINS:
        options = spec(folder, "pack", domain=domain, packing={"kind": packing}, block_length=32, shards=shards)
        source = ["--encoded-folder", folder / "encode" / domain]
        call(pack, "--spec", options, *source, *arguments, folder / "pack" / domain)
    mixed = {"mixture": mixture or {"kind": "truncate"}, "held_out": HELD_OUT, "shards": [shards] * len(DOMAINS)}
    options = spec(folder, "balance", domains=DOMAINS, **mixed)
    where = {part: [f"{domain}={folder / part / domain}" for domain in DOMAINS] for part in ("pack", "encode")}
    arguments = ["--packed", *where["pack"], "--encoded", *where["encode"], "--tokenizer-folder", folder / "fit"]
    call(balance, "--spec", options, *arguments, "--output-folder", folder / "mixture")
    return folder / "mixture"


def documents_of(folder: pathlib.Path, domain: str, name: str) -> list[Document]:
    """Read a domain's documents, shard by shard."""
    shards = sorted((folder / "split" / domain).iterdir())
    return [document for shard in shards for document in read_documents(shard / f"{name}.parquet")]


@pytest.mark.parametrize(
    ("packing", "shards"), [("concat", 1), ("best_fit", 1), ("best_fit", 3), ("best_fit_truncate", 2)]
)
def test_the_training_blocks_hold_the_documents(tmp_path: pathlib.Path, packing: str, shards: int) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50}, shards)
    folder = build(tmp_path, packing, shards)
    tokenizer = read_tokenizer(tmp_path / "fit")
    blocks = TrainBlocks(folder)
    mixture = read_mixture(folder)
    assert len(blocks) == sum(mixture.train_blocks.values()) == 2 * min(mixture.available_blocks["train"].values())
    assert (blocks.vocabulary, blocks.block_length, mixture.domains) == (300, 32, ["code", "prose"])

    whole = {domain: [d.text for d in documents_of(tmp_path, domain, "train")] for domain in DOMAINS}
    rows = block_rows(0, 0, len(blocks), len(blocks))
    tokens, documents = blocks.tokens(rows), blocks.documents(rows)
    assert tokens.dtype == documents.dtype == np.int64
    for domain, tokens_T, documents_T in zip(blocks.domains(rows), tokens, documents, strict=True):
        for document in set(documents_T.tolist()):
            run = tokens_T[documents_T == document]
            ends = np.flatnonzero(run == mixture.end_of_text)
            assert ends.tolist() in ([], [len(run) - 1])
            text = tokenizer.decode(run[: len(run) - len(ends)]).strip("\ufffd")  # a cut may fall inside a character
            assert text in whole[DOMAINS[domain]][document]
            assert not len(ends) or whole[DOMAINS[domain]][document].endswith(text)
            assert packing != "best_fit_truncate" or whole[DOMAINS[domain]][document].startswith(text)


@pytest.mark.parametrize("shards", [1, 3])
def test_the_held_out_sets(tmp_path: pathlib.Path, shards: int) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50}, shards)
    folder = build(tmp_path, shards=shards)
    tokenizer = read_tokenizer(tmp_path / "fit")
    for name, blocks_each in [("validation", 4), ("test", 4), ("probe", 3)]:
        held = read_block_set(folder, name)
        assert held.tokens.shape == held.document.shape == (2 * blocks_each, 32)
        assert held.domain.tolist() == [0, 1] * blocks_each
        assert held.domains == DOMAINS
        for domain in DOMAINS:
            source = {d.id: d for d in documents_of(tmp_path, domain, name)}
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


def test_the_same_input_gives_the_same_bytes_anywhere(tmp_path: pathlib.Path) -> None:
    folders = [tmp_path / "one", tmp_path / "deeper" / "two"]
    for folder in folders:
        folder.mkdir(parents=True)
        split_documents(folder, {"code": 30, "prose": 25})
        build(folder)
    files = [file.relative_to(folders[0]) for file in sorted(folders[0].rglob("*")) if file.is_file()]
    assert len(files) > 40
    for file in files:
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


def test_warnings_and_counts(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    split_documents(tmp_path, {"code": 200, "prose": 30, "validation": 1})
    folder = build(tmp_path)
    mixture = read_mixture(folder)
    assert mixture.imbalance > 1.5
    assert len(mixture.warnings) == 2
    assert "times the tokens of prose" in mixture.warnings[0]
    assert "held_out.validation_blocks: " in mixture.warnings[1]
    assert mixture.held_out_blocks["validation"] == min(mixture.available_blocks["validation"].values()) == 3
    printed = capsys.readouterr().err
    assert all(f"warning: {warning}" in printed for warning in mixture.warnings)
    counts = json.loads((tmp_path / "pack" / "code" / "counts.json").read_text())["splits"]["train"]
    tokens = json.loads((tmp_path / "encode" / "code" / "0-of-1" / "counts.json").read_text())["splits"]["train"]
    assert counts["tokens_in"] == tokens["tokens"] + tokens["documents"]
    assert counts["tokens_in"] == sum(counts[f"tokens_{part}"] for part in ("packed", "truncated", "dropped"))
    assert counts["blocks"] == mixture.available_blocks["train"]["code"]


def test_a_domain_too_small_for_a_block_is_named(tmp_path: pathlib.Path) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50})
    test = tmp_path / "split" / "prose" / "0-of-1" / "test.parquet"
    test.unlink()
    write_documents(test, [Document("a", "prose", "a", "short")])
    with pytest.raises(
        ValueError, match=r"domains.prose: too small for one block of the test split \(blocks: code \d+"
    ):
        build(tmp_path)
    assert not (tmp_path / "mixture" / "mixture.json").exists()


def test_a_pack_that_is_not_the_mixtures_is_refused(tmp_path: pathlib.Path) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50})
    folder = build(tmp_path)
    np.save(tmp_path / "pack" / "prose" / "train.blocks.npy", np.zeros((3, 32), np.uint16))
    with pytest.raises(ValueError, match=r"mixture.json: prose's pack has blocks of shape \(3, 32\), not"):
        TrainBlocks(folder)


@pytest.mark.parametrize(
    "given", [["code=x"], ["code=x", "prose=y", "math=z"], ["code=x", "prose"], ["code=x", "code=y"]]
)
def test_domain_arguments(given: list[str]) -> None:
    with pytest.raises(ValueError, match="--packed: needs DOMAIN=DIR once for each of code, prose"):
        balance.folders_by_domain(given, DOMAINS, "--packed")


def test_segments_of_other_blocks_are_refused(tmp_path: pathlib.Path) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50})
    build(tmp_path)
    pieces = tmp_path / "pack" / "prose" / "test.pieces.npy"
    pieces.write_bytes((tmp_path / "pack" / "code" / "test.pieces.npy").read_bytes())
    folders = ({domain: tmp_path / stage / domain for domain in DOMAINS} for stage in ("pack", "encode"))
    settings = {"mixture": {"kind": "truncate"}, "held_out": HELD_OUT, "shards": [1, 1]}
    read = balance.Spec.model_validate({"domains": DOMAINS, **settings})
    with pytest.raises(ValueError, match=r"test.pieces.npy: does not belong to the blocks in its folder"):
        balance.Inputs(read, *folders, read_manifest(tmp_path / "fit")).pack("test", "prose")


def test_a_shard_without_a_document_is_packed_and_balanced(tmp_path: pathlib.Path) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50}, 2)
    for split in SPLITS:
        empty = tmp_path / "split" / "code" / "1-of-2" / f"{split}.parquet"
        empty.unlink()
        write_documents(empty, [])
    folder = build(tmp_path, shards=2)
    blocks, mixture = TrainBlocks(folder), read_mixture(folder)
    assert mixture.available_blocks["train"]["code"] > 0
    assert blocks.tokens(np.arange(len(blocks))).shape == blocks.documents(np.arange(len(blocks))).shape
    assert set(read_block_set(folder, "probe").domain.tolist()) == {0, 1}


def test_one_domain_split_in_three(tmp_path: pathlib.Path) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50, "test": 60, "validation": 60, "probe": 60})
    folder = build(tmp_path, mixture={"kind": "split_domain", "domain": "prose"})
    mixture = read_mixture(folder)
    assert mixture.labels == ["prose_1", "prose_2", "prose_3"]
    assert mixture.train_blocks == {"code": 0, "prose": mixture.available_blocks["train"]["prose"]}
    assert mixture.epochs == {"code": 0.0, "prose": 1.0}
    assert mixture.held_out_blocks == {"validation": 12, "test": 12, "probe": 9}
    held = read_block_set(folder, "test")
    assert held.domains == tuple(mixture.labels)
    assert held.domain.tolist() == [1] * 12
    assert set(held.documents["domain"]) == set(mixture.labels)
    assert len(held.prefix(2)) == 6
    assert len(TrainBlocks(folder)) == mixture.train_blocks["prose"]


def test_a_label_that_no_held_out_document_has_is_an_error(tmp_path: pathlib.Path) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50, "validation": 2})
    message = (
        r"held_out.validation_blocks: no document of the validation set is labelled prose_\d+: its \d+ blocks of prose"
    )
    with pytest.raises(ValueError, match=message):
        build(tmp_path, mixture={"kind": "split_domain", "domain": "prose", "parts": 5})
    assert not (tmp_path / "mixture" / "mixture.json").exists()


def test_shuffled_labels_are_those_of_the_documents_and_not_of_the_blocks(tmp_path: pathlib.Path) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50, "test": 40})
    plain = build(tmp_path)
    before, tokens = read_block_set(plain, "test"), (plain / "train.npy").read_bytes()
    after = read_block_set(build(tmp_path, mixture={"kind": "shuffled_labels"}), "test")
    assert (plain / "train.npy").read_bytes() == tokens
    assert (after.tokens == before.tokens).all()
    assert (after.document == before.document).all()
    assert after.documents["id"].equals(before.documents["id"])
    assert sorted(after.documents["domain"]) != list(after.documents["domain"])
    assert (after.documents["domain"] != before.documents["domain"]).any()
    assert (after.label != after.domain[:, None]).any()
    assert (before.label == before.domain[:, None]).all()


def test_four_to_one(tmp_path: pathlib.Path) -> None:
    split_documents(tmp_path, {"code": 60, "prose": 50})
    weights = {"kind": "weights", "weights": {"code": 4, "prose": 1}, "blocks": 300}
    mixture = read_mixture(build(tmp_path, mixture=weights))
    assert mixture.train_blocks == {"code": 240, "prose": 60}
    assert mixture.epochs["code"] == 240 / mixture.available_blocks["train"]["code"] > 1
    assert any(warning.startswith("code has") for warning in mixture.warnings)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_domain_that_lost_most_of_its_text_is_refused_and_one_that_lost_some_is_warned_of(
    tmp_path: pathlib.Path, shards: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sum over all splits and shards decides, not that of a single shard."""
    split_documents(tmp_path, {"code": 60, "prose": 50}, shards)
    assert not any("loses" in warning for warning in read_mixture(build(tmp_path, shards=shards)).warnings)
    counts = sorted((tmp_path / "encode" / "prose").glob("*/counts.json"))
    total = sum(json.loads(file.read_text())["splits"][split]["bytes"] for file in counts for split in SPLITS)
    first = json.loads(counts[0].read_text())
    where = {part: [f"{domain}={tmp_path / part / domain}" for domain in DOMAINS] for part in ("pack", "encode")}
    arguments = ["--spec", tmp_path / "balance.json", "--packed", *where["pack"], "--encoded", *where["encode"]]
    arguments += ["--tokenizer-folder", tmp_path / "fit", "--output-folder", tmp_path / "mixture"]
    for lost in (total // 2, total // 2 + 1):
        first["splits"]["train"] |= {"documents_with_loss": 1, "lost_characters": 5, "lost_bytes": lost}
        counts[0].write_text(json.dumps(first))
        if lost <= total / 2:
            call(balance, *arguments)
            warning = read_mixture(tmp_path / "mixture").warnings[0]
            assert warning.startswith(f"domain prose: the tokenizer loses 5 characters ({lost:,} of {total:,} bytes, ")
            assert f"warning: {warning}\n" in capsys.readouterr().err
        else:
            with pytest.raises(ValueError, match=r"^domains.prose: the tokenizer loses 5 characters \(.* bytes, 50"):
                call(balance, *arguments)
    counts[0].write_text("{}")
    with pytest.raises(ValueError, match=r"counts.json: does not hold the counts of encoding: KeyError"):
        call(balance, *arguments)
