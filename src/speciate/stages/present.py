r"""Render the data card as one HTML page.

The page needs no network. It shows what the data are, what was dropped, and some of the texts.

Example:
    speciate present --spec results/specs/<digest>.json --tables results/smoke/tables \
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
from speciate.reporting import data_tables, data_texts, page
from speciate.reporting.finding import Tables

SECTION_OF_FIGURE = {
    "data_tokens": "counts",
    "data_drops": "drops",
    "data_lengths": "lengths",
    "data_duplicates": "duplicates",
}
"""Figure -> the section that it opens; other figures follow at the end."""


def figure_names() -> list[str]:
    """Return the names of this page's figures."""
    return [name for name in kinds_in("figures") if figure_options(name).page == "data"]


def render(tables: Tables, spec: CardSpec, folder: pathlib.Path) -> str:
    """Return the page as HTML."""
    drawn = {SECTION_OF_FIGURE.get(name, name): page.read_section(folder, name) for name in figure_names()}
    return page.render_page(
        pathlib.Path(__file__).with_name("present.html.jinja"),
        spec=spec,
        domains=data_tables.domain_names(tables),
        drawn=drawn,
        others=[section for place, section in drawn.items() if place not in SECTION_OF_FIGURE.values()],
        warnings=data_tables.warning_sentences(tables),
        imbalance=data_tables.describe_imbalance(tables),
        sources=data_tables.sources_table(tables),
        digests=data_tables.source_digests(tables),
        flow=data_tables.flow_table(tables),
        splits=data_tables.splits_table(tables),
        drops=data_tables.drop_tables(tables),
        edits=data_tables.edit_tables(tables),
        duplicates=data_tables.duplicate_tables(tables),
        overlaps=data_tables.overlap_tables(tables),
        formatting=data_tables.formatting_tables(tables),
        marks=data_texts.describe_marks(tables),
        kept=data_texts.sample_groups(tables, "kept"),
        dropped=data_texts.sample_groups(tables, "dropped"),
        copies=data_texts.sample_groups(tables, "duplicate"),
        settings=data_texts.describe_settings(spec),
        meanings=MEANINGS,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
