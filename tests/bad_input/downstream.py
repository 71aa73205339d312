"""Define what can go wrong with benchmarks: a wrong option, a missing or damaged file of problems, an unknown task."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import torch
from tests.bad_input.case import Case, Place, separately
from tests.bad_input.finished import SPEC
from tests.bad_input.small import Command, Ended

from speciate.config.run import RunSpec, canonical_json
from speciate.training.build_model import build_model
from speciate.training.checkpoint.weights import save_weights

PROBLEM = {
    "task_id": "own/0",
    "prompt": "def one():\n",
    "test": "def check(c):\n    assert c()\n",
    "entry_point": "one",
}


def study(wrong: str, says: str, **options: Any) -> Case:
    """Return a case of a study file whose task `asked` has these options."""
    change = ("evaluation", {"tasks": {"asked": options}})
    return Case("Benchmarks", wrong, lambda place: place.study(change), f"study.yaml: evaluation.tasks.asked{says}")


def asked(file: str | None = None, **options: Any) -> Callable[[Place], Command]:
    """Return a command that puts a run to a task; `file` is what stands in problems.jsonl."""

    def make(place: Place) -> Command:
        (tokenizer,) = place.reference.glob("results/data/fit/*/tokenizer.json")
        (mixture,) = place.reference.glob("results/data/balance/*/mixture.json")
        shutil.copytree(tokenizer.parent, place.folder / "run" / "tokenizer")
        run = RunSpec.model_validate(SPEC)
        torch.manual_seed(0)
        save_weights(build_model(run, 280), place.folder / "run" / "model.safetensors")
        (place.folder / "run" / "spec.json").write_text(canonical_json(run))
        if file is not None:
            (place.folder / "problems.jsonl").write_text(file)
        spec = place.spec(run=json.loads(canonical_json(run)), task="asked", options=options)
        given = ("--run-folder", "run", "--mixture-folder", str(mixture.parent), "--output", "out/scores.parquet")
        return Command("evaluate_tasks", ("--spec", spec, *given))

    return make


def unscored(wrong: str, says: str, file: str | None = None, **options: Any) -> Case:
    """Return a case in which the table has no score, the log says why, and the study goes on."""
    says = f"arm seed 0, task asked: no score: {says}"
    return Case("Benchmarks", wrong, asked(file, **options), says, status=0)


def without_the_harness(place: Place, command: Command) -> Ended:
    """Run the command in a process that has no lm-evaluation-harness, whatever this one has."""
    return separately(place, command, "sys.modules['lm_eval'] = None")


CASES = [
    study("a list of tasks that is empty", ".tasks: WHY", kind="harness", tasks=[]),
    study(
        "pass@k of more programs than are written",
        ": k: pass@10 needs as many samples, and there are 5",
        kind="program",
        problems="problems.jsonl",
        samples=5,
        k=[1, 10],
        temperature=0.8,
    ),
    study(
        "several programs by the likeliest token",
        ": temperature: at 0 all samples of a problem are one program; give a temperature above 0",
        kind="program",
        problems="problems.jsonl",
        samples=5,
    ),
    unscored(
        "a file of problems that is not there",
        "problems: problems.jsonl: there is no such file",
        kind="program",
        problems="problems.jsonl",
        max_tokens=8,
    ),
    unscored(
        "a problem without tests",
        "problems.jsonl, line 1: has no text under 'test'; a problem has task_id, prompt, test, entry_point",
        json.dumps({**PROBLEM, "test": None}),
        kind="program",
        problems="problems.jsonl",
        max_tokens=8,
    ),
    unscored(
        "programs longer than the model's context",
        "max_tokens: 256 leave no room for a prompt in a context of 32",
        json.dumps(PROBLEM),
        kind="program",
        problems="problems.jsonl",
    ),
    Case(
        "Benchmarks",
        "a task of the lm-evaluation-harness where it is not installed",
        asked(kind="harness", tasks=["mmlu"]),
        "needs lm_eval, which is not installed: pip install 'speciate[harness]'",
        run=without_the_harness,
    ),
]
