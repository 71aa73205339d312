"""Write topics as one page of Markdown, a section each, so that a section can be remade alone."""

import re
from collections.abc import Iterable, Sequence

from speciate.calibration.topic import LEVEL, LIMIT, Cell, Table, Topic

HEAD = f"""# Error rates of our own tests

Every test and interval that Speciate reports was tried on data whose truth is known. `speciate calibrate` (or
`make calibration`) makes this page; [src/speciate/calibration](../src/speciate/calibration) has the code. A rate is
followed by its 95 % interval (Clopper-Pearson), which says how far the number of draws lets one see.

Tests have a nominal size of {LEVEL:g}: so often may they reject what is true. A size in **bold** has an upper bound
above {LIMIT:g}: do not trust the test there. A coverage in **bold** is below the nominal 95 % beyond doubt.
"""


def format_cell(cell: Cell) -> str:
    """Return one field of a table: three digits of a number, the interval of a rate."""
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def format_table(table: Table) -> str:
    """Return a table of Markdown below its caption."""
    lines = [table.caption, "", "| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(format_cell, row)) + " |" for row in table.rows)])


def format_section(topic: Topic, tables: Sequence[Table]) -> str:
    """Return a topic's section, after a mark by which it can be found and replaced."""
    parts = [f"<!-- topic: {topic.name} -->\n## {topic.title}", topic.text, *map(format_table, tables)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def read_sections(page: str) -> dict[str, str]:
    """Return the sections of a page by the name of their topic."""
    parts = re.split(r"^(?=<!-- topic: \w+ -->$)", page, flags=re.MULTILINE)[1:]
    return {str(re.findall(r"<!-- topic: (\w+) -->", part)[0]): part.strip() + "\n" for part in parts}


def join_sections(sections: dict[str, str], names: Iterable[str]) -> str:
    """Return the page with the sections that there are, in the order of `names`."""
    return "\n".join([HEAD, *(sections[name] for name in names if name in sections)])


def read_table(section: str, first: str) -> dict[str, dict[str, str]]:
    """Return a table of a section as setting -> column -> text; `first` is the heading of its first column.

    Raises:
        ValueError: no table of the section begins with this heading.
    """
    lines = section.splitlines()
    starts = [place for place, line in enumerate(lines) if line.startswith(f"| {first} |")]
    if not starts:
        raise ValueError(f"no table begins with a column {first}")
    columns = [word.strip() for word in lines[starts[0]].strip("|").split("|")]
    rows: dict[str, dict[str, str]] = {}
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        setting, *cells = [word.strip() for word in line.strip("|").split("|")]
        rows[setting] = dict(zip(columns[1:], cells, strict=True))
    return rows
