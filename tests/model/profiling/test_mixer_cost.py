"""Test the memory that a mixer keeps against a count by hand, and the table of mixer costs."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch

from speciate.cli import execute
from speciate.model.profiling import mixer_cost
from speciate.model.profiling.mixer_cost import build_mixer, count_kept_bytes, measure_mixer_costs
from speciate.model.token_batch import TokenBatch

ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "160000000000 bytes. Error code 12 (Cannot allocate memory)"
)


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


SPARSE = {"kind": "gsa", "indexer": {"kind": "kl", "width": 4}, "budget": {"kind": "fixed", "k": 4}}


def test_every_distinct_mixer_of_a_model_is_measured_under_its_own_name(model_spec: Callable[..., Any]) -> None:
    dense, sparse = model_spec(position="rotary"), model_spec(mixer=SPARSE, position="rotary")
    exception = {"layers": [1], "block": sparse.block.model_dump(mode="json")}
    mixed = type(dense).model_validate({**dense.model_dump(mode="json"), "num_layers": 3, "exceptions": [exception]})
    rows = measure_mixer_costs({"mixed": mixed, "dense": dense, "sparse": sparse}, [16], rounds=1)
    kept = {(row.name, row.mixer, row.layer): row.kept_bytes for row in rows}
    assert list(kept) == [
        *(("mixed", "attention", 0), ("mixed", "gsa", 1)),
        *(("dense", "attention", 0), ("sparse", "gsa", 0)),
    ]
    assert kept["mixed", "gsa", 1] == kept["sparse", "gsa", 0] != kept["dense", "attention", 0]
    assert kept["mixed", "attention", 0] == kept["dense", "attention", 0]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(ALLOCATOR)], ids=["python", "torch"])
def test_a_length_that_does_not_fit_into_memory_is_named(
    model_spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def allocate(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(mixer_cost, "_medians", allocate)
    asked = "" if isinstance(error, MemoryError) else ": a tensor of 160000000000 bytes does not fit"
    message = f"^lengths: there is not enough memory for a block of 16 tokens{asked}$"
    with pytest.raises(ValueError, match=message):
        measure_mixer_costs({"dense": model_spec()}, [16], rounds=1)


def test_another_error_stays_what_it_is(model_spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(mixer_cost, "_medians", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        measure_mixer_costs({"dense": model_spec()}, [16], rounds=1)


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
        assert list(table.columns) == ["ablation", "mixer", "layer", "length", "kept_bytes", "train_ms", "decode_ms"]
        assert table[["ablation", "mixer", "length"]].values.tolist() == [
            ["plain", "attention", 8],
            ["plain", "attention", 16],
        ]
    with pytest.raises(ValueError, match=r"cost\.txt: is neither \.csv nor \.parquet"):
        execute(["cost", *arguments, "--output", "cost.txt"])
