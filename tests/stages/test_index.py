"""Test the page of all studies."""

import json
import pathlib

import pandas as pd
import pytest

from speciate.analysis import tables
from speciate.cli import execute
from speciate.stages import index


def write_study(results: pathlib.Path, name: str, verdicts: list[str]) -> pathlib.Path:
    """Write what the page reads of a study whose hypotheses have these verdicts."""
    folder = results / name
    (folder / "tables").mkdir(parents=True)
    manifest = {"study": name, "question": f"Does {name} <work>?", "environments": [{"runs": 3}, {"runs": 4}]}
    manifest["answers"] = [{"question": "Does it collapse?", "verdict": f"In {name}", "text": f"<Because> of {name}."}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "report.html").write_text("report")
    columns = [name for name, kind in tables.COLUMNS["hypotheses"].items() if kind != "str"]
    rows = pd.DataFrame(
        [
            {
                **dict.fromkeys(tables.COLUMNS["hypotheses"], ""),
                **dict.fromkeys(columns, 0),
                "statement": f"claim {number}",
                "verdict": verdict,
            }
            for number, verdict in enumerate(verdicts)
        ]
    )
    tables.write_parquet(tables.conform("hypotheses", rows), "hypotheses", folder / "tables/hypotheses.parquet")
    return folder


def test_the_page_has_each_studys_question_verdicts_and_links(tmp_path: pathlib.Path) -> None:
    write_study(tmp_path, "alone", ["refuted"])
    write_study(tmp_path, "default", ["supported", "supported", "undecided"])
    execute(["index", "--results", str(tmp_path)])
    text = (tmp_path / "index.html").read_text()
    assert text.index('id="default"') < text.index('id="alone"')
    assert "Does default &lt;work&gt;?" in text
    assert "2 supported, 1 undecided of 3 predictions" in text
    assert "1 refuted of 1 prediction." in text
    assert "7 runs" in text
    assert 'href="default/report.html"' in text and "data.html" not in text
    assert text.count("claim ") == 4
    # the contents have the verdict, the section the sentence
    assert "collapse in default" in text and "<strong>In default.</strong> &lt;Because&gt; of default." in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_study_that_cannot_be_read_is_named_beside_the_others(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path, "whole", ["supported"])
    broken = write_study(tmp_path, "broken", ["supported"])
    (broken / "tables/hypotheses.parquet").write_text("no table")
    execute(["index", "--results", str(tmp_path)])
    assert "broken/tables/hypotheses.parquet: cannot be read as a table" in (tmp_path / "index.html").read_text()
    assert "broken: not listed with its answers" in capsys.readouterr().err
    assert [entry.runs for entry in index.read_entries(tmp_path)] == [0, 7]


def test_a_study_of_an_earlier_version_has_no_answers(tmp_path: pathlib.Path) -> None:
    file = write_study(tmp_path, "old", ["supported"]) / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["answers"]
    file.write_text(json.dumps(manifest))
    (entry,) = index.read_entries(tmp_path)
    assert (entry.answers, entry.problem) == ([], "")


def test_a_folder_without_studies_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="holds no finished study"):
        execute(["index", "--results", str(tmp_path)])
