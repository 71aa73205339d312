"""Test runs with a Mixture-of-Depths, up to the whole hybrid: they train, resume bit-identically and report."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from speciate.config.run import RunSpec
from speciate.io import sha256
from speciate.stages import train as verb

MakeRun = Callable[..., RunSpec]
ROM = {"kind": "rom", "num_experts": 2, "state": 3, "step_rank": 2, "router": "learned", "balance": "none"}
HALF = {"kind": "mod", "capacity": 0.5}
DENSE = {"kind": "dense", "hidden": 16}
HYBRID: dict[str, Any] = {
    "model": {
        "position": "rotary",
        "block": {"mixer": {"num_heads": 4, "num_kv_heads": 2}, "depth": HALF},
        "exceptions": [{"layers": [1], "block": {"mixer": ROM, "ffn": DENSE, "depth": HALF}}],
    },
    "objective": {"kind": "multi_token", "heads": 2},
    "optimizer": {"kind": "muon", "iteration": "float32"},
}
ARMS: dict[str, dict[str, Any]] = {
    "eighth": {"model": {"block": {"depth": {"kind": "mod", "capacity": 0.125}}}},
    "random": {"model": {"block": {"depth": {"kind": "mod", "capacity": 0.75, "choice": "random"}}}},
    "published": {"model": {"block": {"depth": "mod_published"}}, "optimizer": "muon_published"},
    "hybrid": HYBRID,
}


class StopAt:
    """Ask to stop after a number of steps."""

    received = 15

    def __init__(self, step: int) -> None:
        self.left = step

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def trained(spec: RunSpec, mixture: pathlib.Path, folder: pathlib.Path, stop: int = 10**9) -> bool:
    return verb.train(spec, mixture, folder, folder.parent / f"{folder.name}-checkpoints", stop=StopAt(stop))


def digests(folder: pathlib.Path) -> list[str]:
    return [sha256(folder / name) for name in ("model.safetensors", "metrics.jsonl", "telemetry.safetensors")]


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_trains_continues_and_is_observed(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, arm: str
) -> None:
    spec = run_spec(**ARMS[arm])
    assert trained(spec, mixture, tmp_path / "whole")
    assert not trained(spec, mixture, tmp_path / "parts", stop=6)
    assert trained(spec, mixture, tmp_path / "parts")
    assert digests(tmp_path / "whole") == digests(tmp_path / "parts")
    seen = safetensors.numpy.load_file(tmp_path / "whole" / "telemetry.safetensors")
    for layer in (0, 1):
        # every observation found the selector and each of its decisions
        decisions = seen[f"blocks.{layer}.depth.router/decisions_G"]
        assert decisions.shape[0] == len(seen["steps"])
        np.testing.assert_array_equal(decisions.sum(1), 2 * 2 * 16)
    inner = seen["blocks.0.ffn.router/decisions_G"].sum(1)
    assert inner.shape == seen["steps"].shape
    assert inner[-1] > 0, "what is inside decides too"
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    measured = {name for line in lines for path, name, *_ in line.get("measured", []) if "depth.router" in path}
    assert measured >= {"capacity", "agreement", "train_eval_difference"}
    reports = [line["optimizer"] for line in lines if "optimizer" in line]
    assert bool(reports) == ("muon" in spec.optimizer.kind)
    assert all(set(report) == {"singular_min", "singular_median", "singular_max"} for report in reports)


def test_recomputed_blocks_choose_the_same_tokens(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    for name, again in (("kept", False), ("recomputed", True)):
        assert trained(run_spec(**HYBRID, training={"activation_checkpointing": again}), mixture, tmp_path / name)
    assert digests(tmp_path / "kept") == digests(tmp_path / "recomputed")
