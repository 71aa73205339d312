"""Test the task kind `harness` on tasks of our own: its rows average to what the harness itself reports."""

import json
import math
import pathlib
import time
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest
from tests.evaluation.downstream.runs import TASKS, copied_tasks, finished_run, subject

from speciate.evaluation.subject import SCORES
from speciate.evaluation.task import harness

OWN = ("own_animals", "own_stories", "own_counting")


def options(**settings: Any) -> harness.Options:
    return harness.Options.model_validate({"kind": "harness", "include_path": str(TASKS), **settings})


def test_options_name_the_files_whose_content_decides(tmp_path: pathlib.Path) -> None:
    folder = copied_tasks(tmp_path)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").touch()
    names = {pathlib.Path(file).name for file in options(tasks=["x"], include_path=str(folder)).files()}
    assert {"animals.yaml", "animals.jsonl", "stories.jsonl"} <= names and "x.pyc" not in names
    assert options(tasks=["mmlu"], include_path=None).files() == ()
    missing = str(tmp_path / "nowhere")
    assert options(tasks=["x"], include_path=missing).files() == (missing,)
    assert harness.Options.environment == "evaluation"
    with pytest.raises(pydantic.ValidationError):
        options(tasks=[])


def test_rows_of_every_kind_of_metric() -> None:
    """Check against hand counts, without the harness."""
    from speciate.evaluation.downstream.harness_scores import rows_of

    class Task:
        OUTPUT_TYPE = "multiple_choice"

        @staticmethod
        def doc_to_choice(doc: dict[str, Any]) -> list[str]:
            return list(doc["choices"])

    def sample(doc_id: int, filter_name: str = "none", **metrics: Any) -> dict[str, Any]:
        doc = {"choices": ["a"] * (2 + doc_id)}
        return {"doc_id": doc_id, "doc": doc, "filter": filter_name, "metrics": list(metrics), **metrics}

    rows = list(rows_of(Task(), "task", [sample(0, acc=True, f1=(1, 0)), sample(1, acc=np.float64(0.0), f1=(0, 0))]))
    assert [(row["metric"], row["item"], row["value"], row["chance"]) for row in rows] == [
        ("acc", "0", 1.0, 1 / 2),
        ("acc", "1", 0.0, 1 / 3),
    ]
    (row,) = rows_of(Task(), "task", [sample(0, word_perplexity=(-6.0, 3))])
    assert (row["metric"], row["value"], row["weight"]) == ("nats_per_word", 2.0, 3.0)
    (row,) = rows_of(Task(), "task", [sample(0, bits_per_byte=(-8 * math.log(2), 4))])
    assert (row["metric"], row["value"], row["weight"]) == ("bits_per_byte", pytest.approx(2.0), 4.0)
    (row,) = rows_of(Task(), "task", [sample(0, perplexity=-3.5)])
    assert (row["metric"], row["value"]) == ("nats_per_answer", 3.5)
    by_filter = rows_of(Task(), "task", [sample(0, "strict", exact_match=1), sample(0, "flexible", exact_match=0)])
    assert [(row["metric"], row["value"]) for row in by_filter] == [
        ("exact_match_strict", 1.0),
        ("exact_match_flexible", 0.0),
    ]
    (row,) = rows_of(Task(), "task", [sample(0, **{"4096": 1.0, "8192": -1.0})])
    assert (row["metric"], row["length"], row["value"]) == ("accuracy", 4096, 1.0)


class TestWithTheHarness:
    """Tests that need the lm-evaluation-harness."""

    pytestmark = pytest.mark.filterwarnings("ignore")

    @pytest.fixture(autouse=True, scope="class")
    def harness_is_here(self) -> None:
        pytest.importorskip("lm_eval", reason="the lm-evaluation-harness is not installed here: make test-evaluation")

    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
        return finished_run(tmp_path_factory.mktemp("harness") / "run")

    @pytest.fixture(scope="class")
    def table(self, run: pathlib.Path, harness_is_here: None) -> pd.DataFrame:
        return harness.evaluate(options(tasks=OWN, shots=2), subject(run))

    def test_rows_average_to_what_the_harness_reports(self, run: pathlib.Path, table: pd.DataFrame) -> None:
        import lm_eval
        from lm_eval.tasks import TaskManager

        from speciate.evaluation.downstream.lm_eval_model import SpeciateLM

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(TASKS)
            manager = TaskManager(include_path=str(TASKS), include_defaults=False)
            theirs = lm_eval.simple_evaluate(
                SpeciateLM(str(run)),
                tasks=list(OWN),
                task_manager=manager,
                num_fewshot=2,
                fewshot_random_seed=0,
                bootstrap_iters=0,
            )
        expected = {
            (task, name.split(",")[0]): value for task, all in theirs["results"].items() for name, value in all.items()
        }

        def mean(part: str, metric: str) -> float:
            rows = table[(table["part"] == part) & (table["metric"] == metric)]
            return float(np.average(rows["value"], weights=rows["weight"]))

        for metric in ("acc", "acc_norm"):
            assert mean("own_animals", metric) == pytest.approx(expected["own_animals", metric])
        assert mean("own_counting", "exact_match") == pytest.approx(expected["own_counting", "exact_match"])
        assert math.exp(mean("own_stories", "nats_per_word")) == pytest.approx(
            expected["own_stories", "word_perplexity"]
        )
        assert math.exp(mean("own_stories", "nats_per_byte")) == pytest.approx(
            expected["own_stories", "byte_perplexity"]
        )
        assert mean("own_stories", "bits_per_byte") == pytest.approx(expected["own_stories", "bits_per_byte"])

    def test_a_row_is_a_question(self, table: pd.DataFrame) -> None:
        assert list(table.columns) == list(SCORES)
        questions = {part: len((TASKS / f"{part.removeprefix('own_')}.jsonl").read_text().splitlines()) for part in OWN}
        assert table.groupby("part")["item"].nunique().to_dict() == questions
        assert not table.duplicated(["metric", "part", "item"]).any()
        animals = table[(table["part"] == "own_animals") & (table["metric"] == "acc")]
        assert animals["chance"].tolist() == [1 / 4, 1 / 4, 1 / 4, 1 / 2, 1 / 3]
        assert table.loc[table["part"] == "own_stories", "chance"].isna().all()

    def test_the_limit_takes_the_first_questions(self, run: pathlib.Path, table: pd.DataFrame) -> None:
        first = harness.evaluate(options(tasks=["own_animals"], shots=2, limit=2), subject(run))
        kept = table[(table["part"] == "own_animals") & table["item"].isin(["0", "1"])]
        pd.testing.assert_frame_equal(
            first.sort_values(["metric", "item"], ignore_index=True),
            kept.sort_values(["metric", "item"], ignore_index=True),
        )

    def test_masked_diffusion_answers_by_a_bound_and_says_so(self, tmp_path: pathlib.Path) -> None:
        masked = subject(finished_run(tmp_path / "run", objective="masked_diffusion"))
        table = harness.evaluate(options(tasks=["own_animals", "own_counting"], limit=2), masked)
        assert set(table["metric"]) == {"acc_bound", "acc_norm_bound", "exact_match_bound"}

    def test_an_unknown_task_is_named_with_its_nearest(self, run: pathlib.Path) -> None:
        with pytest.raises(ValueError, match=r"has no task 'own_animal'; near it are own_animals"):
            harness.evaluate(options(tasks=["own_animal"]), subject(run))
        with pytest.raises(ValueError, match=r"^include_path: nowhere: there is no such folder$"):
            harness.evaluate(options(tasks=["x"], include_path="nowhere"), subject(run))

    def test_missing_data_are_named_at_once(self, run: pathlib.Path, tmp_path: pathlib.Path) -> None:
        folder = copied_tasks(tmp_path)
        (folder / "stories.jsonl").unlink()
        with pytest.raises(ValueError, match=r"tasks: own_stories: a data file is missing: .*stories\.jsonl"):
            harness.evaluate(options(tasks=["own_stories"], include_path=str(folder)), subject(run))

    def test_data_out_of_reach_fail_in_seconds(
        self, run: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = copied_tasks(tmp_path)
        text = (folder / "stories.yaml").read_text().replace("dataset_path: json", "dataset_path: someone/stories")
        (folder / "stories.yaml").write_text(text.replace("dataset_kwargs:\n  data_files: {test: stories.jsonl}\n", ""))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        started = time.monotonic()
        with pytest.raises(ValueError, match=r"^dataset someone/stories of task own_stories cannot be reached: "):
            harness.evaluate(options(tasks=["own_stories"], include_path=str(folder)), subject(run))
        assert time.monotonic() - started < 20

    def test_a_task_that_runs_programs_is_sent_to_the_sandbox(self, run: pathlib.Path, tmp_path: pathlib.Path) -> None:
        folder = copied_tasks(tmp_path)
        with (folder / "counting.yaml").open("a") as file:
            file.write("unsafe_code: true\n")
        with pytest.raises(ValueError, match=r"own_counting runs programs .* use the task kind program$"):
            harness.evaluate(options(tasks=["own_counting"], include_path=str(folder)), subject(run))

    def test_an_answer_longer_than_the_context_is_refused(self, run: pathlib.Path, tmp_path: pathlib.Path) -> None:
        folder = copied_tasks(tmp_path)
        text = (folder / "counting.yaml").read_text()
        (folder / "counting.yaml").write_text(text.replace("max_gen_toks: 12", "max_gen_toks: 256"))
        with pytest.raises(ValueError, match="max_gen_toks: an answer of 256 tokens leaves no room"):
            harness.evaluate(options(tasks=["own_counting"], include_path=str(folder)), subject(run))

    def test_long_questions_lose_their_start_and_the_log_says_so(
        self, run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = copied_tasks(tmp_path)
        rows = [{"given": "one, two, " * 40, "next": "one"}, {"given": "one,", "next": "two"}]
        (folder / "counting.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        harness.evaluate(options(tasks=["own_counting"], include_path=str(folder)), subject(run))
        assert (
            "1 of 2 questions are longer than the context of 48 tokens: their start is cut" in capsys.readouterr().err
        )
