"""Write the tables of docs/traces.md from the modules of the formats.

Run it in the repository's root, with src on PYTHONPATH.
"""

from tests.bad_input.small import ROOT

from speciate.traces.contract import Contents
from speciate.traces.parquet_file import COLUMNS
from speciate.traces.read import format_names, load_format

FILE = ROOT / "docs" / "traces.md"


def formats_table() -> str:
    """Return a row for each format: what it is, its files, what it can hold."""
    names = list(Contents.__dataclass_fields__)
    lines = [f"| format | what it is | files | {' | '.join(names)} |", f"|---|---|---|{'---|' * len(names)}"]
    for name in format_names():
        module = load_format(name)
        holds = " | ".join("yes" if vars(module.CONTENTS)[each] else "" for each in names)
        lines.append(f"| `{name}` | {module.SUMMARY} | {module.FILES} | {holds} |")
    return "\n".join(lines)


def columns_table() -> str:
    """Return a row for each column of Speciate's own format."""
    return "\n".join(
        ["| column | meaning |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in COLUMNS.items())]
    )


def text(page: str) -> str:
    """Return the page with its tables made anew, each between its own two comments."""
    for name, table in (("formats", formats_table()), ("columns", columns_table())):
        before, begin, rest = page.partition(f"<!-- {name}: `make docs` -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert begin and end, f"docs/traces.md has no place for the table of {name}"
        page = f"{before}{begin}\n{table}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    FILE.write_text(text(FILE.read_text(encoding="utf-8")), encoding="utf-8")
