"""Join the answers of all finished studies on one page.

Each study has its question, three answers and what became of its predictions. The page links each study's report and
data. A study whose files cannot be read is named with the reason.

Example:
    speciate index --results results
"""

import argparse
import pathlib
from dataclasses import dataclass
from typing import Any

import pandas as pd

from speciate.cli import log
from speciate.io import atomic_write
from speciate.reporting import answer, page

VERDICTS = ("supported", "refuted", "undecided")
FIRST = ("default", "chains", "three_selectors")
"""The studies that head the page, in this order; others follow by name."""


@dataclass(frozen=True)
class Entry:
    """One study on the page."""

    name: str
    question: str
    runs: int
    hypotheses: list[dict[str, str]]
    """Statement and verdict of each hypothesis, in the order of the study file."""
    pages: list[tuple[str, str]]
    """What each page of the study is called, and its address."""
    answers: list[answer.Answer]
    """The answers of the study's report; none where the study was made by a version that did not write them."""
    problem: str = ""
    """Why the study cannot be read; empty if it can."""

    @property
    def counts(self) -> list[tuple[str, int]]:
        """Return each verdict with its number of hypotheses, without those that none has."""
        found = [(verdict, sum(row["verdict"] == verdict for row in self.hypotheses)) for verdict in VERDICTS]
        return [(verdict, count) for verdict, count in found if count]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=pathlib.Path, default=pathlib.Path("results"), help="folder of the studies' results"
    )


def main(arguments: argparse.Namespace) -> None:
    """Read the studies, and write `index.html` into the folder of results."""
    entries = read_entries(arguments.results)
    if not entries:
        raise ValueError(f"{arguments.results}: holds no finished study, which has a manifest.json")
    text = page.render_page(pathlib.Path(__file__).with_name("index.html.jinja"), studies=entries)
    target = arguments.results / "index.html"
    with atomic_write(target) as temp_path:
        temp_path.write_text(text, encoding="utf-8")
    for entry in entries:
        if entry.problem:
            log(f"{entry.name}: not listed with its answers: {entry.problem}")
    log(f"wrote {target}: {len(entries)} {'study' if len(entries) == 1 else 'studies'}")


def read_entries(results: pathlib.Path) -> list[Entry]:
    """Return the studies under `results` that have a manifest: those of `FIRST`, then the others by name."""
    folders = sorted(file.parent for file in results.glob("*/manifest.json"))
    rank = {name: place for place, name in enumerate(FIRST)}
    return [read_entry(folder) for folder in sorted(folders, key=lambda folder: (rank.get(folder.name, 99), folder))]


def read_entry(folder: pathlib.Path) -> Entry:
    """Return one study."""
    titles = {"report.html": "report", "explorer.html": "explorer", "data.html": "data"}
    pages = [(title, f"{folder.name}/{file}") for file, title in titles.items() if (folder / file).exists()]
    try:
        manifest = page.read_json(folder / "manifest.json")
        rows = page.read_tables(folder / "tables", ("hypotheses",))["hypotheses"]
        runs = sum(environment["runs"] for environment in manifest["environments"])
        return Entry(folder.name, manifest.get("question", ""), runs, statements(rows), pages, read_answers(manifest))
    except (ValueError, KeyError, TypeError) as error:
        return Entry(folder.name, "", 0, [], pages, [], " ".join(str(error).split()))


def read_answers(manifest: dict[str, Any]) -> list[answer.Answer]:
    """Return the answers of a manifest; none where an earlier version wrote it."""
    return [answer.Answer(**part) for part in manifest.get("answers", [])]


def statements(hypotheses: pd.DataFrame) -> list[dict[str, str]]:
    """Return statement and verdict of each hypothesis."""
    return [{"statement": str(row.statement), "verdict": str(row.verdict)} for row in hypotheses.itertuples()]
