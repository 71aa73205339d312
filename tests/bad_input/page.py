"""Generate docs/bad-input.md from the cases."""

from itertools import groupby

from tests.bad_input import (
    archives,
    depth,
    diffusion,
    documents,
    downstream,
    finished,
    gsa,
    long_context,
    machine,
    moe,
    multi_token,
    outside_texts,
    rom,
    shards,
    starts,
    studies,
    tokens,
    traces,
    training,
    training_logs,
    workflow,
)
from tests.bad_input.case import Case
from tests.bad_input.small import ROOT
from tests.bad_input.workflow import SNAKEMAKE_FAILED

from speciate.cli import FAILED, FAILED_FOR_NOW

FILE = ROOT / "docs" / "bad-input.md"
CASES: list[Case] = [
    case
    for module in (
        *(studies, starts, moe, rom, depth, gsa, multi_token, diffusion),
        *(
            archives,
            documents,
            shards,
            tokens,
            machine,
            training,
            finished,
            outside_texts,
            long_context,
            downstream,
            traces,
            training_logs,
            workflow,
        ),
    )
    for case in module.CASES
]
HEAD = """# Error messages for bad input

Do not edit: `make docs` generates this page from the cases in `tests/bad_input/`. The tests make each case and run it.

A stage that cannot go on prints one message and exits without a traceback; {bad} of the {all} cases here end so. Its
exit status is {failed} if the same command would fail again, and {now} if the error may pass, such as a network that is
down. A workflow tries a job again only in the second case, and where a job is killed or meets a bug (status 1, with a
traceback). A stage never leaves half a file under an output's name. An output that existed before stays as it was, and
inputs are only read. A stage that is killed may leave hidden files such as `.documents.parquet.*`, which nothing reads.
A faulty document need not be an error: it may be dropped, counted by its reason in `counts.json`, and sampled in
`dropped.parquet`.

Each message begins with its stage, such as `speciate clean: error: `. In the tables, N stands for a number, KEY for the
key in a folder's name, SHA256 for a digest, HERE for the current folder, HUB for the hub's address, KINDS for a list of
all kinds, and WHY for a library's own words.
"""


def cell(text: str) -> str:
    """Return text in code font, for a cell of a table."""
    lines = text.replace("|", "\\|").split("\n")
    return "<br>".join(f"`` {line} ``" if "`" in line else f"`{line}`" for line in lines)


def outcome(case: Case) -> str:
    """Return the message, or how the command ends."""
    marks = {
        0: " (no error)",
        FAILED: "",
        FAILED_FOR_NOW: " (may pass)",
        SNAKEMAKE_FAILED: " (exit status 1, Snakemake's)",
    }
    if case.status in marks:
        return cell(case.says) + marks[case.status]
    return f"exit status {case.status}" + (f": {cell(case.says)}" if case.says else "")


def text() -> str:
    """Return the page."""
    parts = [
        HEAD.format(
            bad=sum(case.status in (FAILED, FAILED_FOR_NOW, SNAKEMAKE_FAILED) for case in CASES),
            all=len(CASES),
            failed=FAILED,
            now=FAILED_FOR_NOW,
        )
    ]
    for area, cases in groupby(sorted(CASES, key=lambda case: ORDER.index(case.area)), key=lambda case: case.area):
        rows = [f"| {case.wrong} | {outcome(case)} |" for case in cases]
        parts.append("\n".join([f"## {area}\n", "| what is wrong | message |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


ORDER = list(dict.fromkeys(case.area for case in CASES))
