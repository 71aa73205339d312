"""Tiny finished runs with random weights, their tokenizer, and the harness's tasks of our own."""

import pathlib
import shutil
from typing import Any

import torch

from speciate.config.extends import merge
from speciate.config.run import RunSpec, canonical_json
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.tokenizer import bpe
from speciate.evaluation.subject import Subject
from speciate.training.build_model import build_model
from speciate.training.checkpoint.load_run import load_run
from speciate.training.checkpoint.weights import save_weights

TASKS = pathlib.Path(__file__).parents[3] / "studies" / "own_tasks" / "harness"
ENTRIES, CONTEXT = 300, 48
TEXTS = [
    "the cat sat on the mat, and the dog sat on the log",
    "def f(x):\n    return x + 1\n",
    "Question: what colour is the sky? Answer: blue. Question: how many legs has a dog? Answer: four.",
] * 20
DENSE = {"kind": "dense", "hidden": 48}
MOE = {"kind": "moe", "num_experts": 4, "hidden": 24, "top_k": 2, "router": "learned", "balance": "none"}


def tokenizer(folder: pathlib.Path) -> None:
    """Write a tokenizer as the stage `fit` does."""
    folder.mkdir()
    fitted = FittedTokenizer(bpe.build(bpe.Options(kind="bpe", entries=ENTRIES), iter(TEXTS), None).to_str(), "bpe")
    for name, content in fitted.files().items():
        (folder / name).write_bytes(content)


def finished_run(folder: pathlib.Path, ffn: dict[str, Any] = DENSE, **changes: Any) -> pathlib.Path:
    """Write a run's folder with random weights, large enough that every token is surer of some words than of others."""
    folder.mkdir()
    tokenizer(folder / "tokenizer")
    masked = changes.get("objective", "causal") != "causal"
    block = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": ffn, "depth": "every"}
    model = {"width": 32, "num_layers": 2, "context": CONTEXT, "block": block, "init_std": 0.2, "embedding_std": 0.3}
    model |= {"causal": not masked}
    settings = {"ablation": "arm", "seed": 0, "model": model, "objective": "causal", "optimizer": "adamw"}
    run = RunSpec.model_validate(merge(settings, {"schedule": "cosine", **changes}))
    torch.manual_seed(0)
    (folder / "spec.json").write_text(canonical_json(run))
    save_weights(build_model(run, ENTRIES), folder / "model.safetensors")
    return folder


def subject(folder: pathlib.Path) -> Subject:
    """Load a run as the stage of an evaluation does."""
    import numpy as np
    from tokenizers import Tokenizer

    from speciate.data.tokens.manifest import read_manifest

    vocabulary = read_manifest(folder / "tokenizer").vocabulary
    run, model = load_run(folder, vocabulary)
    return Subject(
        run=run,
        folder=folder,
        model=model,
        objective=run.objective.component().Objective(run.objective),
        tokenizer=Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json")),
        token_bytes_V=np.load(folder / "tokenizer" / "token_bytes.npy"),
        mixture=folder,
        texts={},
        device=torch.device("cpu"),
    )


def copied_tasks(folder: pathlib.Path) -> pathlib.Path:
    """Copy the tasks, so that a test can spoil them."""
    return pathlib.Path(shutil.copytree(TASKS, folder / "tasks"))
