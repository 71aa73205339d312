"""Define bad tokens, blocks, mixtures and cards, in the stages from the tokenizer on."""

import pathlib

import numpy as np
import pyarrow as pa
from tests.bad_input.case import Case, Place, cut, rows, save
from tests.bad_input.spoiled import DATA, Harm, of, settings, stage, swapped

TRAIN = "encode/code-*/0-of-2/train"
TOKENIZER = "fit/tokenizer-*"
SPLIT = "write_splits/code-*/0-of-2/train.parquet"


def empty(place: Place, shard: int) -> None:
    """Make a shard whose text is shorter than a block."""
    for part in ("blocks", "pieces"):
        file = place.file(f"{DATA}/pack/code-*/{shard}-of-2/train.{part}.npy")
        save(file, np.load(file)[:0])


def reshaped(place: Place, split: str) -> None:
    """Make a shard's split in blocks of half the length."""
    file = place.file(f"{DATA}/pack/code-*/0-of-2/{split}.blocks.npy")
    blocks = np.load(file)
    save(file, blocks[:, : blocks.shape[1] // 2])


def tokens(wrong: str, says: str, verb: str, harm: Harm, part: str = "") -> Case:
    """Make a case of the stages from the tokenizer on."""
    return Case("Tokens", wrong, stage(verb, harm, part), says)


CASES = [
    tokens(
        "no tokenizer",
        "results/data/fit/tokenizer-KEY/tokenizer.json: cannot be read: [Errno 2] No such file or directory: "
        "'results/data/fit/tokenizer-KEY/tokenizer.json'",
        "encode",
        of(f"{TOKENIZER}/tokenizer.json", pathlib.Path.unlink),
        "code",
    ),
    tokens(
        "a tokenizer with a byte changed",
        "results/data/fit/tokenizer-KEY/tokenizer.json: is not the tokenizer that tokenizer_manifest.json describes",
        "encode",
        of(f"{TOKENIZER}/tokenizer.json", lambda f: f.write_text(f.read_text().replace("merges", "Merges"))),
        "code",
    ),
    tokens(
        "a vocabulary that the text cannot fill",
        "tokenizer.entries: the training text gives only N of 50000 entries",
        "fit",
        of(f"{TOKENIZER}/spec.json", settings(lambda s: s["tokenizer"].update(entries=50000))),
    ),
    tokens(
        "a split cut off",
        "results/data/write_splits/code-KEY/0-of-2/train.parquet: is not a documents file: WHY",
        "encode",
        of(SPLIT, cut),
        "code",
    ),
    tokens(
        "tokens cut off",
        "results/data/encode/code-KEY/0-of-2/train.tokens.npy: is truncated or not an array: WHY",
        "pack",
        of(f"{TRAIN}.tokens.npy", lambda f: cut(f, 0.9)),
        "code",
    ),
    tokens(
        "tokens of another tokenizer",
        "results/data/encode/code-KEY/0-of-2/train.documents.parquet: was encoded with another tokenizer than "
        "0000000000",
        "pack",
        of(f"{TOKENIZER}/tokenizer_manifest.json", settings(lambda s: s.update(fingerprint="0" * 64))),
        "code",
    ),
    tokens(
        "tokens beyond the vocabulary",
        "results/data/encode/code-KEY/0-of-2/train.tokens.npy: holds token 559, but the vocabulary has 280",
        "pack",
        of(f"{TRAIN}.tokens.npy", lambda f: save(f, np.load(f) + np.uint16(280))),
        "code",
    ),
    tokens(
        "documents whose tokens overlap",
        "results/data/encode/code-KEY/0-of-2/train.documents.parquet: its documents do not follow one another"
        " without gaps",
        "pack",
        of(
            f"{TRAIN}.documents.parquet",
            lambda f: rows(f, lambda t: t.set_column(2, t.schema.field("start"), pa.array([0] * len(t), pa.int64()))),
        ),
        "code",
    ),
    tokens(
        "a domain without a block",
        "domains.code: too small for one block of the train split (blocks: code 0, prose N)",
        "balance",
        lambda place: [empty(place, shard) for shard in (0, 1)],
    ),
    tokens(
        "blocks and pieces of different shards",
        "results/data/pack/code-KEY/0-of-2/train.pieces.npy: does not belong to the blocks in its folder",
        "balance",
        swapped("pack/code-*/0-of-2/train.pieces.npy", "pack/code-*/1-of-2/train.pieces.npy"),
    ),
    tokens(
        "blocks of another length",
        "--packed: the packs have blocks of different lengths: [16, 32]",
        "balance",
        lambda place: [reshaped(place, split) for split in ("train", "test", "validation", "probe")],
    ),
    tokens(
        "weights of a domain that there is not",
        "mixture.weights: needs one for each of code, prose, not for code, verse",
        "balance",
        of(
            "balance/mixture-*/spec.json",
            settings(lambda s: s.update(mixture={"kind": "weights", "weights": {"code": 1.0, "verse": 1.0}})),
        ),
    ),
    tokens(
        "no counts for the data card",
        "results/data/encode/prose-KEY/0-of-1/counts.json: cannot be read: [Errno 2] No such file or directory: "
        "'results/data/encode/prose-KEY/0-of-1/counts.json'",
        "card",
        of("encode/prose-*/0-of-1/counts.json", pathlib.Path.unlink),
    ),
    tokens(
        "counts that do not tell all",
        "results/data/pack/prose-KEY/0-of-1/counts.json: lacks the counts probe blocks, probe tokens_in, probe "
        "tokens_packed",
        "card",
        of("pack/prose-*/0-of-1/counts.json", settings(lambda s: s["splits"].pop("probe"))),
    ),
]
