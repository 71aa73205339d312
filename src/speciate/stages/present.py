r"""Render the data card as one HTML page.

The page needs no network. It shows what the data are, what was dropped, and some of the texts.

Example:
    speciate present --spec results/smoke/specs/card.json --tables results/smoke/tables \
        --figures results/smoke/figures --output data.html
"""

import argparse
import pathlib

from speciate.config.components import kinds_in
from speciate.config.contracts.figures import figure_options
from speciate.config.run import read_spec
from speciate.config.stage_specs import CARDED, CardSpec
from speciate.data.card.columns import MEANINGS
from speciate.io import atomic_write
from speciate.reporting import data, page, texts
from speciate.reporting.answer import Tables

PLACED = {
    "data_tokens": "counts",
    "data_drops": "drops",
    "data_lengths": "lengths",
    "data_duplicates": "duplicates",
}
"""Figure -> the section that it opens; others follow at the end."""


def figures() -> list[str]:
    """The figures of this page."""
    return [name for name in kinds_in("figures") if figure_options(name).page == "data"]


def render(tables: Tables, spec: CardSpec, folder: pathlib.Path) -> str:
    """The page as HTML."""
    drawn = {PLACED.get(name, name): page.section(folder, name) for name in figures()}
    return page.render(
        pathlib.Path(__file__).with_name("present.html.jinja"),
        spec=spec,
        domains=data.domains_of(tables),
        drawn=drawn,
        others=[section for place, section in drawn.items() if place not in PLACED.values()],
        warnings=data.warnings(tables),
        imbalance=data.imbalance(tables),
        sources=data.sources(tables),
        digests=data.digests(tables),
        flow=data.flow(tables),
        splits=data.splits(tables),
        drops=data.drops(tables),
        edits=data.edits(tables),
        duplicates=data.duplicates(tables),
        overlaps=data.overlaps(tables),
        formatting=data.formatting(tables),
        marks=texts.marks(tables),
        kept=texts.samples(tables, "kept"),
        dropped=texts.samples(tables, "dropped"),
        copies=texts.samples(tables, "duplicate"),
        settings=texts.settings(spec),
        meanings=MEANINGS,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a CardSpec")
    parser.add_argument("--tables", type=pathlib.Path, required=True, help="folder of the tables that `card` wrote")
    parser.add_argument("--figures", type=pathlib.Path, required=True, help="folder of NAME.svg and NAME.json")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="page to write, .html")


def main(arguments: argparse.Namespace) -> None:
    """Render the page, and write it."""
    spec = read_spec(CardSpec, arguments.spec)
    text = render(page.read_tables(arguments.tables, CARDED), spec, arguments.figures)
    with atomic_write(arguments.output) as temp_path:
        temp_path.write_text(text, encoding="utf-8")
