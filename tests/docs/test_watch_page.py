"""Test that docs/watch.md has all names that are read and logged; run as a module, this file writes them."""

import inspect
import pathlib
import re

from speciate.training_logs.log_names import METRICS, frameworks
from speciate.training_logs.training_log import COLUMNS
from speciate.watch import Watch
from speciate.watching.counts import EVIDENCE, MEASURES, PREFIX
from speciate.watching.watcher import ARMED_AFTER

FILE = pathlib.Path(__file__).parents[2] / "docs" / "watch.md"
RELATIONS = {"=": "", "<=": "≤", ">=": "≥"}


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def names() -> str:
    """Return the table of frameworks' names and their conversion."""
    parts = []
    for framework in frameworks():
        rows = [
            f"| `{name.shown}` | {f'`{name.metric}`' if name.metric else '—'} | {cell(name.formula)}"
            f"{', with `--experts`' if name.needs_experts else ''} |"
            for name in framework.names
        ]
        head = [f"### {framework.title}", "", f"Read in {framework.source}.", ""]
        notes = ["", *(f"- {note}" for note in framework.notes)] if framework.notes else []
        parts.append("\n".join([*head, "| logged (x) | measure | conversion |", "|---|---|---|", *rows, *notes]))
    return "\n\n".join(parts)


def definitions(of: dict[str, str]) -> str:
    return "\n".join(
        ["| name | what it is |", "|---|---|", *(f"| `{name}` | {cell(text)} |" for name, text in of.items())]
    )


def parts() -> dict[str, str]:
    """Return the page's generated parts by the name in their marks."""
    logged = {f"{PREFIX}/{name}/layer_{{i}}": text for name, text in {**MEASURES, **EVIDENCE}.items()}
    return {
        "logged": definitions(logged),
        "measures": definitions(METRICS),
        "columns": definitions(COLUMNS),
        "names": names(),
    }


def with_parts(page: str) -> str:
    """Return the page with its generated parts replaced."""
    for name, text in parts().items():
        pattern = rf"(<!-- {name} -->).*?(<!-- end of {name} -->)"
        page, count = re.subn(pattern, lambda found, text=text: f"{found[1]}\n\n{text}\n\n{found[2]}", page, flags=re.S)
        assert count == 1, name
    return page


def test_the_generated_parts_are_up_to_date() -> None:
    page = FILE.read_text(encoding="utf-8")
    assert page == with_parts(page), "run `PYTHONPATH=src python -m tests.docs.test_watch_page`"


def test_the_page_names_every_argument_and_its_default() -> None:
    page = FILE.read_text(encoding="utf-8")
    for name, parameter in inspect.signature(Watch).parameters.items():
        assert f"`{name}`" in page or f"`{name}=" in page, name
        if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
            assert f"`{name}={parameter.default}`" in page, name
    assert f"{ARMED_AFTER:.0%}".rstrip("%") == "10" and "a tenth of the steps" in page


if __name__ == "__main__":
    FILE.write_text(with_parts(FILE.read_text(encoding="utf-8")), encoding="utf-8")
