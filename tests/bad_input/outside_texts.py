"""Define what can go wrong with texts outside training and the task of likelihood; none of it stops a study."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file
from tests.bad_input.archives import without_network
from tests.bad_input.case import Case, Place, package
from tests.bad_input.finished import SPEC
from tests.bad_input.small import Command
from tests.bad_input.studies import study

from speciate.analysis.tasks.scores import read_scores
from speciate.config.run import RunSpec
from speciate.data.documents import Document, write_documents
from speciate.training.build_model import build_model

TEXT = {"sources": {"prose": {"kind": "files", "paths": ["corpus/prose.jsonl"]}}}


def text(wrong: str, says: str, **change: Any) -> Case:
    """Make a case of one text outside training whose keys are changed."""
    return study(
        wrong, f"study.yaml: evaluation: texts.news.{says}", ("evaluation", {"texts": {"news": TEXT | change}})
    )


def prepared(source: dict[str, Any], **settings: Any) -> Callable[[Place], Command]:
    """Return the command that prepares a text from one source, against the training text of the reference."""

    def make(place: Place) -> Command:
        (training,) = place.reference.glob("results/data/write_splits/prose-*/*/train.parquet")
        shutil.copy(training, place.folder / "train.parquet")
        spec = place.spec(text="news", sources={"one": source}, **settings)
        return Command("prepare_text", ("--spec", spec, "--training", "train.parquet", "--output-folder", "out"))

    return make


def of_training(place: Place) -> Command:
    """Return the command that prepares a text whose documents are those of a domain."""
    (place.folder / "corpus").mkdir()
    shutil.copy(place.reference / "corpus/prose.jsonl", place.folder / "corpus")
    return prepared(TEXT["sources"]["prose"], filters=[{"kind": "length", "min_characters": 10**6}])(place)


def is_empty(place: Place) -> None:
    """Check that the text has no documents, and that its counts are there."""
    assert pd.read_parquet(place.folder / "out/documents.parquet").empty
    assert json.loads((place.folder / "out/counts.json").read_text())["documents"] == 0


def scored(**settings: Any) -> Callable[[Place], Command]:
    """Return the command that puts a run with random weights to the task of likelihood on an empty text."""

    def make(place: Place) -> Command:
        (mixture,) = place.reference.glob("results/data/balance/*")
        (tokenizer,) = place.reference.glob("results/data/fit/*")
        run = place.folder / "run"
        shutil.copytree(tokenizer, run / "tokenizer")
        manifest = json.loads((tokenizer / "tokenizer_manifest.json").read_text())
        spec = RunSpec.model_validate(SPEC)
        (run / "spec.json").write_text(json.dumps(SPEC))
        torch.manual_seed(0)
        save_file(build_model(spec, manifest["vocabulary"]).state_dict(), run / "model.safetensors")
        vocabulary = {"tokens": manifest["vocabulary"], "tokenizer": manifest["fingerprint"]}
        (run / "run.json").write_text(json.dumps({"vocabulary": vocabulary, "state": "finished"}))
        news = place.folder / "news"
        news.mkdir()
        write_documents(news / "documents.parquet", list[Document]())
        (news / "counts.json").write_text('{"unavailable": null, "read": 3, "dropped": {"in_training": 3}}')
        options = {"kind": "likelihood", "outside": ["news"], **settings}
        file = place.spec(run=SPEC, task="held_out", options=options)
        given = ("--spec", file, "--run-folder", "run", "--mixture-folder", str(mixture), "--text", "news=news")
        return Command("evaluate_tasks", (*given, "--output", "scores.parquet"))

    return make


def has_no_scores(place: Place) -> None:
    """Check that the table has no row, and says why."""
    rows, reason = read_scores(place.folder / "scores.parquet")
    assert rows.empty
    assert reason


def likelihood(wrong: str, says: str, **settings: Any) -> Case:
    """Make a case of the task of likelihood, which says why it has no scores."""
    said = f"arm seed 0, task held_out: no score: {says}"
    return Case("Text outside training", wrong, scored(**settings), said, 0, then=has_no_scores)


CASES = [
    text(
        "a text outside training that is cut into shards",
        "shards: a text outside training is made by one job; leave it out",
        shards=2,
    ),
    text(
        "a text outside training of which similar documents are to be dropped",
        "duplicates: only equal texts are looked for; write exact or keep",
        duplicates="near",
    ),
    study(
        "a task on a text that there is not",
        "study.yaml: evaluation: tasks.held_out: no text of evaluation.texts is called newz",
        ("evaluation", {"texts": {"news": TEXT}, "tasks": {"held_out": {"kind": "likelihood", "outside": ["newz"]}}}),
    ),
    Case(
        "Text outside training",
        "a source that cannot be reached",
        prepared(package()),
        "text news: IS EMPTY: source one: tiny==1.0 (tiny-1.0-py3-none-any.whl): pip cannot reach its package index; "
        "check the network and pip's settings (pip config list); the study goes on, and tries again at its next start",
        0,
        run=without_network,
        then=is_empty,
    ),
    Case(
        "Text outside training",
        "no documents left after the filters",
        of_training,
        "text news: 0 of 20 documents; dropped {'too_short': 20}",
        0,
        then=is_empty,
    ),
    likelihood(
        "a text of which the training text holds all documents",
        "text news: no documents are left (texts read: 3; dropped: in_training 3)",
    ),
    likelihood(
        "a window longer than the model's context",
        "window: 64 tokens are more than the context of arm, 32",
        window=64,
    ),
    likelihood(
        "a stride longer than the window",
        "stride: 24 tokens are more than the window, 16, so some would not be predicted",
        window=16,
        stride=24,
    ),
]
