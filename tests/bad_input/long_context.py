"""Define what a task on long contexts cannot ask a run: contexts too long, needles too long, no haystack."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import torch
from tests.bad_input.case import Case, Place
from tests.bad_input.finished import SPEC
from tests.bad_input.small import Command

from speciate.config.run import RunSpec, canonical_json
from speciate.data.mixture.manifest import read_mixture
from speciate.training.build_model import build_model
from speciate.training.checkpoint.weights import save_weights

VOCABULARY = 280


def asked(kind: str, **options: Any) -> Callable[[Place], Command]:
    """Return a command that puts an untrained run with a context of 600 tokens to a task."""

    def make(place: Place) -> Command:
        (mixture,) = place.reference.glob("results/data/balance/*/mixture.json")
        (tokenizer,) = place.reference.glob("results/data/fit/*/tokenizer.json")
        run, folder = RunSpec.model_validate(SPEC), place.folder / "run"
        run = RunSpec.model_validate({**SPEC, "model": {**run.model.model_dump(), "context": 600}})
        shutil.copytree(tokenizer.parent, folder / "tokenizer")
        (folder / "spec.json").write_text(canonical_json(run))
        vocabulary = {"tokens": VOCABULARY, "tokenizer": read_mixture(mixture.parent).tokenizer_fingerprint}
        (folder / "run.json").write_text(json.dumps({"vocabulary": vocabulary}))
        torch.manual_seed(0)
        save_weights(build_model(run, VOCABULARY), folder / "model.safetensors")
        texts = place.folder / "texts"
        texts.mkdir()
        spec = place.spec(run=run.model_dump(mode="json"), task="asked", options={"kind": kind, **options})
        given = ("--spec", spec, "--run-folder", "run", "--mixture-folder", str(mixture.parent), "--output", "out")
        return Command("evaluate_tasks", (*given, *(("--text", "pages=texts") if "text" in options else ())))

    return make


def case(wrong: str, says: str, kind: str, **options: Any) -> Case:
    """Make a case of a task that has no score, or not all of them; the study goes on."""
    return Case("Long context", wrong, asked(kind, **options), says, status=0)


NO_SCORE = "arm seed 0, task asked: no score: "
CASES = [
    case(
        "every length is longer than the model's context",
        NO_SCORE + "length 1024 is longer than the model's context 600",
        "needle",
        lengths=[1024],
    ),
    case(
        "one length is longer than the model's context",
        "left out: length 1024 is longer than the model's context 600",
        "needle",
        lengths=[500, 1024],
        depths=[0.5],
        questions=1,
    ),
    case(
        "the needle is longer than the context",
        NO_SCORE + "length 100 has no room: needles, question and answer take N tokens, and the haystack needs 16",
        "needle",
        lengths=[100],
        depths=[0.5],
    ),
    case(
        "a text without documents serves as a haystack",
        NO_SCORE + "texts: has no documents.parquet",
        "needle",
        lengths=[500],
        text="pages",
    ),
    case(
        "a list is too short for its common words",
        NO_SCORE + "length 90 is too short for a list in which 3 words stand out",
        "ruler",
        variants=["common_words"],
        lengths=[90],
    ),
    case(
        "texts of recall are too short for their pairs",
        NO_SCORE + "length: 16 pairs and their queries need 64 symbols, and a text has 40",
        "recall",
        pairs=[16],
        lengths=[40],
    ),
    Case(
        "Long context",
        "a task names no text of the study",
        lambda place: place.study(("evaluation", {"tasks": {"needles": {"kind": "needle", "text": "pages"}}})),
        "study.yaml: evaluation: tasks.needles: no text of evaluation.texts is called pages",
    ),
    Case(
        "Long context",
        "a source of recall has more pairs than keys",
        lambda place: place.study(
            ("domains.prose.sources", {"texts": {"kind": "recall", "num_pairs": 30, "length": 200}})
        ),
        "study.yaml: domains.prose.sources.texts: num_pairs: 30 pairs need as many different keys, and num_keys is 26",
    ),
]
