"""Train two steps of each system's real shape, or of its layers at full width, on one block that both steps see.

Each run is a process of its own, through the command that the workflow calls, and prints its time and largest memory.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from speciate.config.extends import merge
from speciate.config.run import RunSpec, canonical_json
from speciate.config.study import read_study
from speciate.model.hf.pretrained import read_pretrained
from speciate.model.moe.experts import Experts
from speciate.training.prepare import initial_model

STUDIES = pathlib.Path(__file__).parents[2] / "studies"
SOURCE = pathlib.Path(__file__).parents[2] / "src"
GPT2_TOKENS = 50_257
LIMIT_MIB = 9 * 1024


def write_mixture(folder: pathlib.Path, length: int, vocabulary: int, blocks: int) -> pathlib.Path:
    """Write a mixture of one domain whose tokens come from a hundred, so that two steps learn something."""
    folder.mkdir()
    draw = np.random.Generator(np.random.Philox(1))
    kind = np.uint16 if vocabulary < 2**16 else np.uint32
    some = draw.integers(0, vocabulary, 100)
    (folder.parent / "pack").mkdir()
    np.save(folder.parent / "pack" / "train.blocks.npy", draw.choice(some, (blocks, length)).astype(kind))
    pieces = [(block, 0, block, 0) for block in range(blocks)]
    np.save(folder.parent / "pack" / "train.pieces.npy", np.array(pieces, dtype=np.int64))
    np.save(folder / "train.npy", np.array([(0, block) for block in range(blocks)], dtype=np.int32))
    for name in ("validation", "test", "probe"):
        np.save(folder / f"{name}.tokens.npy", draw.choice(some, (1, length)).astype(kind))
        np.save(folder / f"{name}.document.npy", np.zeros((1, length), dtype=np.int32))
        np.save(folder / f"{name}.domain.npy", np.zeros(1, dtype=np.int32))
        row = {"document": np.zeros(1, np.int32), "domain": ["text"], "id": [name], "group": [name]}
        pd.DataFrame({**row, "bytes": [length], "surface": [length]}).to_parquet(folder / f"{name}.documents.parquet")
    np.save(folder / "probe.types.npy", np.zeros((1, length), dtype=np.uint8))
    manifest = {
        "domains": ["text"],
        "labels": ["text"],
        "block_length": length,
        "vocabulary": vocabulary,
        "end_of_text": 0,
        "tokenizer_fingerprint": "none",
        "packs": {"text": "../pack"},
        "train_blocks": {"text": blocks},
        "epochs": {"text": 1.0},
        "held_out_blocks": {"validation": 1, "test": 1, "probe": 1},
        "available_blocks": {"train": {"text": blocks}},
        "imbalance": 1.0,
        "warnings": [],
    }
    (folder / "mixture.json").write_text(json.dumps(manifest))
    return folder


def two_steps(study: str, arm: str, **change: Any) -> RunSpec:
    """Return an arm of a study, cut to two steps of one process on the CPU, at its peak learning rate."""
    found = read_study(STUDIES / f"{study}.yaml")
    settings = found.run(arm, found.seeds[0]).model_dump(mode="json")
    training = {"num_steps": 2, "device": "cpu", "processes": 1, "checkpoint_every": 100}
    short = {
        "schedule": {"kind": "constant", "warmup": 0.0},
        "training": {**training, "blocks_per_step": 1, "grad_accumulation": 1},
        "telemetry": {"every": 100, "early_every": 100, "early_until": 0, "probe_blocks": 1, "validation_every": 100},
    }
    return RunSpec.model_validate(merge(merge(settings, short), change))


def train(run: RunSpec, vocabulary: int, length: int, folder: pathlib.Path, *start: str) -> list[float]:
    """Train the run by the command line, and return two losses, of which the second must be lower."""
    blocks = run.training.blocks_per_step
    mixture = write_mixture(folder / "mixture", length, vocabulary, blocks)
    (folder / "plan.json").write_text(canonical_json(run))
    command = [sys.executable, "-m", "speciate", "train", "--spec", str(folder / "plan.json")]
    command += ["--mixture-folder", str(mixture), "--output-folder", str(folder / "run")]
    command += ["--checkpoint-folder", str(folder / "checkpoints"), *start]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    took = re.search(r"took .* CPU s and at most ([\d,]+) MiB", done.stdout + done.stderr)
    assert took is not None
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    if run.objective.kind == "masked_diffusion":
        # a step's loss is that of one draw of masks; the validation text always has the same masks
        losses = [line["validation"]["text"] for line in lines if "validation" in line]
    else:
        losses = [line["loss"] for line in lines if "loss" in line]
    facts = json.loads((folder / "run" / "run.json").read_text())
    print(f"\n{run.ablation}: {facts['parameters_total']:,} parameters; losses {losses}; {took[0]}")
    assert int(took[1].replace(",", "")) < LIMIT_MIB
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]
    return losses


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Write a folder of GPT-2 small's real shape with random weights, as transformers saves it."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    return folder


def from_folder(run: RunSpec, folder: pathlib.Path) -> RunSpec:
    """Return the run with its start's origin in a folder, in place of the hub."""
    start = {**run.start.model_dump(mode="json"), "origin": {"kind": "folder", "path": str(folder)}}
    return RunSpec.model_validate({**run.model_dump(mode="json"), "start": start})


@pytest.mark.slow
def test_moe_emergence_starts_from_gpt2s_shape_with_four_layers_of_copies(gpt2: pathlib.Path) -> None:
    run = from_folder(two_steps("moe_emergence", "moe_main"), gpt2)
    model = initial_model(run, GPT2_TOKENS, gpt2)
    source = read_pretrained(gpt2)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == 256_692_480
    experts = {name: module for name, module in model.named_modules() if isinstance(module, Experts)}
    assert [name.split(".")[1] for name in experts] == ["8", "9", "10", "11"]
    for name, module in experts.items():
        dense = source.weights[name.replace(".ffn.experts", ".ffn.up.weight")]
        for expert in range(8):
            away = module.in_weight[expert].detach() - dense.t()
            # noise of a thousandth of the tensor's spread, and no two copies alike
            assert float(away.std() / dense.std()) == pytest.approx(0.001, rel=0.01)
        assert not torch.equal(module.in_weight[0], module.in_weight[1])
    for layer in range(8):
        assert torch.equal(
            model.get_parameter(f"blocks.{layer}.ffn.up.weight"), source.weights[f"blocks.{layer}.ffn.up.weight"]
        )


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["moe_main"])
def test_moe_emergence_learns_at_its_real_shape(arm: str, gpt2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """All 257 million parameters, its 512 tokens, two blocks a step in two micro-batches, of its eight in four."""
    change = {"training": {"blocks_per_step": 2, "grad_accumulation": 2}}
    run = from_folder(two_steps("moe_emergence", arm, **change), gpt2)
    train(run, GPT2_TOKENS, 512, tmp_path, "--start", str(gpt2))


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["gsa", "published"])
def test_gsa_learns_at_full_width(arm: str, tmp_path: pathlib.Path) -> None:
    """Two of 14 layers of 896, 8 heads, 512 keys of 2,048; 32,768 of Qwen's 151,665 tokens."""
    run = two_steps("gsa_slimpajama", arm, model={"num_layers": 2})
    train(run, 32_768, 2048, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["mdlm", "atat"])
def test_atat_learns_at_its_real_shape(arm: str, tmp_path: pathlib.Path) -> None:
    """All 12 layers of 768, 1,024 tokens of GPT-2's vocabulary and [MASK], one block a step of its 512."""
    train(two_steps("atat_openwebtext", arm, objective={"eval_draws": 4}), GPT2_TOKENS, 1024, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "layers"),
    [
        ("published", {29: 0, 31: 1}),  # a Mamba layer with a dense one, attention with 16 experts
        ("repaired", {29: 0, 31: 1}),
        ("repaired", {9: 0}),  # Routing Mamba of 16 experts with a dense layer
    ],
)
def test_moe_arch_learns_at_full_width(arm: str, layers: dict[int, int], tmp_path: pathlib.Path) -> None:
    """Some of the 32 layers of 2,048, on 256 of its 2,048 tokens, with 8,192 entries and one head.

    AdamW stands in for Muon, which takes minutes for 16 experts of this width on one core.
    """
    settings = read_study(STUDIES / "moe_arch.yaml").run(arm, 0).model_dump(mode="json")
    chosen = [
        {**exception, "layers": [there for layer, there in layers.items() if layer in exception["layers"]]}
        for exception in settings["model"]["exceptions"]
        if set(layers) & set(exception["layers"])
    ]
    model = {"num_layers": len(layers), "exceptions": chosen}
    optimizer = {"kind": "adamw", "lr": 0.001}
    run = two_steps("moe_arch", arm, model=model, objective={"kind": "causal"}, optimizer=optimizer)
    train(run, 8_192, 256, tmp_path)
