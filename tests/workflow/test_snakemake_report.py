"""Test what `snakemake --report` shows of the finished smoke study."""

import base64
import csv
import html
import json
import pathlib
import re
from typing import Any

import pytest
from tests.workflow.conftest import ROOT, Workspace
from tests.workflow.test_staleness import GRAPH

from speciate.config.stage_specs import AGREED, CARDED, COMPARED, SCORED_TASKS, SWAPPED
from speciate.reporting import csv_page


@pytest.fixture(scope="module")
def page(finished: Workspace) -> str:
    """Provide the report as one file."""
    finished.smoke("--report", "everything.html")
    return (finished.folder / "everything.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def entries(page: str) -> dict[str, dict[str, Any]]:
    """Return what the report lists, by path, with its category and subcategory."""
    results, categories = (
        json.loads(re.search(rf"^    var {name} = (\{{.*\}});?$", page, re.MULTILINE)[1])  # type: ignore[index]
        for name in ("results", "categories")
    )
    places = {
        path: f"{category}/{subcategory}"
        for category, subcategories in categories.items()
        for subcategory, paths in subcategories.items()
        for path in paths
    }
    assert places.keys() == results.keys()
    return {path: {**entry, "place": places[path]} for path, entry in results.items()}


def test_every_figure_and_table_is_in_its_category(entries: dict[str, dict[str, Any]]) -> None:
    named = {(entry["place"].split("/")[0], pathlib.Path(path).stem) for path, entry in entries.items()}
    figures = [*GRAPH.figures("report"), *GRAPH.figures("data")]
    assert named == {
        *(("Figures", figure) for figure in figures),
        *(("Tables", table) for table in (*COMPARED, AGREED, SWAPPED, *SCORED_TASKS, *CARDED)),
        *(("Pages", name) for name in ("report", "data", "explorer")),
    }
    places = {pathlib.Path(path).stem: entry["place"] for path, entry in entries.items()}
    assert places["load"] == "Figures/Results" and places["data_drops"] == "Figures/Data"
    assert places["runs"] == "Tables/Runs" and places["hypotheses"] == "Tables/Study"
    assert places["data_sources"] == "Tables/Data"


def test_each_entry_has_labels_and_a_caption(finished: Workspace, entries: dict[str, dict[str, Any]]) -> None:
    for path, entry in entries.items():
        name = pathlib.Path(path).stem
        assert len(re.sub(r"<[^>]*>", "", entry["caption"])) > 40, path
        if entry["place"].startswith("Figures"):
            question = json.loads((finished.folder / path).with_suffix(".json").read_text())["question"]
            assert entry["labels"] == {"figure": name, "question": question}
        elif entry["place"].startswith("Tables"):
            assert entry["labels"] == {"table": name}
        else:
            assert entry["labels"]["study"] == "smoke"


def test_a_table_can_be_read_in_the_report(finished: Workspace, entries: dict[str, dict[str, Any]]) -> None:
    """Compare the cells of each embedded page with the csv."""
    for path, entry in entries.items():
        if not entry["place"].startswith("Tables"):
            continue
        assert entry["mime_type"] == "text/html"  # the viewer shows html and pictures, and offers other files to save
        text = base64.b64decode(entry["data_uri"].split("base64,", 1)[1]).decode()
        rows = [
            [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
            for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
        ]
        with (finished.results / f"tables/{pathlib.Path(path).stem}.csv").open(encoding="utf-8", newline="") as file:
            expected = list(csv.reader(file))
        assert rows == expected[: 1 + csv_page.MOST_ROWS], path


def test_the_report_needs_no_network(page: str) -> None:
    assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="https?:', page)


def test_a_long_table_says_that_it_was_cut(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_text("ablation,loss,about\n" + "".join(f"a{row},{row}.5,<{row}>\n" for row in range(501)))
    page = csv_page.render(file)
    assert page.count("<tr>") == 501
    assert "501 rows, of which the first 500 are shown" in page
    assert '<td class="n">7.5</td>' in page and "<td>&lt;7&gt;</td>" in page
    file.write_text("ablation\n")
    assert "0 rows." in csv_page.render(file)
    with pytest.raises(ValueError, match=r"none\.csv: cannot be read as a table"):
        csv_page.render(tmp_path / "none.csv")


def test_captions_are_where_the_rules_say() -> None:
    rules = "".join(file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk"))
    named = set(re.findall(r'caption="\.\./report/(\w+)\.rst"', rules)) | {"study"}
    assert named == {file.stem for file in (ROOT / "workflow/report").glob("*.rst")}
