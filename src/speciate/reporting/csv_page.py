"""Show a table's csv as one HTML page, for `snakemake --report`, whose viewer shows pages and pictures but no csv."""

import csv
import pathlib

from speciate.reporting.page import render_page

MOST_ROWS = 500
"""Rows that a page shows; a table of many runs has a hundred thousand."""


def render(file: pathlib.Path) -> str:
    """Return the page. Its cells have the texts of the csv, so all digits that are written there.

    Raises:
        ValueError: the file cannot be read as a table; names it.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            header, *rows = csv.reader(lines)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{file}: cannot be read as a table: {error}") from None
    numeric = [bool(rows) and all(_is_number(row[index]) for row in rows) for index in range(len(header))]
    return render_page(
        pathlib.Path(__file__).with_name("csv_page.html.jinja"),
        name=file.stem,
        file=file.name,
        header=list(zip(header, numeric, strict=True)),
        rows=[list(zip(row, numeric, strict=True)) for row in rows[:MOST_ROWS]],
        num_rows=len(rows),
    )


def _is_number(text: str) -> bool:
    """Tell whether a field is a number or empty."""
    try:
        float(text or "0")
    except ValueError:
        return False
    return True
