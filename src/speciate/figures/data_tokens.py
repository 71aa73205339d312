"""How much text does each domain give, and how much of it is trained on?

Tokens in blocks, as packed, and those of them that the mixture uses (the held-out sets, for the other splits).
"""

from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import style

QUESTION = "How much text does each domain give, and how much of it is trained on?"
TABLES = {
    "data_domains": ("domain", "split", "tokens", "bytes_per_token", "blocks", "blocks_used", "tokens_used", "epochs")
}
SPLITS = ("train", "validation", "test", "probe")
PACKED = "#C9CFE8"


class Options(FigureOptions):
    """How much one page takes."""

    page: ClassVar[str] = "data"
    reads: ClassVar[str] = "card"
    max_domains: int = Field(24, ge=1)
    """Domains drawn at most: the first and the last, the largest, then others spread over the list."""


def _choose_domains(tables: style.Tables, options: Any) -> tuple[list[str], list[str]]:
    """The domains that are shown, and all of them."""
    table = tables["data_domains"]
    domains = list(dict.fromkeys(table["domain"]))
    weight = table.groupby("domain")["tokens"].sum().to_dict()
    return style.choose_names(domains, options.max_domains, weight), domains


def _packed_tokens(table: pd.DataFrame) -> pd.Series:
    """Tokens in all blocks. A split of which nothing is used has no block length; its tokens stand in."""
    length = (table["tokens_used"] / table["blocks_used"].where(table["blocks_used"] > 0)).max()
    return table["blocks"] * length if pd.notna(length) else table["tokens"]


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """A panel a split, each with its own scale; a row a domain."""
    domains, _ = _choose_domains(tables, options)
    drawn = style.new_figure(0.75 + 0.3 * len(domains))
    grid = drawn.subplots(1, len(SPLITS), sharey=True, squeeze=False, width_ratios=(2.3, 1, 1, 1))[0]
    table = tables["data_domains"].assign(packed=_packed_tokens(tables["data_domains"]))
    for axes, split in zip(grid, SPLITS, strict=True):
        mine = table[table["split"] == split].set_index("domain").reindex(domains).fillna(0)
        _draw_panel(axes, mine, split == "train")
        axes.set_title({"train": "training text"}.get(split, split), loc="left", weight="bold")
    grid[0].set(ylim=(len(domains) - 0.4, -0.6))
    grid[0].set_yticks(range(len(domains)), [style.plain_name(domain) for domain in domains])
    drawn.supxlabel("tokens in blocks: light, packed; dark, used in the mixture or the held-out set", fontsize=7.5)
    return drawn


def _draw_panel(axes: Axes, mine: pd.DataFrame, train: bool) -> None:
    """The bars of one split, labelled at their ends."""
    most = float(mine[["packed", "tokens_used"]].to_numpy().max()) or 1.0
    for row, (_, domain) in enumerate(mine.iterrows()):
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
    """'1.2 M', '340 k', '900'."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if tokens >= 0.9995 * size:
            return f"{tokens / size:.3g}{unit}"
    return f"{tokens:.0f}"


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """What is seen and what is not."""
    table = tables["data_domains"]
    shown, domains = _choose_domains(tables, options)
    train = table[table["split"] == "train"].set_index("domain")
    most, least = str(train["blocks"].idxmax()), str(train["blocks"].idxmin())
    ratio = train["blocks"][most] / max(1, train["blocks"][least])
    apart = (
        f" {style.plain_name(most).capitalize()} has {ratio:.2f} times the training tokens of {style.plain_name(least)}."
        if most != least
        else ""
    )
    again = [str(domain) for domain, epochs in train["epochs"].items() if epochs > 1]
    repeated = (
        f" Trained on more than once: {style.join_names(again)}."
        if again
        else " No domain's text is in the mixture more than once."
    )
    total = f"{_short_number(float(train['tokens_used'].sum()))} tokens"
    rates = ", ".join(f"{style.plain_name(str(name))} {rate:.2f}" for name, rate in train["bytes_per_token"].items())
    return (
        "Tokens of each domain and split, in blocks, before balancing (light) and as used (dark); each panel has its"
        f" own scale. The mixture has {total}.{apart}{repeated} Bytes a token: {rates}; where they differ, equal tokens"
        " are unequal amounts of text. How long the training goes on, and so how much of the mixture a run sees, is"
        " each run's own." + style.note_left_out((domains, shown))
    )
