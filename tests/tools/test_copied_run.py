"""Test that a copy of a finished run's folder, without the rest of its study, can be used by every tool."""

import hashlib
import json
import pathlib
import shutil

import pandas as pd
import pytest
from tests.bad_input import small

from speciate.cli import execute
from speciate.config.run import RunSpec, canonical_json
from speciate.data.tokens.manifest import FILES

SPEC = {
    "ablation": "arm",
    "seed": 0,
    "model": {
        "width": 16,
        "num_layers": 1,
        "context": 32,
        "block": {
            "mixer": {"kind": "attention", "num_heads": 2},
            "ffn": {"kind": "moe", "num_experts": 2, "hidden": 16, "router": "learned", "balance": "none"},
            "depth": "every",
        },
    },
    "objective": "causal",
    "optimizer": "adamw",
    "schedule": "cosine",
    "training": {"num_steps": 2, "blocks_per_step": 2},
    "telemetry": {"every": 2, "early_every": 2, "early_until": 2, "probe_blocks": 2, "validation_every": 2},
}
GENERATE = ("--prompt", "w1", "--temperature", "0", "--max-tokens", "5")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Run the data stages of a small study, and train one run as a person does; return the study's folder."""
    folder = tmp_path_factory.mktemp("study")
    small.make(folder)
    spec = folder / "results/small/runs/arm/seed0/spec.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(canonical_json(RunSpec.model_validate(SPEC)))
    execute(["train", "--spec", str(spec)])
    return folder


@pytest.fixture
def copied(study: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(study / "results/small/runs/arm/seed0", tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def mixture(study: pathlib.Path) -> pathlib.Path:
    (file,) = study.glob("results/data/balance/*/mixture.json")
    return file.parent


def test_a_runs_folder_holds_its_tokenizer_and_names_its_data(study: pathlib.Path, copied: pathlib.Path) -> None:
    (tokenizer,) = study.glob("results/data/fit/*")
    for name in FILES:
        assert (copied / "tokenizer" / name).read_bytes() == (tokenizer / name).read_bytes()
    metadata = json.loads((copied / "run.json").read_text())
    for name, digest in metadata["data"].items():
        assert digest == hashlib.sha256((mixture(study) / name).read_bytes()).hexdigest()
    assert metadata["vocabulary"]["tokenizer"] == hashlib.sha256((tokenizer / FILES[0]).read_bytes()).hexdigest()


def test_a_copy_gives_the_text_of_the_run_and_is_exported(
    study: pathlib.Path, copied: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for folder in (study / "results/small/runs/arm/seed0", copied):
        execute(["generate", "--run", str(folder), *GENERATE])
        texts.append(capsys.readouterr().out)
    execute(["export", "--run", str(copied), "--output", str(copied.parent / "exported")])
    execute(["generate", "--run", str(copied.parent / "exported"), *GENERATE])
    texts.append(capsys.readouterr().out.splitlines()[-1] + "\n")
    assert texts[0].startswith("w1")
    assert texts[0] == texts[1]
    assert texts[0].endswith(texts[2])


def test_a_copy_is_evaluated_on_a_mixture_that_is_named(study: pathlib.Path, copied: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"name the paths on the command line: --mixture-folder$"):
        execute(["evaluate", "--spec", str(copied / "spec.json")])
    execute(["evaluate", "--spec", str(copied / "spec.json"), "--mixture-folder", str(mixture(study))])
    in_place = study / "results/small/runs/arm/seed0"
    execute(["evaluate", "--spec", str(in_place / "spec.json")])
    for name in ("likelihood.parquet", "details.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(copied / name), pd.read_parquet(in_place / name))
    assert (copied / "probe.safetensors").read_bytes() == (in_place / "probe.safetensors").read_bytes()


def test_another_tokenizer_or_mixture_is_refused(study: pathlib.Path, copied: pathlib.Path) -> None:
    (file,) = study.glob("results/data/fit/*/tokenizer.json")
    other = copied.parent / "tokenizer"
    shutil.copytree(file.parent, other)
    text = json.dumps(json.loads(file.read_text()), indent=1)  # other bytes, as another tokenizer has
    (other / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match=r"^--tokenizer: .*tokenizer.json has changed since `fit` wrote it$"):
        execute(["generate", "--run", str(copied), "--tokenizer", str(other), *GENERATE])
    manifest = json.loads((other / "tokenizer_manifest.json").read_text())
    manifest["fingerprint"] = hashlib.sha256(text.encode()).hexdigest()
    (other / "tokenizer_manifest.json").write_text(json.dumps(manifest))
    for verb, more in (("generate", GENERATE), ("export", ("--output", str(copied.parent / "exported")))):
        with pytest.raises(ValueError, match=r"^--tokenizer: .* is not the run's tokenizer: its fingerprint"):
            execute([verb, "--run", str(copied), "--tokenizer", str(other), *more])
    spec = ["--spec", str(copied / "spec.json"), "--mixture-folder", str(mixture(study)), "--output-folder"]
    named = [*spec, str(copied.parent / "run"), "--checkpoint-folder", str(copied.parent / "checkpoints")]
    with pytest.raises(ValueError, match=r"^--tokenizer-folder: .* is not the tokenizer that encoded "):
        execute(["train", *named, "--tokenizer-folder", str(other)])
    run = json.loads((copied / "run.json").read_text())
    run["vocabulary"]["tokenizer"] = "0" * 64
    (copied / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match=r"^--mixture-folder: .* was encoded by tokenizer .*trained with 0000000000$"):
        execute(
            [
                *("evaluate", "--spec", str(copied / "spec.json"), "--mixture-folder", str(mixture(study))),
                *("--token-bytes", str(file.with_name("token_bytes.npy"))),
            ]
        )


def test_a_folder_without_a_tokenizer_says_which_option_names_one(copied: pathlib.Path) -> None:
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(ValueError, match=r"so name the paths on the command line: --tokenizer$"):
        execute(["generate", "--run", str(copied), *GENERATE])
    with pytest.raises(ValueError, match=r"so name the paths on the command line: --tokenizer$"):
        execute(["export", "--run", str(copied), "--output", str(copied.parent / "exported")])
