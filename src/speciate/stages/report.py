r"""Render the study's report as one HTML page.

The page needs no network. It shows the answer, the hypotheses, the figures, the tables, and how they were made.

Example:
    speciate report --spec results/smoke/specs/report.json --tables results/smoke/tables \
        --figures results/smoke/figures --manifest results/smoke/manifest.json --output report.html
"""

import argparse
import pathlib
from typing import Any

from speciate.analysis.alignment import aligned
from speciate.config.run import read_spec
from speciate.config.stage_specs import ReportSpec
from speciate.io import atomic_write
from speciate.reporting import answer, cells, data, evidence, making, page

TABLES = (
    *("runs", "losses", "selectors", "experts", "types", "verdicts", "curves", "measurements"),
    *("comparisons", "collapse", "hypotheses", "missing"),
    *data.SHORT,
)
ORDER = ("load", "lift", "information", "commitment", "token_types", "loss_load", "curves")
"""The order of the sections; figures that are not named follow."""


def sections(folder: pathlib.Path, tables: answer.Tables, spec: ReportSpec) -> list[page.Section]:
    """A section for every figure of the study."""
    names = sorted(spec.figures, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    behind = {name: evidence.BEHIND.get(name) for name in names}
    return [page.section(folder, name, made(tables, spec) if made else []) for name, made in behind.items()]


def render(tables: answer.Tables, spec: ReportSpec, figures: pathlib.Path, manifest: dict[str, Any]) -> str:
    """The report as HTML."""
    steps = sorted({int(value) for value in tables["runs"]["num_steps"]})
    return page.render(
        pathlib.Path(__file__).with_name("report.html.jinja"),
        spec=spec,
        answers=answer.answers(tables, spec),
        missing=answer.missing_runs(tables, spec),
        arms=evidence.arms(tables, spec),
        hypotheses=evidence.hypotheses(tables, spec),
        sections=sections(figures, tables, spec),
        comparisons=evidence.comparisons(tables, spec),
        measured=evidence.measured(tables, spec),
        bounds=[arm.name for arm in spec.arms if arm.bound],
        leaks=[arm.name for arm in spec.arms if arm.leaks],
        data=[data.flow(tables), data.splits(tables), *data.drops(tables)],
        warnings=data.warnings(tables),
        imbalance=data.imbalance(tables),
        facts=making.facts(manifest),
        time=making.time_table(manifest),
        digests=manifest["tables"],
        steps=cells.listed(cells.whole(step) for step in steps),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a ReportSpec")
    parser.add_argument("--tables", type=pathlib.Path, required=True, help="folder of the study's tables")
    parser.add_argument("--figures", type=pathlib.Path, required=True, help="folder of NAME.svg and NAME.json")
    parser.add_argument("--manifest", type=pathlib.Path, required=True, help="the study's manifest.json")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="page to write, .html")


def main(arguments: argparse.Namespace) -> None:
    """Render the report, and write it."""
    spec = read_spec(ReportSpec, arguments.spec)
    tables, manifest = aligned(page.read_tables(arguments.tables, TABLES)), page.read_json(arguments.manifest)
    text = render(tables, spec, arguments.figures, manifest)
    with atomic_write(arguments.output) as temp_path:
        temp_path.write_text(text, encoding="utf-8")
