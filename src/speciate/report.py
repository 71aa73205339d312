"""report: the study as one HTML file that needs no network: answer, hypotheses, figures, tables, how it was made."""

import argparse
import base64
import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd

from speciate.plan import ReportSpec
from speciate.reporting import answer, cells, evidence, making
from speciate.spec import read_spec
from speciate.verb import run, writing

TABLES = (
    *("runs", "losses", "selectors", "experts", "types", "verdicts", "curves"),
    *("comparisons", "collapse", "hypotheses"),
)
ORDER = ("load", "lift", "information", "commitment", "token_types", "loss_load", "curves")
"""The order of the sections; figures that are not named follow."""


@dataclass(frozen=True)
class Section:
    """One question with its figure, caption and tables."""

    name: str
    question: str
    caption: str
    picture: str
    """A data URI."""
    tables: Sequence[cells.Table]


def read_tables(folder: pathlib.Path) -> dict[str, pd.DataFrame]:
    """All tables of the study. Raises ValueError naming the one that cannot be read."""
    tables = {}
    for name in TABLES:
        file = folder / f"{name}.parquet"
        try:
            tables[name] = pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: cannot be read as a table: {' '.join(str(error).split())}") from None
    return tables


def read_json(file: pathlib.Path) -> Any:
    """What a JSON file holds. Raises ValueError naming the file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None


def sections(folder: pathlib.Path, tables: answer.Tables, spec: ReportSpec) -> list[Section]:
    """A section for every figure of the study."""
    names = sorted(spec.figures, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    found = []
    for name in names:
        told = read_json(folder / f"{name}.json")
        picture = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
        behind = evidence.BEHIND.get(name)
        found.append(
            Section(
                name=name,
                question=told["question"],
                caption=told["caption"],
                picture=f"data:image/svg+xml;base64,{picture}",
                tables=behind(tables, spec) if behind else [],
            )
        )
    return found


def render(
    tables: answer.Tables, spec: ReportSpec, figures: pathlib.Path, counts: making.Counts, manifest: dict[str, Any]
) -> str:
    """The report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    steps = sorted({int(value) for value in tables["runs"]["num_steps"]})
    return environment.get_template("report.html.jinja").render(
        spec=spec,
        answers=answer.answers(tables, spec),
        missing=answer.missing_runs(tables, spec),
        arms=evidence.arms(tables, spec),
        hypotheses=evidence.hypotheses(tables, spec),
        sections=sections(figures, tables, spec),
        comparisons=evidence.comparisons(tables, spec),
        data=making.data_tables(counts, spec.domains),
        mixture=making.mixture_facts(counts),
        facts=making.facts(manifest),
        time=making.time_table(manifest),
        digests=manifest["tables"],
        steps=cells.listed(cells.whole(step) for step in steps),
        spoken=cells.spoken,
        listed=cells.listed,
        counted=cells.counted,
    )


def main() -> None:
    """Parses, reads, renders, writes."""
    parser = argparse.ArgumentParser(prog="speciate report", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="a ReportSpec")
    parser.add_argument("--tables", type=pathlib.Path, required=True, help="folder of the study's tables")
    parser.add_argument("--figures", type=pathlib.Path, required=True, help="folder of NAME.svg and NAME.json")
    parser.add_argument(
        *("--counts",), type=pathlib.Path, nargs="*", default=[], help="counts.json of data stages, and mixture.json"
    )
    parser.add_argument("--manifest", type=pathlib.Path, required=True, help="the study's manifest.json")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="report.html")
    arguments = parser.parse_args()
    spec = read_spec(ReportSpec, arguments.spec)
    counts, manifest = making.read_counts(arguments.counts), read_json(arguments.manifest)
    text = render(read_tables(arguments.tables), spec, arguments.figures, counts, manifest)
    with writing(arguments.output) as aside:
        aside.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(main)
