"""Define bad tokens, blocks, mixtures and cards, in the stages from the tokenizer on."""

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
from tests.bad_input.case import Case, Place, cut, rows, save
from tests.bad_input.spoiled import DATA, Harm, of, settings, stage, swapped
from tokenizers import Tokenizer, models

from speciate.data.tokens.fitted import FittedTokenizer
from speciate.graph.records import Record, as_json

TRAIN = "encode/code-*/0-of-2/train"
TOKENIZER = "fit/tokenizer-*"
SPLIT = "write_splits/code-*/0-of-2/train.parquet"


def empty(place: Place) -> None:
    """Make a domain whose text is shorter than a block."""
    for part in ("blocks", "pieces"):
        file = place.file(f"{DATA}/pack/code-*/train.{part}.npy")
        save(file, np.load(file)[:0])


def reshaped(place: Place, split: str) -> None:
    """Make a domain's split in blocks of half the length."""
    file = place.file(f"{DATA}/pack/code-*/{split}.blocks.npy")
    blocks = np.load(file)
    save(file, blocks[:, : blocks.shape[1] // 2])


def character_tokenizer(place: Place, text: str = "日本") -> None:
    """Replace the tokenizer by a BPE of characters that has tokens for nothing but `text`."""
    vocabulary = {token: index for index, token in enumerate(["</s>", *text])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.add_special_tokens(["</s>"])
    for name, content in FittedTokenizer(tokenizer.to_str(), "pretrained", "</s>").files().items():
        place.file(f"{DATA}/{TOKENIZER}/{name}").write_bytes(content)


def lost(splits: dict[str, Any], lost_bytes: int) -> None:
    """Make the counts of encoding say that some text was lost."""
    for counts in splits.values():
        counts |= {"documents": 5, "bytes": 200, "documents_with_loss": 0, "lost_characters": 0, "lost_bytes": 0}
    splits["train"] |= {"documents_with_loss": 2, "lost_characters": 10, "lost_bytes": lost_bytes}


def recorded(place: Place, file: str, size: int) -> None:
    """Let the results be those of a workflow, and say that a file had another size when it was written."""
    for name in ("specs", "source"):
        (place.folder / "results" / name).mkdir(exist_ok=True)
    written = place.file(f"{DATA}/{file}")
    outputs = {written.name: (size, "0" * 64)}
    text = as_json({"encode": Record(spec="", code="", outputs=outputs)})
    (written.parent / "made_by.json").write_text(text)


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
        "lexical types, and a tokenizer that is not byte-level",
        "domains.code.language: lexical types of python need a tokenizer whose tokens keep every byte of the text; "
        "this one, of kind pretrained, does not, since its steps write bytes as symbols 0 times instead of once: write "
        "`language: null` for this domain, or choose a byte-level tokenizer",
        "encode",
        character_tokenizer,
        "code",
    ),
    tokens(
        "a tokenizer that cannot spell a document",
        "domains.prose: document prose/corpus/prose.jsonl#WHY: the tokenizer has no token for any of its N characters "
        "(WHY): choose a tokenizer that can spell this text, or remove the document",
        "encode",
        character_tokenizer,
        "prose",
    ),
    tokens(
        "a tokenizer that cannot spell most of a domain",
        "domains.prose: the tokenizer loses 10 characters (401 of 800 bytes, 50.12%) in 2 of 20 documents: choose a "
        "tokenizer that can spell this text, or remove the domain",
        "balance",
        of("encode/prose-*/0-of-1/counts.json", settings(lambda s: lost(s["splits"], 401))),
    ),
    Case(
        "Tokens",
        "a tokenizer that cannot spell some of a domain",
        stage("balance", of("encode/prose-*/0-of-1/counts.json", settings(lambda s: lost(s["splits"], 400)))),
        "warning: domain prose: the tokenizer loses 10 characters (400 of 800 bytes, 50.00%) in 2 of 20 documents",
        status=0,
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
        "tokens of another size than their stage recorded",
        "results/data/encode/code-KEY/0-of-2/train.tokens.npy: has N bytes, but `encode` wrote 7; remove it, and the "
        "workflow makes it again",
        "pack",
        lambda place: recorded(place, f"{TRAIN}.tokens.npy", 7),
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
        empty,
    ),
    tokens(
        "blocks and pieces of different domains",
        "results/data/pack/code-KEY/train.pieces.npy: does not belong to the blocks in its folder",
        "balance",
        swapped("pack/code-*/train.pieces.npy", "pack/prose-*/train.pieces.npy"),
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
        "results/data/sketch/prose-KEY/0-of-1/counts.json: cannot be read: [Errno 2] No such file or directory: "
        "'results/data/sketch/prose-KEY/0-of-1/counts.json'",
        "card",
        of("sketch/prose-*/0-of-1/counts.json", pathlib.Path.unlink),
    ),
    tokens(
        "counts that do not tell all",
        "results/data/pack/prose-KEY/counts.json: lacks the counts probe documents, probe bytes, probe blocks, "
        "probe tokens_in, probe tokens_packed",
        "card",
        of("pack/prose-*/counts.json", settings(lambda s: s["splits"].pop("probe"))),
    ),
]
