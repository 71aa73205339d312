"""Train a run of every kind that a spec can name, and check that whoever reads its folder has the trained model.

The folder alone decides: each reader has drawn other random numbers before it builds the model. The trainer's last
validation loss, two evaluations, greedy text and the exported model must then agree, to the bit where the computation
is the same.
"""

import itertools
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from tests.every_kind import Settings, allowed_in, model_settings, settings_in
from tests.training.conftest import BASE, LENGTH, VOCABULARY
from transformers import AutoModelForCausalLM

import speciate.model.hf.auto_classes  # noqa: F401
from speciate.config.components import options_within
from speciate.config.run import RunSpec, canonical_json
from speciate.data.blocks import read_block_set
from speciate.evaluation.likelihood import nll_by_document
from speciate.evaluation.sampling import Sampling, generate
from speciate.model.transformer import Transformer
from speciate.stages import train as verb
from speciate.tools.export import to_transformers
from speciate.training.checkpoint.load_run import load_run
from speciate.training.observer import Observer
from speciate.training.prepare import initial_model

SHORT = {
    "training": {"num_steps": 3, "blocks_per_step": 4},
    "telemetry": {"every": 3, "validation_every": 3, "probe_blocks": 2},
}
MOE = {"kind": "moe", "num_experts": 4, "hidden": 16, "router": "uniform_random", "balance": "none"}
MODEL_CHANGES: dict[str, Settings] = {
    "learned positions": {"position": "learned"},
    "rms": {"norm": "rms"},
    "no biases": {"biases": False},
    "untied": {"tied_head": False},
    "separate documents": {"separate_documents": True, "ffn": {**MOE, "router": "learned"}},
    "both controls": {"depth": {"kind": "mod", "choice": "random", "capacity": 0.5}, "ffn": MOE},
}


def run_settings(model: Settings, **changes: Any) -> Settings:
    return {**BASE, **SHORT, "seed": 3, "model": model, **changes}


def all_runs() -> dict[str, Settings]:
    """Return the runs, each with one kind that is not plain."""
    runs = {
        f"{slot} {name}": run_settings(model_settings(**{slot: settings}))
        for slot in ("mixer", "ffn", "depth")
        for name, settings in allowed_in(slot).items()
    }
    runs |= {f"model {name}": run_settings(model_settings(**change)) for name, change in MODEL_CHANGES.items()}
    masked = model_settings(causal=False)
    for name, objective in settings_in("training/objective").items():
        model = model_settings() if objective["kind"] != "masked_diffusion" else masked
        runs[f"objective {name}"] = run_settings(model, objective=objective)
    for slot in ("optimizer", "schedule"):
        for name, settings in settings_in(f"training/{slot}").items():
            runs[f"{slot} {name}"] = run_settings(model_settings(), **{slot: settings})
    for name, change in {"ema": {"ema": 0.9}, "recomputed": {"activation_checkpointing": True}}.items():
        settings = run_settings(model_settings(ffn=MOE))
        runs[f"training {name}"] = {**settings, "training": {**settings["training"], **change}}
    return runs


def parsed(settings: Settings) -> RunSpec | None:
    try:
        return RunSpec.model_validate(settings)
    except ValueError:
        return None


RUNS = {name: run for name, settings in all_runs().items() if (run := parsed(settings)) is not None}


def test_every_kind_is_among_them() -> None:
    folders = ["model/mixer", "model/ffn", "model/depth", "training/objective", "training/optimizer"]
    folders += ["model/moe/router", "model/moe/choice", "model/moe/balance", "training/schedule"]
    folders += ["model/sparse_attention/indexer", "model/sparse_attention/budget", "training/diffusion/noise"]
    folders += ["training/diffusion/importance"]
    used = {options.module_name() for run in RUNS.values() for options in options_within(run)}
    wanted = {f"speciate.{folder.replace('/', '.')}.{name.split('(')[0].split('[')[0]}" for folder in folders
              for name in settings_in(folder)}  # fmt: skip
    # an oracle starts from another run; the study of diffusion has one (test_study_arms.py)
    assert wanted - used == {"speciate.training.diffusion.importance.oracle"}


class Never:
    """Never ask to stop."""

    received = None

    def __bool__(self) -> bool:
        return False


def load(folder: pathlib.Path, seed: int) -> Transformer:
    """Load the run as a process does that has drawn random numbers of its own."""
    torch.manual_seed(seed)
    return load_run(folder, VOCABULARY)[1]


@pytest.mark.parametrize("name", RUNS)
def test_whoever_reads_a_run_has_the_trained_model(mixture: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    run, folder = RUNS[name], tmp_path / "run"
    folder.mkdir()
    (folder / "spec.json").write_text(canonical_json(run))
    assert verb.train(run, mixture, folder, folder / "checkpoints", stop=Never())  # type: ignore[arg-type]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    validation = [row["validation"] for row in rows if "validation" in row][-1]
    readers = [load(folder, seed) for seed in (1, 2)]
    objective = run.objective.component().Objective(run.objective)
    observer = Observer(run.telemetry, objective, *(read_block_set(mixture, part) for part in ("probe", "validation")))
    test, one_V = read_block_set(mixture, "test"), np.ones(VOCABULARY, dtype=np.int32)
    token_T = torch.arange(1, 6)  # transformers would take id 0, which pads, for padding
    whole = any(options.needs_whole_block() for options in options_within(run))
    needs_domains = any(options.kind == "oracle" for options in options_within(run.model.block))
    texts, losses = [], []
    for model in readers:
        assert observer.validate(model, objective) == validation
        losses.append(nll_by_document(model, objective, test, one_V)["nats"].tolist())
        if run.model.causal and not whole and not needs_domains:
            draw = torch.Generator().manual_seed(0)
            texts.append(list(generate(model, token_T, Sampling(temperature=0), LENGTH - 5, generator=draw)))
    assert losses[0] == losses[1]
    assert len(set(map(tuple, texts))) <= 1
    if texts and not any(options.looks_ahead() for options in options_within(run.model)):
        check_export(run, readers[0], tmp_path / "exported", [*token_T.tolist(), *texts[0]])


@torch.no_grad()
def check_export(run: RunSpec, model: Transformer, folder: pathlib.Path, text: list[int]) -> None:
    """Compare the exported model's logits, and its greedy text, with the run's."""
    model.parts.clear()
    ids = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    to_transformers(run, model, {"vocab_size": VOCABULARY, **ids}).save_pretrained(folder)
    torch.manual_seed(4)
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    token_BT = torch.randint(VOCABULARY, (2, LENGTH))
    torch.testing.assert_close(loaded(token_BT).logits, model(token_BT), rtol=1e-4, atol=1e-4)
    made = loaded.generate(torch.tensor([text[:5]]), do_sample=False, max_new_tokens=LENGTH - 5)
    assert made[0].tolist() == text[: len(made[0])]


def test_they_differ_between_seeds(mixture: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = RUNS["model both controls"]
    built = [initial_model(run.model_copy(update={"seed": seed}), VOCABULARY) for seed in (0, 1)]
    keys = [(model.blocks[0].depth.router.dealt_T.tolist(), int(model.blocks[0].ffn.router.scorer.key))
            for model in built]  # fmt: skip
    assert all(first != second for first, second in itertools.pairwise(keys))
