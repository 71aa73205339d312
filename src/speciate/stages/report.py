r"""Render the study's report as one HTML page.

The page needs no network. It shows the answers, the hypotheses, the findings with their figures and tables, what each
arm did, and how all was made. It has two renderings of each figure, for wide and for narrow screens, and colours for
light and for dark ones. A further page for each table shows its csv.

Example:
    speciate report --spec results/specs/<digest>.json --tables results/smoke/tables \
        --figures results/smoke/figures --manifest results/smoke/manifest.json --output report.html
"""

import argparse
import pathlib
from typing import Any

from speciate.analysis.alignment import align_selectors
from speciate.config.run import read_spec
from speciate.config.stage_specs import AGREED, CARDED, COMPARED, SCORED_TASKS, SWAPPED, ReportSpec
from speciate.io import atomic_write
from speciate.reporting import (
    answer,
    csv_page,
    data_tables,
    finding,
    findings,
    formats,
    manifest_summary,
    page,
    report_tables,
    task_tables,
)

TABLES = (
    *("runs", "losses", "selectors", "experts", "types", "verdicts", "stability", "telling", "predictors", "curves"),
    "measurements",
    *("interventions", "effects", "agreement", "comparisons", "collapse", "hypotheses", "missing"),
    *data_tables.REPORT_TABLES,
)
OF_TASKS = ("task_lengths", "task_heat")
"""The figures in the section on tasks, in their order."""
SECTION_ORDER = (
    "phase",
    "use",
    "load",
    "information",
    "lift",
    "commitment",
    "token_types",
    "loss_load",
    "curves",
    *OF_TASKS,
)
"""The order of the figures' sections; figures that are not named here follow."""


def more_tables(spec: ReportSpec) -> tuple[str, ...]:
    """Return the tables that only some studies have."""
    return (*(SWAPPED,) * spec.swaps, *(SCORED_TASKS if spec.tasks else ()))


def read_sections(folder: pathlib.Path, tables: finding.Tables, spec: ReportSpec) -> list[page.Section]:
    """Read a section for every figure of the study, with the tables that belong below it.

    A figure that the study could not fill has no section, unless there are tables to show in its place.
    """
    rank = {name: index for index, name in enumerate(SECTION_ORDER)}
    sections = []
    for name in sorted(spec.figures, key=lambda name: (rank.get(name, len(rank)), name)):
        build_tables = report_tables.TABLES_OF_FIGURE.get(name)
        section = page.read_section(folder, name, build_tables(tables, spec) if build_tables else [])
        if section.finding:
            sections.append(section)
    return sections


def render(tables: finding.Tables, spec: ReportSpec, figures: pathlib.Path, manifest: dict[str, Any]) -> str:
    """Return the report as HTML."""
    sections = read_sections(figures, tables, spec)
    steps = sorted({int(value) for value in tables["runs"]["num_steps"]})
    return page.render_page(
        pathlib.Path(__file__).with_name("report.html.jinja"),
        spec=spec,
        answers=answer.answers(tables, spec),
        details=findings.findings(tables, spec),
        missing=findings.missing_runs(tables, spec),
        arms=report_tables.arms_table(tables, spec),
        hypotheses=report_tables.hypothesis_rows(tables, spec),
        sections=[section for section in sections if section.name not in OF_TASKS],
        tasks=task_tables.task_parts(tables, spec),
        task_sections=[section for section in sections if section.name in OF_TASKS],
        comparisons=report_tables.comparison_tables(tables, spec),
        measured=report_tables.measurement_tables(tables, spec),
        bounds=[arm.name for arm in spec.arms if arm.bound],
        leaks=[arm.name for arm in spec.arms if arm.leaks],
        data=[data_tables.flow_table(tables), data_tables.splits_table(tables), *data_tables.drop_tables(tables)],
        warnings=data_tables.warning_sentences(tables),
        imbalance=data_tables.describe_imbalance(tables),
        facts=manifest_summary.provenance_facts(manifest),
        time=manifest_summary.time_table(manifest),
        digests=manifest["tables"],
        steps=formats.join_names(formats.format_count(step) for step in steps),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a ReportSpec")
    parser.add_argument("--tables", type=pathlib.Path, required=True, help="folder of the study's tables")
    parser.add_argument("--figures", type=pathlib.Path, required=True, help="folder of NAME.svg and NAME.json")
    parser.add_argument("--manifest", type=pathlib.Path, required=True, help="the study's manifest.json")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="page to write, .html")
    parser.add_argument(
        "--table-folder", type=pathlib.Path, help="where to write a page for each table, NAME.html; default: none"
    )


def main(arguments: argparse.Namespace) -> None:
    """Render the report, and write it."""
    spec = read_spec(ReportSpec, arguments.spec)
    tables, manifest = (
        align_selectors(page.read_tables(arguments.tables, (*TABLES, *more_tables(spec)))),
        page.read_json(arguments.manifest),
    )
    text = render(tables, spec, arguments.figures, manifest)
    with atomic_write(arguments.output) as temp_path:
        temp_path.write_text(text, encoding="utf-8")
    for name in (*COMPARED, AGREED, *more_tables(spec), *CARDED) if arguments.table_folder else ():
        with atomic_write(arguments.table_folder / f"{name}.html") as temp_path:
            temp_path.write_text(csv_page.render(arguments.tables / f"{name}.csv"), encoding="utf-8")
