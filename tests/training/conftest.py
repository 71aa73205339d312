"""Provide a mixture small enough to train on in a test, and runs on it."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from speciate.config.extends import merge
from speciate.config.run import RunSpec

DOMAINS = ("code", "prose")
LENGTH, VOCABULARY, TRAIN_BLOCKS = 16, 64, 24

BASE: dict[str, Any] = {
    "ablation": "small",
    "seed": 0,
    "model": {
        "width": 16,
        "num_layers": 2,
        "context": LENGTH,
        "block": {
            "mixer": {"kind": "attention", "num_heads": 2},
            "ffn": {
                "kind": "moe",
                "num_experts": 4,
                "hidden": 16,
                "router": {"kind": "learned", "noise_std": 0.1, "noise_until": 0.5},
                "balance": {"kind": "auxiliary", "weight": 0.01},
            },
            "depth": "every",
        },
    },
    "objective": "causal",
    "optimizer": {"kind": "adamw", "lr": 0.01},
    "schedule": "cosine",
    "training": {"num_steps": 12, "blocks_per_step": 4, "checkpoint_every": 5},
    "telemetry": {"every": 4, "early_every": 2, "early_until": 4, "probe_blocks": 2, "validation_every": 6},
}
DENSE = {"model": {"block": {"ffn": {"kind": "dense", "hidden": 16}}}}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run_spec() -> Callable[..., RunSpec]:
    """Make a run from its differences to the small base run."""
    return lambda **change: RunSpec.model_validate(merge(BASE, change))


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Write a mixture's folder in the balance stage's format; each domain uses its own half of the vocabulary."""
    folder = tmp_path_factory.mktemp("data") / "mixture"
    folder.mkdir()
    draw = np.random.Generator(np.random.Philox(7))
    packs = {}
    for index, domain in enumerate(DOMAINS):
        pack = folder.parent / domain
        pack.mkdir(parents=True)
        blocks = draw.integers(32 * index, 32 * index + 32, (TRAIN_BLOCKS, LENGTH), dtype=np.uint16)
        np.save(pack / "train.blocks.npy", blocks)
        # each block holds two documents
        runs = [(block, offset, 2 * block + (offset > 0), 0) for block in range(TRAIN_BLOCKS) for offset in (0, 5)]
        np.save(pack / "train.pieces.npy", np.array(runs, dtype=np.int64))
        packs[domain] = f"../{domain}"
    train = [(domain, block) for domain in range(len(DOMAINS)) for block in range(TRAIN_BLOCKS)]
    np.save(folder / "train.npy", np.array(train, dtype=np.int32))
    held_out = {"validation": 2, "test": 3, "probe": 4}
    for name, per_domain in held_out.items():
        domain = np.arange(per_domain * len(DOMAINS), dtype=np.int32) % len(DOMAINS)
        tokens = draw.integers(0, 32, (len(domain), LENGTH)) + 32 * domain[:, None]
        # each block holds two documents
        document = 2 * np.arange(len(domain))[:, None] + (np.arange(LENGTH) >= 9)
        np.save(folder / f"{name}.tokens.npy", tokens.astype(np.uint16))
        np.save(folder / f"{name}.document.npy", document.astype(np.int32))
        np.save(folder / f"{name}.domain.npy", domain)
        rows = range(2 * len(domain))
        table = {
            "document": np.array(rows, dtype=np.int32),
            "domain": [DOMAINS[domain[row // 2]] for row in rows],
            "id": [f"{name}{row}" for row in rows],
            "group": [f"{name}{row}" for row in rows],
            "bytes": [9] * len(rows),
            "surface": [9] * len(rows),
        }
        pd.DataFrame(table).to_parquet(folder / f"{name}.documents.parquet", index=False)
    np.save(folder / "probe.types.npy", np.zeros((8, LENGTH), dtype=np.uint8))
    manifest = {
        "domains": list(DOMAINS),
        "labels": list(DOMAINS),
        "block_length": LENGTH,
        "vocabulary": VOCABULARY,
        "end_of_text": 0,
        "tokenizer_fingerprint": "none",
        "packs": packs,
        "train_blocks": dict.fromkeys(DOMAINS, TRAIN_BLOCKS),
        "epochs": dict.fromkeys(DOMAINS, 1.0),
        "held_out_blocks": held_out,
        "available_blocks": {"train": dict.fromkeys(DOMAINS, TRAIN_BLOCKS)},
        "imbalance": 1.0,
        "warnings": [],
    }
    (folder / "mixture.json").write_text(json.dumps(manifest))
    return folder
