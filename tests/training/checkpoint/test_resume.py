"""Test that every kind, stopped and resumed, ends bit-identically to a run that never stopped.

The kinds are discovered, so new ones are tested too. Each kind that a run's spec can name, at any depth, is trained in
a tiny run of two micro-batches per step. Its epochs end inside a step. The run is stopped after two steps drawn for its
kind. Steps at which an epoch or a stage ends are listed by name.
"""

import pathlib
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import pydantic
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tests.training.conftest import BASE

from speciate.config.components import OneOf, config_errors, kinds_in, options_of
from speciate.config.extends import merge
from speciate.config.run import RunSpec, canonical_json
from speciate.io import sha256
from speciate.stages import train as verb

HERE = pathlib.Path(__file__)
SMALL = {
    **merge(BASE, {"model": {"block": {"ffn": {"kind": "dense", "hidden": 16}}}}),
    # 48 blocks are an epoch: it ends inside step 4, counted from 0
    "training": {"num_steps": 6, "blocks_per_step": 10, "grad_accumulation": 2, "checkpoint_every": 100, "ema": 0.9},
    "telemetry": {"every": 2, "early_every": 2, "early_until": 2, "probe_blocks": 2, "validation_every": 3},
}
MOE = {"kind": "moe", "num_experts": 4, "hidden": 8}
EXPERTS = {**MOE, "router": {"kind": "learned", "noise_std": 0.1, "noise_until": 0.5}, "balance": "auxiliary"}
FROM_PARENT = ("dense", "oracle_model", "upcycle")
UNBALANCED = {"model": {"block": {"ffn": {"balance": "none"}}}}
OPTIONS: dict[str, dict[str, Any]] = {
    "model/mixer/attention": {"num_heads": 2},
    "model/mixer/gsa": {
        "num_heads": 2,
        "indexer": {"kind": "kl", "heads": 2, "width": 8},
        "budget": {"kind": "fixed", "k": 4},
    },
    "model/mixer/mamba": {"state": 4},
    "model/mixer/rom": {"state": 4, "num_experts": 2, "router": "learned", "balance": "none"},
    "model/sparse_attention/indexer/as_published": {"heads": 2, "width": 8},
    "model/sparse_attention/indexer/kl": {"heads": 2, "width": 8, "warmup": 0.5},
    "model/sparse_attention/indexer/soft": {"heads": 2, "width": 8},
    "model/sparse_attention/budget/fixed": {"k": 4},
    "model/sparse_attention/budget/published": {"k": 4, "k_min": 2, "k_max": 8, "non_causal": True},
    "model/sparse_attention/budget/running": {"k": 4, "k_min": 2, "k_max": 8},
    "model/ffn/dense": {"hidden": 16},
    "model/ffn/moe": EXPERTS,
    "model/moe/router/learned": {"noise_std": 0.1, "noise_until": 0.5},
    "model/moe/router/oracle": {"domains": 2},
    "model/moe/balance/bias": {"rate": 0.01},
    "model/moe/choice/expert": {"non_causal": True},
    "model/depth/mod": {"capacity": 0.5, "hidden": 8},
    "model/depth/mod_published": {"hidden": 8},
    "training/objective/multi_token": {"heads": 2},
    "training/objective/masked_diffusion": {"importance": "learned", "curriculum": "default", "eval_draws": 4},
    "training/diffusion/importance/learned": {"width": 8},
    "training/diffusion/importance/learned_frequency": {"width": 8},
    **{f"training/init/start/{kind}": {"origin": {"kind": "run", "ablation": "parent"}} for kind in FROM_PARENT},
    "training/diffusion/noise/points": {"points": [[0.0, 0.0], [0.5, 0.7], [1.0, 1.0]]},
}
"""Options that a kind requires, or that keep it small; a kind that is missing here is built with its defaults."""
BESIDES: dict[str, dict[str, Any]] = {
    "model/moe/router/frozen": UNBALANCED,
    "model/moe/router/hash": UNBALANCED,
    "model/moe/router/oracle": UNBALANCED,
    "model/moe/router/uniform_random": UNBALANCED,
    "model/moe/choice/expert": UNBALANCED,
    "training/objective/masked_diffusion": {"model": {"causal": False}},
    "training/diffusion/importance/none": {"objective": {"curriculum": "none"}},
    "training/diffusion/importance/oracle": {
        "start": {"kind": "oracle_model", **OPTIONS["training/init/start/oracle_model"]}
    },
    "training/init/start/oracle_model": {
        "model": {"causal": False},
        "objective": {"kind": "masked_diffusion", "importance": "oracle", "eval_draws": 4},
    },
    "training/init/start/upcycle": {"model": {"block": {"ffn": EXPERTS | {"hidden": 16}}}},
}
"""What the rest of the run must be for that kind."""
HOSTS = {"model/moe/router": "model/ffn/moe", "model/moe/balance": "model/ffn/moe", "model/ffn": "run"}
"""The kind that hosts the part here, if several can; in other folders, the first kind that is found."""
ELSEWHERE = {"training/init/origin": "where its first weights are is known at a run's first step alone"}
"""Folders whose kinds are not run here, and why."""


def folder_of(field: FieldInfo) -> str | None:
    """Return the folder in which a spec's key names a file."""
    inside = [each for part in get_args(field.annotation) for each in getattr(part, "__metadata__", ())]
    return next((each.folder for each in (*field.metadata, *inside) if isinstance(each, OneOf)), None)


def walk(
    cls: type[BaseModel],
    place: Callable[[dict[str, Any]], dict[str, Any]],
    besides: dict[str, Any],
    seen: set[str],
    host: str = "run",
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each kind that the keys of `cls` can name, once, with the run that uses it."""
    deeper = []
    for name, field in cls.model_fields.items():
        folder = folder_of(field)
        if folder is None:
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                deeper.append((field.annotation, lambda inner, name=name: place({name: inner}), besides, host))
            continue
        if folder in ELSEWHERE or HOSTS.get(folder, host) != host:
            continue
        for kind in kinds_in(folder):
            path = f"{folder}/{kind}"
            if path in seen:
                continue
            seen.add(path)
            change = merge(besides, BESIDES.get(path, {}))
            options = {"kind": kind, **OPTIONS.get(path, {})}
            yield path, merge(place({name: options}), change)
            deeper.append(
                (
                    options_of(folder, kind),
                    lambda inner, name=name, options=options: place({name: merge(options, inner)}),
                    change,
                    path,
                )
            )
    for inner_cls, inside, change, within in deeper:
        yield from walk(inner_cls, inside, change, seen, within)


CASES = dict(walk(RunSpec, lambda inner: inner, {}, set()))
MORE: dict[str, dict[str, Any]] = {
    "two selectors": {"model": {"block": {"ffn": EXPERTS, "depth": {"kind": "mod", **OPTIONS["model/depth/mod"]}}}},
    "documents": {"model": {"separate_documents": True, "block": {"ffn": EXPERTS}}},
    "recomputed": {"model": {"block": {"ffn": EXPERTS}}, "training": {"activation_checkpointing": True}},
    # two steps are an epoch of 48 blocks: it ends with a step
    "border of epochs": {"training": {"blocks_per_step": 24, "num_steps": 5}},
    # the stages change before steps 3 and 7, counted from 0
    "borders of a curriculum": {
        "model": {"causal": False},
        "objective": {"kind": "masked_diffusion", "importance": "learned", "curriculum": "default", "eval_draws": 4},
        "training": {"num_steps": 10},
    },
    # the first epoch ends between the two micro-batches of step 1, counted from 0, the second one with step 2
    "border of micro-batches": {"model": {"block": {"ffn": EXPERTS}}, "training": {"blocks_per_step": 32}},
    "bfloat16": {"model": {"block": {"ffn": EXPERTS}}, "training": {"precision": "bfloat16"}},
}
STOPS = {"border of epochs": (2, 4), "borders of a curriculum": (3, 7), "border of micro-batches": (1, 2)}
"""Steps to stop after, for the cases whose epoch or stage boundaries are known."""


def spec_of(case: str, change: Mapping[str, Any]) -> RunSpec:
    """Return the run; fail with advice if a kind cannot be built."""
    try:
        return RunSpec.model_validate(merge(SMALL, change))
    except (pydantic.ValidationError, ValueError) as error:
        why = config_errors(error) if isinstance(error, pydantic.ValidationError) else error
        pytest.fail(f"{case} cannot be built: {why}; say what it needs in OPTIONS or BESIDES of {HERE.name}")


class Stop:
    """Ask to stop after a number of further steps; a run asks once more after the save."""

    def __init__(self, steps: int | None) -> None:
        self.left, self.received = steps, signal.SIGTERM

    def __bool__(self) -> bool:
        if self.left is not None:
            self.left -= 1
        return self.left is not None and self.left <= 0


@pytest.fixture(scope="module")
def parent(mixture: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Write the weights of a run that others start from."""
    folder = tmp_path_factory.mktemp("parent") / "seed0"
    spec = RunSpec.model_validate(merge(SMALL, {"ablation": "parent", "training": {"num_steps": 1}}))
    assert verb.train(spec, mixture, folder, folder.with_name("checkpoints"), stop=Stop(None))
    (folder / "spec.json").write_text(canonical_json(spec))
    return folder / "model.safetensors"


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in folder.iterdir() if file.name != "timing.json"}


@pytest.mark.parametrize("case", [*CASES, *MORE])
def test_resumed_at_any_step_every_kind_has_the_same_bits(
    mixture: pathlib.Path, parent: pathlib.Path, tmp_path: pathlib.Path, case: str
) -> None:
    spec = spec_of(case, (CASES | MORE)[case])
    start = parent if hasattr(spec.start, "origin") else None

    def trained(name: str, steps: int | None = None) -> bool:
        return verb.train(
            spec, mixture, tmp_path / name, tmp_path / f"{name}-checkpoints", stop=Stop(steps), start=start
        )

    assert trained("whole")
    done = 0
    for step in STOPS.get(case) or sorted(random.Random(case).sample(range(1, spec.training.num_steps), 2)):
        assert not trained("parts", step - done)
        done = step
        assert (tmp_path / "parts-checkpoints" / f"step{step}").is_dir()
    assert trained("parts")
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


def test_the_kinds_of_a_run_are_found() -> None:
    assert {"model/mixer/attention", "model/moe/router/learned", "training/objective/causal"} <= set(CASES)
    folders = {path.rsplit("/", 1)[0] for path in CASES}
    assert {path for folder in folders for path in (f"{folder}/{kind}" for kind in kinds_in(folder))} == set(CASES)
    assert set(OPTIONS) | set(BESIDES) <= set(CASES)
    # the run of each kind really uses that kind
    for case, change in CASES.items():
        assert f"'kind': '{case.rsplit('/', 1)[1]}'" in str(spec_of(case, change).model_dump())
