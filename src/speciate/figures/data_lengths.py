"""Figure: how long are the documents of each domain, and do the splits agree?

Documents are counted by octave of their length (2^b to 2^(b+1) - 1 tokens), as shares of each split's documents.
"""

from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.config.stage import SPLITS
from speciate.figures import choosing, style

QUESTION = "How long are the documents of each domain, and do the splits agree?"
TABLES = {
    "data_lengths": ("domain", "split", "unit", "low", "high", "documents"),
    "data_domains": ("domain", "blocks_used", "tokens_used"),
}
LIMITS = "Documents are counted, not tokens: a few long documents can hold most of a domain’s text."
HELD_OUT = SPLITS[1:]
BAR = "#C9CFE8"


class Options(FigureOptions):
    """Limits of what one page can hold."""

    page: ClassVar[str] = "data"
    reads: ClassVar[str] = "card"
    max_domains: int = Field(12, ge=1)
    """Largest number of domains with a panel: the first, the last, the one with most documents, then others spread
    evenly."""


def _token_rows(tables: style.Tables) -> pd.DataFrame:
    lengths = tables["data_lengths"]
    return lengths[lengths["unit"] == "tokens"]


def _choose_domains(tables: style.Tables, options: Any) -> tuple[list[str], list[str]]:
    """Return the domains to draw, and all domains."""
    lengths = _token_rows(tables)
    domains = list(dict.fromkeys(lengths["domain"]))
    return choosing.choose_names(
        domains, options.max_domains, lengths.groupby("domain")["documents"].sum().to_dict()
    ), domains


def _block_length(tables: style.Tables) -> float:
    """Return the number of tokens in a block; NaN where nothing is used."""
    used = tables["data_domains"]
    used = used[used["blocks_used"] > 0]
    return float((used["tokens_used"] / used["blocks_used"]).max())


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which domain has the longest and which the shortest documents, by their median octave."""
    lengths = _token_rows(tables)
    train = lengths[lengths["split"] == "train"].sort_values("low")
    medians = {}
    for domain, rows in train.groupby("domain", sort=False):
        medians[str(domain)] = rows[rows["documents"].cumsum() >= rows["documents"].sum() / 2].iloc[0]
    if not medians:
        return ""
    longest, shortest = (choose(medians, key=lambda name: medians[name]["low"]) for choose in (max, min))

    def octave(domain: str) -> str:
        return f"{medians[domain]['low']} to {medians[domain]['high']} tokens"

    if medians[longest]["low"] == medians[shortest]["low"]:
        return f"The median document has {octave(longest)} in every domain"
    return (
        f"The median document has {octave(shortest)} in {style.plain_name(shortest)}, and {octave(longest)} in"
        f" {style.plain_name(longest)}"
    )


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per domain: bars for the training text, and a mark per octave and held-out split."""
    domains, _ = _choose_domains(tables, options)
    if not domains:
        return style.message_figure("No document has been encoded.")
    lengths = _token_rows(tables)
    columns = style.columns_of(min(3, len(domains)))
    rows = -(-len(domains) // columns)
    drawn = style.new_figure(0.5 + 1.35 * rows)
    grid = drawn.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(domains) :]:
        axes.set_axis_off()
    for axes, domain in zip(grid.flat, domains, strict=False):
        _draw_panel(axes, lengths[lengths["domain"] == domain], _block_length(tables))
        axes.set_title(style.plain_name(domain), loc="left", weight="bold")
    first, last = int(lengths["low"].min()), int(lengths["high"].max()) + 1
    octaves = [2**power for power in range(first.bit_length() - 1, last.bit_length())]
    ticks = octaves[:: -(-len(octaves) // 7)]
    grid[0, 0].set_xscale("log", base=2)
    grid[0, 0].set(xlim=(first, last))
    grid[0, 0].set_xticks(ticks, [_short_number(tick) for tick in ticks])
    grid[0, 0].yaxis.set_major_formatter("{x:.0%}")
    drawn.supxlabel("tokens in a document", fontsize=7.5)
    drawn.supylabel("share of documents", fontsize=7.5)
    _add_legend(drawn)
    return drawn


def _draw_panel(axes: Axes, lengths: pd.DataFrame, block: float) -> None:
    for split, group in lengths.groupby("split"):
        share = group["documents"] / group["documents"].sum()
        if split == "train":
            axes.bar(group["low"], share, group["low"], align="edge", color=BAR, edgecolor="white", linewidth=0.4)
            continue
        index = HELD_OUT.index(str(split))
        # side by side inside the octave, so that equal shares do not hide each other
        lengths_in_octave = group["low"] * 2 ** (0.3 + 0.2 * index)
        axes.plot(
            lengths_in_octave, share, style.MARKERS[index], color=style.COLOURS[index], markersize=2.6, linewidth=0
        )
    if block == block:
        axes.axvline(block, color=style.INK, linewidth=0.6, linestyle=(0, (4, 3)))


def _add_legend(drawn: Figure) -> None:
    """Add a legend of bars and marks above the panels."""
    handles: list[Any] = [Patch(color=BAR, linewidth=0)]
    handles += [
        Line2D([], [], color=style.COLOURS[index], marker=style.MARKERS[index], markersize=3, linewidth=0)
        for index in range(len(HELD_OUT))
    ]
    handles.append(Line2D([], [], color=style.INK, linewidth=0.6, linestyle=(0, (4, 3))))
    texts = ["training text", *HELD_OUT, "block length"]
    drawn.legend(
        handles,
        texts,
        loc="outside upper center",
        ncols=style.columns_of(5),
        frameon=False,
        fontsize=7,
        handlelength=1.6,
    )


def _short_number(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    lengths = _token_rows(tables)
    if lengths.empty:
        return "No document has been encoded, so there are no lengths to show."
    shown, domains = _choose_domains(tables, options)
    train = lengths[lengths["split"] == "train"]
    block = _block_length(tables)
    medians = []
    for domain in domains:
        lengths_of_domain = train[train["domain"] == domain].sort_values("low")
        if lengths_of_domain.empty:
            continue
        documents = lengths_of_domain["documents"]
        middle = lengths_of_domain[documents.cumsum() >= documents.sum() / 2].iloc[0]
        # only octaves wholly above the block length count, so that the share is not overstated
        longer = documents[lengths_of_domain["low"] > block].sum() / documents.sum()
        beyond = f", at least {longer:.0%} longer than a block" if block == block else ""
        medians.append(f"{style.plain_name(domain)} {middle['low']} to {middle['high']}{beyond}")
    return (
        "Length of the documents in tokens, without the end-of-text token, on a scale of octaves. Bars: training text;"
        " marks: the held-out splits, which scatter because they have few documents. The octave of the median training"
        f" document: {'; '.join(medians)}." + choosing.note_left_out((domains, shown))
    )
