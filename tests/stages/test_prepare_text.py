"""Test the stage prepare_text: what the training text holds is left out and counted, and an absent source says why."""

import json
import pathlib
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate import cli
from speciate.data.documents import Document, read_documents, write_documents
from speciate.data.outside_text import read_outside_text

TRAINING = " ".join(f"word{number}" for number in range(40))
OTHER = " ".join(f"other{number}" for number in range(40))
KEPT = " ".join(f"kept{number}" for number in range(200))
TEXTS = {
    "equal": TRAINING,
    "other_signs": TRAINING.upper().replace(" ", ", ") + "!",
    # 14 words of the training text: 2 of this document's 28 runs of 13 words
    "two_runs": " ".join([*OTHER.split()[:13], *TRAINING.split()[5:19], *OTHER.split()[13:26]]),
    # 12 words of it are no run of 13
    "twelve_words": " ".join([*OTHER.split()[:20], *TRAINING.split()[:12], "end"]),
    "kept": KEPT,
    "kept_again": f"\n{KEPT}  ",
    "kept_with_a_stop": f"{KEPT}.",
    "a_short_one": "!",
    "symbols": "+-*/" * 5,
    "short_and_in_training": "three short words",
}


@pytest.fixture
def training(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    """Write the training text of two domains: 1,000 documents, among them those that are held out too."""
    texts = [" ".join(f"filler{number}_{word}" for word in range(20)) for number in range(1000)]
    texts[717], texts[90] = TRAINING, "Three short -- words"
    files = [tmp_path / "code.parquet", tmp_path / "prose.parquet"]
    for file, part in zip(files, (texts[:600], texts[600:]), strict=True):
        write_documents(file, [Document(f"{file.stem}/{row}", file.stem, "", text) for row, text in enumerate(part)])
    return files


def prepare(folder: pathlib.Path, training: list[pathlib.Path], paths: str = "texts.jsonl", **settings: Any) -> Any:
    """Run the stage on TEXTS; return its counts."""
    lines = [json.dumps({"id": name, "text": text}) + "\n" for name, text in TEXTS.items()]
    (folder / "texts.jsonl").write_text("".join(lines))
    source = {"kind": "files", "paths": [str(folder / paths)], "id": "id"}
    spec = {"text": "outside", "sources": {"mine": source}, "licences": {"mine": "CC0"}, **settings}
    (folder / "spec.json").write_text(json.dumps(spec))
    arguments = ["--spec", str(folder / "spec.json"), "--training", *map(str, training)]
    cli.main(["prepare_text", *arguments, "--output-folder", str(folder / "out")])
    return json.loads((folder / "out/counts.json").read_text())


def kept(folder: pathlib.Path) -> set[str]:
    return {document.id.removeprefix("mine/") for document in read_documents(folder / "out/documents.parquet")}


def test_what_the_training_text_holds_is_left_out_and_counted(
    tmp_path: pathlib.Path, training: list[pathlib.Path]
) -> None:
    counts = prepare(tmp_path, training)
    assert kept(tmp_path) == {"twelve_words", "kept", "kept_with_a_stop", "a_short_one", "symbols"}
    assert counts["dropped"] == {"duplicate": 1, "in_training": 3, "overlaps_training": 1}
    assert (counts["read"], counts["documents"], counts["unavailable"]) == (10, 5, None)
    assert counts["bytes"] == sum(len(TEXTS[name].strip().encode()) for name in kept(tmp_path))
    samples = {
        row["id"].removeprefix("mine/"): row for row in pq.read_table(tmp_path / "out/dropped.parquet").to_pylist()
    }
    assert samples.keys() == TEXTS.keys() - kept(tmp_path)
    note = "7.1% of 28 runs of 13 words are in the training text"
    assert (samples["two_runs"]["reason"], samples["two_runs"]["note"]) == ("overlaps_training", note)
    assert samples["kept_again"]["note"] == "has the text of mine/kept"
    assert counts["licences"] == {"mine": "CC0"}


def test_a_larger_share_may_overlap_and_duplicates_may_stay(
    tmp_path: pathlib.Path, training: list[pathlib.Path]
) -> None:
    counts = prepare(tmp_path, training, max_overlap=2 / 28, duplicates="keep")
    assert counts["dropped"] == {"in_training": 3}
    prepare(tmp_path, training, max_overlap=2 / 28 - 1e-9)
    assert "two_runs" not in kept(tmp_path)
    # an equal document is left out whatever its share may be
    assert prepare(tmp_path, training, max_overlap=1)["dropped"] == {"duplicate": 1, "in_training": 3}


def test_filters_and_a_limit_apply(tmp_path: pathlib.Path, training: list[pathlib.Path]) -> None:
    filters = [{"kind": "length", "min_characters": 18}]
    counts = prepare(tmp_path, training, filters=filters, max_bytes=1)
    assert counts["dropped"] == {
        "beyond_max_bytes": 3,
        "duplicate": 1,
        "in_training": 2,
        "overlaps_training": 1,
        "too_short": 2,
    }
    assert counts["documents"] == 1


def test_a_source_that_cannot_be_read_leaves_an_empty_text_that_says_why(
    tmp_path: pathlib.Path, training: list[pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    counts = prepare(tmp_path, training, paths="none.jsonl")
    assert counts["documents"] == 0
    assert counts["unavailable"].startswith("source mine: paths: no file matches")
    assert "text outside: IS EMPTY: source mine: paths: no file matches" in capsys.readouterr().err
    with pytest.raises(ValueError, match="text outside could not be read: source mine: paths: no file matches"):
        read_outside_text("outside", tmp_path / "out")
    # the next attempt, with the file there
    assert prepare(tmp_path, training)["documents"] == 5


def test_a_text_of_which_nothing_is_left_says_why(tmp_path: pathlib.Path, training: list[pathlib.Path]) -> None:
    prepare(tmp_path, training, filters=[{"kind": "length", "min_characters": 10**6}])
    says = r"text outside: no documents are left \(texts read: 10; dropped: too_short 10\)"
    with pytest.raises(ValueError, match=says):
        read_outside_text("outside", tmp_path / "out")
