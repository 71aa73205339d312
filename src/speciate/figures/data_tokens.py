"""Figure: how much text does each domain give, and how much of it is used for training?

Tokens in blocks, as packed, and the part of them that the mixture (or, for the other splits, the held-out set) uses.
"""

from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.config.stage import SPLITS
from speciate.figures import choosing, style

QUESTION = "How much text does each domain give, and how much of it is used for training?"
TABLES = {
    "data_domains": ("domain", "split", "tokens", "bytes_per_token", "blocks", "blocks_used", "tokens_used", "epochs")
}
LIMITS = (
    "Where the bytes per token differ, equal numbers of tokens are unequal amounts of text; and runs may train for"
    " different lengths, and so see different amounts of the mixture."
)
PACKED = "#C9CFE8"


class Options(FigureOptions):
    """Limits of what one page can hold."""

    page: ClassVar[str] = "data"
    reads: ClassVar[str] = "card"
    max_domains: int = Field(24, ge=1)
    """Largest number of domains drawn: the first, the last, the largest, then others spread evenly."""


def _choose_domains(tables: style.Tables, options: Any) -> tuple[list[str], list[str]]:
    """Return the domains to draw, and all domains."""
    table = tables["data_domains"]
    domains = list(dict.fromkeys(table["domain"]))
    weight = table.groupby("domain")["tokens"].sum().to_dict()
    return choosing.choose_names(domains, options.max_domains, weight), domains


def _packed_tokens(table: pd.DataFrame) -> pd.Series:
    """Return the tokens in all blocks; a split of which nothing is used has no block length, so its tokens count."""
    length = (table["tokens_used"] / table["blocks_used"].where(table["blocks_used"] > 0)).max()
    return table["blocks"] * length if pd.notna(length) else table["tokens"]


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return how many tokens the mixture has, and how unequal the domains were."""
    table = tables["data_domains"]
    train = table[table["split"] == "train"].set_index("domain")
    total = f"{_short_number(float(train['tokens_used'].sum()))} tokens are used for training"
    most, least = str(train["blocks"].idxmax()), str(train["blocks"].idxmin())
    if most == least:
        return total
    ratio = train["blocks"][most] / max(1, train["blocks"][least])
    return f"{total}; {style.plain_name(most)} has {ratio:.2f} times the text of {style.plain_name(least)}"


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per split, each with its own scale, and a row per domain."""
    domains, _ = _choose_domains(tables, options)
    if style.is_narrow():
        drawn = style.new_figure(0.75 + len(SPLITS) * (0.2 + 0.3 * len(domains)))
        grid = drawn.subplots(len(SPLITS), 1, sharey=True, squeeze=False).flatten()
    else:
        drawn = style.new_figure(0.75 + 0.3 * len(domains))
        grid = drawn.subplots(1, len(SPLITS), sharey=True, squeeze=False, width_ratios=(2.3, 1, 1, 1))[0]
    table = tables["data_domains"].assign(packed=_packed_tokens(tables["data_domains"]))
    for axes, split in zip(grid, SPLITS, strict=True):
        by_domain = table[table["split"] == split].set_index("domain").reindex(domains).fillna(0)
        _draw_panel(axes, by_domain, split == "train")
        axes.set_title({"train": "training text"}.get(split, split), loc="left", weight="bold")
    grid[0].set(ylim=(len(domains) - 0.4, -0.6))
    grid[0].set_yticks(range(len(domains)), [style.plain_name(domain) for domain in domains])
    text = "tokens in blocks; light: packed, dark: used in the mixture or the held-out set"
    drawn.supxlabel(text.replace("; ", ";\n") if style.is_narrow() else text, fontsize=7.5)
    return drawn


def _draw_panel(axes: Axes, by_domain: pd.DataFrame, train: bool) -> None:
    """Draw the bars of one split, labelled at their ends."""
    most = float(by_domain[["packed", "tokens_used"]].to_numpy().max()) or 1.0
    for row, (_, domain) in enumerate(by_domain.iterrows()):
        axes.barh(row, domain["packed"], 0.62, color=PACKED, linewidth=0)
        axes.barh(row, domain["tokens_used"], 0.26, color=style.COLOURS[0], linewidth=0)
        used = f"{domain['epochs']:.0%} used" if domain["epochs"] <= 1 else f"{domain['epochs']:.1f} times over"
        text = f"{_short_number(domain['packed'])}{', ' + used if train else ''}"
        end = max(domain["packed"], domain["tokens_used"])
        axes.annotate(text, (end, row), (3, 0), textcoords="offset points", va="center", fontsize=6.5)
    # room for the labels right of the longest bar
    axes.set(xlim=(0, most * (1.55 if train else 1.75)), xticks=[])
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)


def _short_number(tokens: float) -> str:
    """Format a number of tokens as '1.2 M', '340 k' or '900'."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if tokens >= 0.9995 * size:
            return f"{tokens / size:.3g}{unit}"
    return f"{tokens:.0f}"


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    table = tables["data_domains"]
    shown, domains = _choose_domains(tables, options)
    train = table[table["split"] == "train"].set_index("domain")
    most, least = str(train["blocks"].idxmax()), str(train["blocks"].idxmin())
    ratio = train["blocks"][most] / max(1, train["blocks"][least])
    apart = (
        f" {style.plain_name(most).capitalize()} has {ratio:.2f} times the training tokens of"
        f" {style.plain_name(least)}."
        if most != least
        else ""
    )
    again = [str(domain) for domain, epochs in train["epochs"].items() if epochs > 1]
    repeated = (
        f" In the mixture more than once: {style.join_names(again)}."
        if again
        else " No domain’s text is in the mixture more than once."
    )
    total = f"{_short_number(float(train['tokens_used'].sum()))} tokens"
    rates = ", ".join(f"{style.plain_name(str(name))} {rate:.2f}" for name, rate in train["bytes_per_token"].items())
    return (
        "Tokens of each domain and split, in blocks, before balancing (light) and as used (dark); each panel has its"
        f" own scale. The mixture has {total}.{apart}{repeated} Bytes per token: {rates}."
        + choosing.note_left_out((domains, shown))
    )
