"""Figure: what was dropped, and why, in each domain?

The share of the sources' documents by the first reason that dropped them: filters, duplicates, size limits.
"""

from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "What was dropped, and why, in each domain?"
TABLES = {
    "data_drops": ("domain", "stage", "reason", "documents", "share"),
    "data_sources": ("domain", "documents_read"),
}
LIMITS = "A share of documents is not a share of text: documents that are too short hold little."
STAGES = {"clean": style.COLOURS[0], "sort": style.COLOURS[1], "cluster": style.ACCENT, "pack": style.COLOURS[2]}
NAMES = {
    "clean": "by a filter",
    "sort": "beyond the byte limit",
    "cluster": "as a duplicate",
    "pack": "beyond the token limit",
}


class Options(FigureOptions):
    """Limits of what one page can hold."""

    page: ClassVar[str] = "data"
    reads: ClassVar[str] = "card"
    max_reasons: int = Field(24, ge=1)
    """Largest number of reasons with a row: those with the most documents."""
    max_domains: int = Field(5, ge=1)
    """Largest number of domains with a panel: the first, the last, the one with most drops, then others spread
    evenly."""


def _choose_rows(tables: style.Tables, options: Any) -> tuple[list[str], list[str], list[tuple[str, str]], list[str]]:
    """Return the domains to draw, all domains, the (stage, reason) rows to draw, and all reasons."""
    drops = tables["data_drops"]
    domains = list(dict.fromkeys(tables["data_sources"]["domain"]))
    kept = choosing.choose_names(domains, options.max_domains, drops.groupby("domain")["documents"].sum().to_dict())
    sums = drops.groupby(["stage", "reason"])["documents"].sum()
    rows = sorted((key for key, documents in sums.items() if documents), key=lambda key: (-sums[key], key))
    shown = sorted(rows[: options.max_reasons], key=lambda key: (list(STAGES).index(key[0]), -sums[key], key[1]))
    return kept, domains, shown, [reason for _, reason in rows]


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which domain lost the largest share of its documents."""
    domains = _choose_rows(tables, options)[1]
    read = tables["data_sources"].groupby("domain")["documents_read"].sum()
    lost = tables["data_drops"].groupby("domain")["documents"].sum().reindex(domains, fill_value=0)
    if not lost.sum():
        return "No document was dropped"
    share = (lost / read.reindex(domains).clip(lower=1)).astype(float)
    most = str(share.idxmax())
    total = f"{lost.sum() / max(1, read.sum()):.1%} of the documents were dropped"
    return f"{total}, most in {style.plain_name(most)}: {share[most]:.1%}" if len(domains) > 1 else total


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per domain with a row per reason."""
    domains, _, rows, _ = _choose_rows(tables, options)
    if not rows:
        return style.message_figure("No document was dropped.")
    drops = tables["data_drops"]
    lines = len(domains) if style.is_narrow() else 1
    drawn = style.new_figure(0.85 + lines * 0.185 * (len(rows) + lines - 1))
    grid = drawn.subplots(lines, len(domains) // lines, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, domain in zip(grid, domains, strict=True):
        _draw_panel(axes, drops[drops["domain"] == domain], rows)
        axes.set_title(style.plain_name(domain), loc="left", weight="bold")
    most = float(drops["share"].max())
    # room for the counts right of the longest bar, and more of it where panels are narrow
    grid[0].set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, most * (1.15 + 0.15 * len(domains))))
    grid[0].set_yticks(range(len(rows)), [style.plain_name(reason) for _, reason in rows])
    grid[0].xaxis.set_major_formatter("{x:.0%}" if most >= 0.02 else "{x:.2%}")
    for axes in grid:
        axes.locator_params(axis="x", nbins=3)
    drawn.supxlabel("share of the documents read; the numbers count documents", fontsize=7.5)
    _add_legend(drawn, [stage for stage in STAGES if any(stage == row[0] for row in rows)])
    return drawn


def _draw_panel(axes: Axes, drops: pd.DataFrame, rows: list[tuple[str, str]]) -> None:
    """Draw one domain's bars, each with its count."""
    by_reason = drops.set_index(["stage", "reason"])
    for row, key in enumerate(rows):
        documents = int(by_reason["documents"].get(key, 0))
        share = float(by_reason["share"].get(key, 0.0))
        axes.barh(row, share, 0.66, color=STAGES[key[0]], linewidth=0)
        text = f"{documents:,}" if documents else "–"
        colour = style.INK if documents else style.FAINT
        axes.annotate(text, (share, row), (2.5, 0), textcoords="offset points", va="center", fontsize=6, color=colour)
    axes.tick_params(axis="y", length=0)


def _add_legend(drawn: Figure, stages: list[str]) -> None:
    """Add a legend of the stages above the panels."""
    handles = [Patch(color=STAGES[stage], linewidth=0) for stage in stages]
    texts = [NAMES[stage] for stage in stages]
    drawn.legend(
        handles,
        texts,
        loc="outside upper center",
        ncols=style.columns_of(3),
        frameon=False,
        fontsize=7,
        handlelength=1.2,
    )


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    domains, everything, rows, reasons = _choose_rows(tables, options)
    if not rows:
        return "No document of any domain was dropped: every text from the sources is in the splits."
    drops = tables["data_drops"]
    read = tables["data_sources"].groupby("domain")["documents_read"].sum()
    lost = drops.groupby("domain")["documents"].sum()
    dropped = ", ".join(
        f"{style.plain_name(domain)} {lost.get(domain, 0) / max(1, read[domain]):.1%} of {read[domain]:,}"
        for domain in everything
    )
    return (
        "Dropped documents, as a share of the documents from each domain’s sources, by the first reason that applied."
        " Filters run in the order of the study file, so a reason counts only what the earlier ones left, and another"
        f" order gives other counts. Dropped in total: {dropped}."
        + choosing.note_left_out((everything, domains), (reasons, [reason for _, reason in rows]))
    )
