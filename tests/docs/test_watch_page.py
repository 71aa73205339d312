"""Test that docs/watch.md has all names that are read and logged; run as a module, this file writes them."""

import bisect
import inspect
import pathlib
import re

import numpy as np

from speciate.training_logs.log_names import METRICS, frameworks
from speciate.training_logs.training_log import COLUMNS
from speciate.watch import Watch
from speciate.watching.collapse_alarm import CollapseAlarm
from speciate.watching.counts import EVIDENCE, MEASURES, PREFIX, CheckCounts, SelectorCounts, WatchedSelector
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


SIZES = ((8, 1, 1), (8, 2, 32), (64, 8, 16), (128, 8, 48))
"""Experts, choices of a token, layers."""
PLAN = 200


def needs() -> str:
    """Return the table of the documents that a total collapse of one layer needs to raise the alarm."""
    rows = []
    for experts, chosen, layers in SIZES:
        fewest = [fewest_documents(experts, chosen, layers, within) for within in (PLAN, PLAN // 10, 1)]
        rows.append(f"| {experts}, {chosen} chosen | {layers} | {' | '.join(map(str, fewest))} |")
    head = [
        f"| experts | layers | by the last of {PLAN} checks | within {PLAN // 10} checks | at once |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def fewest_documents(experts: int, chosen: int, layers: int, within: int) -> int:
    """Return with how many documents a total collapse of one layer raises the alarm within so many checks."""
    shape = WatchedSelector("router", 0, experts, float(chosen))

    def is_enough(documents: int) -> bool:
        one = SelectorCounts(shape, np.ones((documents, experts)), np.full(experts, 1 / experts))
        counts = CheckCounts((one,) * layers, np.zeros(documents, dtype=np.int64))
        return CollapseAlarm(0.05, PLAN).checks_to_fire(counts) <= within

    return bisect.bisect_left(range(1, 65), True, key=is_enough) + 1


def parts() -> dict[str, str]:
    """Return the page's generated parts by the name in their marks."""
    logged = {f"{PREFIX}/{name}/layer_{{i}}": text for name, text in {**MEASURES, **EVIDENCE}.items()}
    return {
        "logged": definitions(logged),
        "measures": definitions(METRICS),
        "columns": definitions(COLUMNS),
        "names": names(),
        "needs": needs(),
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
