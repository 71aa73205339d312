"""Write the doctor's page: one HTML file with the verdict, the figures beside their nulls, the texts and the tables."""

import math
import pathlib
import tempfile

import pandas as pd

from speciate.analysis.routing.judgement import STATES, Judgement
from speciate.io import atomic_write
from speciate.reporting import formats, page
from speciate.reporting.doctor import drawing, figures
from speciate.reporting.doctor.advice import advice
from speciate.reporting.doctor.tables import page_tables
from speciate.reporting.explorer import from_record, write
from speciate.selection.routing_record import RoutingRecord

TRAINING = ("source", "step", "layer", "metric", "value")
"""Columns of training logs; layer is -1 where a value is about none."""


def write_doctor_page(
    record: RoutingRecord | None,
    judgement: Judgement,
    path: pathlib.Path,
    *,
    other: RoutingRecord | None = None,
    knock_out: pd.DataFrame | None = None,
    training_logs: pd.DataFrame | None = None,
) -> None:
    """Write the page; it needs no network.

    Args:
        record: what was judged; its sample of documents can be read in the page. None where only logs were.
        judgement: everything that the page says of it.
        path: file to write, .html.
        other: the record that it is compared with, shown beside it.
        knock_out: what the model loses without each expert; columns `from_record.KNOCK_OUT`.
        training_logs: values of a training, on one definition; columns `TRAINING`.

    Raises:
        ValueError: a table lacks a column; names it.
    """
    tables = dict(judgement.tables)
    for name, rows, needed in (
        ("knock_out", knock_out, from_record.KNOCK_OUT),
        ("training", training_logs, TRAINING),
    ):
        if rows is not None and len(rows):
            if absent := [column for column in needed if column not in rows]:
                raise ValueError(f"the table of {formats.plain_name(name)} has no column {', '.join(absent)}")
            tables[name] = _with_layer(rows, judgement)
    data = None
    if record is not None:
        data = from_record.from_record(record, judgement, other=other, knock_out=tables.get("knock_out"))
    text = page.render_page(
        pathlib.Path(__file__).with_name("page.html.jinja"),
        judgement=judgement,
        # two records may have the same notes
        notes=list(dict.fromkeys(note.text for note in judgement.notes)),
        advice=advice(judgement, was_knocked_out="knock_out" in tables),
        sections=_sections(tables, int(judgement.facts.get("seed", 0))),
        explorer="" if data is None else write.embed(data),
        has_record=record is not None,
        tables=page_tables(tables),
        states=[(state, meaning) for state, meaning in STATES.items()],
        facts=[(formats.plain_name(name), _fact(value)) for name, value in judgement.facts.items()],
    )
    with atomic_write(path) as temp_path:
        temp_path.write_text(text, encoding="utf-8")


def _with_layer(rows: pd.DataFrame, judgement: Judgement) -> pd.DataFrame:
    """Return a table with the number of each row's layer."""
    if "layer" in rows:
        return rows
    layers = {verdict.path: verdict.layer for verdict in judgement.verdicts}
    return rows.assign(layer=[layers.get(path, -1) for path in rows["path"]])


def _sections(tables: drawing.Tables, seed: int) -> list[page.Section]:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        found = figures.drawings(tables, seed)
        for one in found:
            drawing.write(one, folder)
        return [page.read_section(folder, one.name) for one in found]


def _fact(value: int | float | str) -> str:
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return formats.DASH
    return formats.format_count(value) if value == round(value) else f"{value:g}"
