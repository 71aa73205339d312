"""Test the memory that a mixer keeps against a count by hand, and the table of mixer costs."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch

from speciate.cli import execute
from speciate.model.profiling.mixer_cost import build_mixer, count_kept_bytes, measure_mixer_costs
from speciate.model.token_batch import TokenBatch


def test_counts_what_is_kept_once(model_spec: Callable[..., Any]) -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 4))

        def forward(self, x_BTD: torch.Tensor, tokens: TokenBatch) -> torch.Tensor:
            # autograd keeps x (given), the weight, and the exponential (once, though two operations use it)
            y_BTD = (x_BTD @ self.weight).exp()
            return y_BTD * y_BTD

    tokens = TokenBatch.of(torch.zeros((1, 7), dtype=torch.long))
    assert count_kept_bytes(Twice(), torch.randn(1, 7, 4).requires_grad_(), tokens) == 7 * 4 * 4
    dense = build_mixer(model_spec(mixer={"num_heads": 4}), 64)
    kept = [
        count_kept_bytes(dense, torch.randn(1, n, 24).requires_grad_(), TokenBatch.of(torch.zeros((1, n))))
        for n in (16, 32, 64)
    ]
    assert kept[2] - kept[1] == pytest.approx(2 * (kept[1] - kept[0]), rel=0.05)


def test_past_the_context_of_the_run(model_spec: Callable[..., Any]) -> None:
    mixer = {"kind": "gsa", "indexer": {"kind": "kl", "width": 4}, "budget": {"kind": "fixed", "k": 4}}
    models = {"dense": model_spec(), "sparse": model_spec(mixer=mixer, position="rotary")}
    rows = measure_mixer_costs(models, [8, 32], rounds=1)
    assert [(row.name, row.length) for row in rows] == [("dense", 8), ("sparse", 8), ("dense", 32), ("sparse", 32)]
    assert all(row.kept_bytes > 0 and row.train_ms > 0 and row.decode_ms > 0 for row in rows)
    with pytest.raises(ValueError, match="a block needs at least two tokens, not 1"):
        measure_mixer_costs(models, [1])


def test_the_verb_writes_a_row_a_run_and_length(tmp_path: pathlib.Path, model_spec: Callable[..., Any]) -> None:
    spec = {
        "ablation": "plain",
        "seed": 0,
        "model": model_spec().model_dump(mode="json"),
        "objective": "causal",
        "optimizer": "adamw",
        "schedule": "constant",
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    for name in ("cost.csv", "cost.parquet"):
        arguments = ["--spec", str(tmp_path / "spec.json"), "--lengths", "8", "16", "--rounds", "1"]
        execute(["cost", *arguments, "--output", str(tmp_path / name)])
        table = (pd.read_csv if name.endswith("csv") else pd.read_parquet)(tmp_path / name)
        assert list(table.columns) == ["ablation", "mixer", "length", "kept_bytes", "train_ms", "decode_ms"]
        assert table[["ablation", "mixer", "length"]].values.tolist() == [
            ["plain", "attention", 8],
            ["plain", "attention", 16],
        ]
    with pytest.raises(ValueError, match=r"cost\.txt: is neither \.csv nor \.parquet"):
        execute(["cost", *arguments, "--output", "cost.txt"])
