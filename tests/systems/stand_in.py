"""Make the texts that the four systems' studies name, in little, for a hub on the loopback, at their pinned commits.

The file names, columns and formats are those of the corpora; the texts are drawn from a seed.
"""

import gzip
import io
import json
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from tests.data.fetch.sources.hub_server import Repo
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from speciate.config.study import read_study

STUDIES = pathlib.Path(__file__).parents[2] / "studies"
SYSTEMS = ("moe_emergence", "gsa_slimpajama", "atat_openwebtext", "moe_arch", "moe_arch_tenth")
WORDS = ("river", "stone", "light", "number", "garden", "window", "letter", "engine", "paper", "signal")


def sentences(draw: random.Random, count: int) -> str:
    return " ".join(" ".join(draw.choices(WORDS, k=draw.randint(5, 12))).capitalize() + "." for _ in range(count))


def code(draw: random.Random) -> str:
    name, other = draw.sample(WORDS, 2)
    lines = [f"def {name}_{draw.randint(0, 999)}({other}):", f'    """{sentences(draw, 2)}"""']
    lines += [f"    {draw.choice(WORDS)} = {other} + {draw.randint(0, 99)}  # {draw.choice(WORDS)}" for _ in range(8)]
    return "\n".join([*lines, f"    return {other}", ""])


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def tokenizer(texts: Iterator[str]) -> bytes:
    """Return a small byte-level tokenizer.json with Qwen's token that ends a text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made.to_str().encode()


def commits() -> dict[str, str]:
    """Return dataset, or repository of a tokenizer or model -> the commit that a study pins."""
    found: dict[str, str] = {}
    for name in SYSTEMS:
        study = read_study(STUDIES / f"{name}.yaml")
        sources: list[Any] = [source for domain in study.domains.values() for source in domain.sources.values()]
        archive = study.tokenizer.published_archive() if study.tokenizer.kind == "pretrained" else None
        for source in [*sources, *([archive] if archive else [])]:
            found[getattr(source, "dataset", None) or source.repository] = source.revision
    return found


def repositories(documents: int) -> dict[str, Repo]:
    """Return what the hub serves: `documents` texts a file, at least two files of most corpora."""
    draw, pinned = random.Random(0), commits()
    prose = [{"text": sentences(draw, 12)} for _ in range(8 * documents)]
    parts = [prose[start::8] for start in range(8)]
    files = {
        "codeparrot/codeparrot-clean": {
            f"file-{number:012d}.json.gz": gzip.compress(
                lines([{"content": code(draw), "repo_name": f"r{draw.randint(0, 60)}"} for _ in range(documents)])
            )
            for number in (1, 2)
        },
        "allenai/math_qa": {
            "default/train/0000.parquet": parquet(
                [{"Problem": sentences(draw, 2), "Rationale": sentences(draw, 3)} for _ in range(2 * documents)]
            )
        },
        "allenai/c4": {
            "README.md": b"---\nconfigs:\n- config_name: en\n  data_files: en/c4-train.*.json.gz\n---\n",
            **{f"en/c4-train.{n:05d}-of-01024.json.gz": gzip.compress(lines(parts[n])) for n in range(2)},
        },
        "cerebras/SlimPajama-627B": {
            f"train/chunk1/example_train_{number}.jsonl.zst": zstandard.compress(lines(part))
            # 7 and 3000 are outside of what the study reads
            for number, part in zip((7, 100, 999, 1000, 2999, 3000), parts, strict=False)
        },
        "Skylion007/openwebtext": {f"plain_text/train-{n:05d}-of-00080.parquet": parquet(parts[n]) for n in range(4)},
        "HuggingFaceFW/fineweb": {
            f"sample/{size}/{n:03d}_00000.parquet": parquet(parts[n]) for size in ("10BT", "100BT") for n in range(4)
        },
    }
    repos = {f"datasets/{name}": Repo(content) for name, content in files.items()}  # type: ignore[arg-type]
    for name in files:
        if "/" in pinned[name]:  # a name such as refs/convert/parquet
            repos[f"datasets/{name}"].revisions = ("main", pinned[name])
        else:
            repos[f"datasets/{name}"].commit = pinned[name]
    end = {"eos_token": "<|endoftext|>"}
    made = {
        "tokenizer.json": tokenizer(row["text"] for row in prose),
        "tokenizer_config.json": json.dumps(end).encode(),
    }
    repos["models/Qwen/Qwen2.5-7B"] = Repo(made, commit=pinned["Qwen/Qwen2.5-7B"])
    return repos
