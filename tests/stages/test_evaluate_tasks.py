"""Test how a finished run is put to a task, and how the scores of all runs become the study's tables."""

import json
import pathlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.stages.test_intervene import Never
from tokenizers import Tokenizer, models

from speciate.analysis.tables import read_table
from speciate.analysis.tasks.scores import read_scores, write_scores
from speciate.cli import execute
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import CompareTasksSpec, EvaluateTaskSpec
from speciate.evaluation.task import copying
from speciate.stages import evaluate_tasks, train

LENGTHS = (8, 16)


@pytest.fixture(scope="module")
def finished(
    mixture: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, run_spec: Callable[..., RunSpec]
) -> pathlib.Path:
    """Train a run of a few steps, and give its folder the tokenizer that `fit` would write."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert train.train(run_spec(), mixture, folder, folder.parent / "checkpoints", stop=Never())
    (folder / "tokenizer").mkdir(exist_ok=True)
    vocabulary = {f"t{number}": number for number in range(64)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="t0")).save(str(folder / "tokenizer/tokenizer.json"))
    np.save(folder / "tokenizer/token_bytes.npy", np.ones(64, dtype=np.int32))
    return folder


def spec(run: RunSpec, **options: Any) -> EvaluateTaskSpec:
    settings = {"kind": "copying", "lengths": LENGTHS, "questions": 4, **options}
    return EvaluateTaskSpec(run=run, task="copying", options=copying.Options(**settings))


def execute_stage(
    tmp_path: pathlib.Path, asked: EvaluateTaskSpec, run: pathlib.Path, mixture: pathlib.Path
) -> tuple[pd.DataFrame, str]:
    """Run the stage as the workflow does; return the scores and the reason."""
    (tmp_path / "spec.json").write_text(canonical_json(asked))
    words = ["--spec", str(tmp_path / "spec.json"), "--run-folder", str(run), "--mixture-folder", str(mixture)]
    execute(["evaluate_tasks", *words, "--text", "--output", str(tmp_path / "scores.parquet")])
    return read_scores(tmp_path / "scores.parquet")


def test_a_run_has_a_score_of_every_question(
    finished: pathlib.Path, mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: Callable[..., RunSpec]
) -> None:
    rows, reason = execute_stage(tmp_path, spec(run_spec()), finished, mixture)
    assert reason == ""
    assert rows.groupby(["metric", "length"]).size().to_dict() == {
        (metric, length): 4 for metric in ("accuracy", "nats_gained") for length in LENGTHS
    }
    written = (tmp_path / "scores.parquet").read_bytes()
    execute_stage(tmp_path, spec(run_spec()), finished, mixture)
    assert (tmp_path / "scores.parquet").read_bytes() == written


def test_a_task_that_cannot_be_asked_leaves_its_reason_and_no_error(
    finished: pathlib.Path, mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: Callable[..., RunSpec]
) -> None:
    rows, reason = execute_stage(tmp_path, spec(run_spec(), lengths=(8, 32)), finished, mixture)
    assert rows.empty
    assert reason == "lengths: 32 tokens are more than the model's context, 16"


def test_a_failed_run_has_no_score(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: Callable[..., RunSpec]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps({"state": "failed"}))
    rows, reason = execute_stage(tmp_path, spec(run_spec()), tmp_path / "run", mixture)
    assert rows.empty and reason == "the run failed"


def test_a_table_that_breaks_the_contract_is_an_error_that_names_the_kind(
    finished: pathlib.Path,
    mixture: pathlib.Path,
    run_spec: Callable[..., RunSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = copying.evaluate
    monkeypatch.setattr(copying, "evaluate", lambda *given: whole(*given).drop(columns="chance"))
    with pytest.raises(ValueError, match=r"^speciate\.evaluation\.task\.copying: its table lacks column chance$"):
        evaluate_tasks.evaluate_task(spec(run_spec()), finished, mixture, {})
    monkeypatch.setattr(copying, "evaluate", lambda *given: whole(*given).iloc[:0])
    assert evaluate_tasks.evaluate_task(spec(run_spec()), finished, mixture, {})[1] == "the task has no question"


def test_the_texts_that_a_task_reads_must_be_named(tmp_path: pathlib.Path, run_spec: Callable[..., RunSpec]) -> None:
    (tmp_path / "spec.json").write_text(canonical_json(spec(run_spec())))
    arguments = SimpleNamespace(spec=tmp_path / "spec.json", text=["novels=folder"])
    with pytest.raises(ValueError, match="--text: needs NAME=FOLDER for no text"):
        evaluate_tasks.main(arguments)  # type: ignore[arg-type]


def test_the_scores_of_all_runs_become_two_tables(tmp_path: pathlib.Path) -> None:
    columns = {"metric": "accuracy", "part": "", "group": ["a", "b"], "item": ["a", "b"], "length": -1}
    columns |= {"depth": float("nan"), "weight": 1.0, "chance": 0.5}
    for arm, seed, value in (("dense", 0, (1, 0)), ("dense", 1, (1, 1)), ("moe", 0, (1, 1)), ("moe", 1, (1, 1))):
        file = tmp_path / arm / f"seed{seed}" / "quiz.parquet"
        file.parent.mkdir(parents=True)
        write_scores(pd.DataFrame({**columns, "value": value}), "", file)
        nothing = pd.DataFrame({name: [] for name in (*columns, "value")})
        write_scores(nothing, f"no file of {arm}", file.with_name("lost.parquet"))
    settings = {"tasks": ("quiz", "lost"), "arms": ("dense", "moe"), "seeds": (0, 1), "reference": "dense"}
    asked = CompareTasksSpec(**settings, resamples=99, confidence=0.95, draw_seed=0)
    (tmp_path / "spec.json").write_text(canonical_json(asked))
    words = ["--spec", str(tmp_path / "spec.json"), "--scores", str(tmp_path), "--output-folder", str(tmp_path / "out")]
    execute(["compare_tasks", *words])
    names = ("tasks", "task_differences")
    tasks, differences = (read_table(tmp_path / "out" / f"{name}.parquet", name) for name in names)
    assert tasks[["task", "ablation", "value", "num_seeds", "reason"]].to_numpy().tolist()[:2] == [
        ["quiz", "dense", 0.75, 2, ""],
        ["quiz", "moe", 1.0, 2, ""],
    ]
    assert tasks["reason"].tolist()[2:] == ["no file of dense", "no file of moe"]
    assert differences[["task", "ablation", "difference"]].to_numpy().tolist() == [["quiz", "moe", 0.25]]
    first = (tmp_path / "out" / "tasks.csv").read_bytes()
    execute(["compare_tasks", *words])
    assert (tmp_path / "out" / "tasks.csv").read_bytes() == first
    (tmp_path / "moe/seed1/lost.parquet").unlink()
    with pytest.raises(ValueError, match=r"moe/seed1/lost.parquet: cannot be read as a table"):
        execute(["compare_tasks", *words])
