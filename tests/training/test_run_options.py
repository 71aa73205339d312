"""Test a run's options in whole runs: they resume bit-identically, and leave the expected files."""

import json
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from speciate.cli import execute
from speciate.config.run import RunSpec, canonical_json
from speciate.io import sha256
from speciate.stages import train as verb

MakeRun = Callable[..., RunSpec]
BIAS = {"block": {"ffn": {"balance": {"kind": "bias", "rate": 0.01}}}}
RUNS: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": {"kind": "muon", "lr": 0.01, "lr_scales": {"*.router.*": 10.0}}},
    "muon_float32": {"optimizer": {"kind": "muon", "iteration": "float32"}, "schedule": "wsd"},
    "ema": {"model": BIAS, "training": {"ema": 0.9, "ema_warmup": True}, "schedule": "constant"},
    "bfloat16": {"training": {"precision": "bfloat16", "grad_accumulation": 2}},
    "recomputed": {"model": BIAS, "training": {"activation_checkpointing": True, "deterministic": True}},
}


class StopAfter:
    """Ask to stop after a number of steps; a run asks twice a step."""

    def __init__(self, step: int) -> None:
        self.left = step - 1
        self.received = signal.SIGTERM

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def trained(spec: RunSpec, mixture: pathlib.Path, folder: pathlib.Path, steps: int = 10**9) -> bool:
    return verb.train(spec, mixture, folder, folder.parent / f"{folder.name}-checkpoints", stop=StopAfter(steps))


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != "timing.json"}


@pytest.mark.parametrize("name", RUNS)
def test_stopped_and_continued_it_has_the_same_bits(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, name: str
) -> None:
    spec = run_spec(**RUNS[name])
    assert trained(spec, mixture, tmp_path / "whole")
    assert not trained(spec, mixture, tmp_path / "parts", 1)
    assert not trained(spec, mixture, tmp_path / "parts", 6)
    assert trained(spec, mixture, tmp_path / "parts")
    assert digests(tmp_path / "whole") == digests(tmp_path / "parts")
    assert ("ema.safetensors" in digests(tmp_path / "whole")) == (name == "ema")


def test_the_split_is_said_and_written(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = run_spec(**RUNS["muon"])
    assert trained(spec, mixture, tmp_path / "run")
    assert "small seed 0: muon updates 2,048 parameters in 4 tensors" in capsys.readouterr().err
    run_json = json.loads((tmp_path / "run/run.json").read_text())
    rules = {name: row["rule"] for row in run_json["optimizer"] for name in row["names"]}
    assert rules["blocks.0.mixer.out.weight"] == "muon"
    assert rules["blocks.1.ffn.experts.in_weight"] == "muon_batched"
    assert rules["token_embedding.weight"] == rules["blocks.0.ffn.router.scorer.weight"] == "adamw"
    (routers,) = (row for row in run_json["optimizer"] if "blocks.0.ffn.router.scorer.weight" in row["names"])
    assert routers["peak_rate"] == pytest.approx(0.1)
    assert sum(row["parameters"] for row in run_json["optimizer"]) == run_json["parameters_total"]


def test_keeping_an_average_changes_no_bit_of_the_weights(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    assert trained(run_spec(training={"ema": 0.9}), mixture, tmp_path / "averaged")
    assert trained(run_spec(), mixture, tmp_path / "plain")
    one, other = digests(tmp_path / "averaged"), digests(tmp_path / "plain")
    assert one["model.safetensors"] == other["model.safetensors"]
    assert one["metrics.jsonl"] == other["metrics.jsonl"]


def test_the_average_has_the_models_tensors_and_its_buffers(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    spec = run_spec(**RUNS["ema"])
    assert trained(spec, mixture, tmp_path / "run")
    model = safetensors.torch.load_file(tmp_path / "run/model.safetensors")
    average = safetensors.torch.load_file(tmp_path / "run/ema.safetensors")
    assert model.keys() == average.keys()
    for name in model:
        assert torch.equal(model[name], average[name]) == ("balance" in name), name
    # a run without the option leaves none behind
    assert verb.train(run_spec(), mixture, tmp_path / "run", tmp_path / "other-checkpoints", stop=StopAfter(10**9))
    assert not (tmp_path / "run/ema.safetensors").exists()


def test_the_average_is_the_model_when_asked(mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun) -> None:
    beside, instead = run_spec(training={"ema": 0.9}), run_spec(training={"ema": 0.9, "evaluate_ema": True})
    assert trained(beside, mixture, tmp_path / "run")
    first = digests(tmp_path / "run")
    assert trained(instead, mixture, tmp_path / "run")
    second = digests(tmp_path / "run")
    assert second["model.safetensors"] == first["ema.safetensors"]
    assert second["last.safetensors"] == first["model.safetensors"]
    assert "ema.safetensors" not in second
    np.save(tmp_path / "bytes.npy", np.ones(64, dtype=np.int32))

    def nats() -> float:
        (tmp_path / "spec.json").write_text(canonical_json(instead))
        paths = {
            "spec": tmp_path / "spec.json",
            "model": tmp_path / "run" / "model.safetensors",
            "mixture-folder": mixture,
            "token-bytes": tmp_path / "bytes.npy",
            "likelihood": tmp_path / "likelihood.parquet",
            "probe": tmp_path / "probe.safetensors",
        }
        arguments = [word for option, path in paths.items() for word in (f"--{option}", str(path))]
        execute(["evaluate", *arguments])
        return float(pd.read_parquet(tmp_path / "likelihood.parquet")["nats"].sum())

    averaged = nats()
    assert trained(beside, mixture, tmp_path / "run")
    assert digests(tmp_path / "run") == first
    assert averaged != nats()
    (tmp_path / "run/model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read as weights"):
        nats()
