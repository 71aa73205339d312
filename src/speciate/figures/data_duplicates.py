"""Figure: how many documents occur more than once, and how often?

Clusters of equal texts, and of similar ones (Jaccard similarity of word runs), by the number of documents in them.
"""

from typing import Any, ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "How many documents occur more than once, and how often?"
TABLES = {"data_duplicates": ("scope", "reason", "size", "clusters")}
LIMITS = (
    "A cluster is not what was dropped, since a document is dropped only if it equals, or is similar to, one that is"
    " kept; and documents that quote a little of each other are in no cluster."
)
REASONS = {"exact_duplicate": style.COLOURS[0], "near_duplicate": style.ACCENT}
NAMES = {"exact_duplicate": "all texts equal", "near_duplicate": "some texts only similar"}


class Options(FigureOptions):
    """Limits of what one page can hold."""

    page: ClassVar[str] = "data"
    reads: ClassVar[str] = "card"
    max_scopes: int = Field(6, ge=1)
    """Largest number of panels: the first and last scope, the one with most clusters, then others spread evenly."""


def _count_by_octave(table: pd.DataFrame) -> pd.DataFrame:
    """Count the clusters by scope, reason and octave of size: 2 to 3, 4 to 7, 8 to 15, ... documents."""
    octave = table["size"].map(lambda size: int(size).bit_length() - 1)
    return table.assign(octave=octave).groupby(["scope", "reason", "octave"], as_index=False)["clusters"].sum()


def _choose_scopes(tables: style.Tables, options: Any) -> tuple[list[str], list[str]]:
    """Return the scopes to draw, and all scopes that have a cluster."""
    table = tables["data_duplicates"]
    scopes = list(dict.fromkeys(table["scope"]))
    return choosing.choose_names(scopes, options.max_scopes, table.groupby("scope")["clusters"].sum().to_dict()), scopes


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return how many clusters of duplicates there are, and the size of the largest."""
    table = tables["data_duplicates"]
    if table.empty:
        return "No two documents are duplicates"
    within = table[table["scope"] != "domains"]
    within = within if len(within) else table
    number, largest = int(within["clusters"].sum()), int(within["size"].max())
    return f"{number:,} clusters of duplicates; the largest has {largest:,} documents"


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per scope, with a row per octave of sizes and a bar per reason, next to the number of clusters."""
    scopes, _ = _choose_scopes(tables, options)
    if not scopes:
        return style.message_figure("No two documents that were compared are the same or nearly the same.")
    clusters = _count_by_octave(tables["data_duplicates"])
    octaves = range(1, int(clusters["octave"].max()) + 1)
    reasons = [reason for reason in REASONS if (clusters["reason"] == reason).any()]
    columns = min(style.columns_of(3), len(scopes))
    lines = -(-len(scopes) // columns)
    drawn = style.new_figure(0.8 + lines * (0.35 + 0.28 * len(octaves)))
    grid = drawn.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(scopes) :]:
        axes.set_axis_off()
    for axes, scope in zip(grid.flat, scopes, strict=False):
        _draw_panel(axes, clusters[clusters["scope"] == scope], octaves, reasons)
        title = "all domains together" if scope == "domains" else style.plain_name(scope)
        axes.set_title(title, loc="left", weight="bold")
    labels = [f"{2**octave} to {2 ** (octave + 1) - 1}" for octave in octaves]
    grid[0, 0].set_yticks(list(octaves), labels)
    # room for the counts right of the longest bar
    grid[0, 0].set(ylim=(len(octaves) + 0.6, 0.4), xlim=(0, 1.25 * float(clusters["clusters"].max())), xticks=[])
    drawn.supylabel("documents in a cluster", fontsize=7.5)
    drawn.supxlabel("clusters", fontsize=7.5)
    _add_legend(drawn, reasons)
    return drawn


def _draw_panel(axes: Axes, clusters_of_scope: pd.DataFrame, octaves: range, reasons: list[str]) -> None:
    counts = clusters_of_scope.set_index(["reason", "octave"])["clusters"]
    for index, reason in enumerate(reasons):
        for octave in octaves:
            clusters = int(counts.get((reason, octave), 0))
            if clusters:
                y = octave + 0.36 * (index - (len(reasons) - 1) / 2)
                axes.barh(y, clusters, 0.32, color=REASONS[reason], linewidth=0)
                axes.annotate(
                    f"{clusters:,}", (clusters, y), (2.5, 0), textcoords="offset points", va="center", fontsize=6
                )
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)


def _add_legend(drawn: Figure, reasons: list[str]) -> None:
    """Add a legend of the two kinds of clusters above the panels."""
    handles = [Patch(color=REASONS[reason], linewidth=0) for reason in reasons]
    texts = [NAMES[reason] for reason in reasons]
    drawn.legend(handles, texts, loc="outside upper center", ncols=2, frameon=False, fontsize=7, handlelength=1.2)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    scopes, everything = _choose_scopes(tables, options)
    table = tables["data_duplicates"]
    if not scopes:
        return (
            "No two of the documents that were compared are duplicates of each other. The search finds only what the"
            " study file asks for: equal texts, or similar ones too where a domain’s duplicates are set to near. A"
            " domain set to keep is compared but loses nothing."
        )
    counts = []
    for scope in everything:
        clusters = table[table["scope"] == scope]
        documents = int((clusters["size"] * clusters["clusters"]).sum())
        name = "all domains together" if scope == "domains" else style.plain_name(scope)
        num_clusters, largest = int(clusters["clusters"].sum()), clusters["size"].max()
        counts.append(f"{name} {num_clusters:,} with {documents:,} documents, the largest with {largest:,}")
    return (
        "Clusters of documents that are equal or similar, by the number of documents in a cluster. Similar documents"
        f" are joined in chains of pairs above the study’s similarity. Clusters: {'; '.join(counts)}. A cluster is not"
        " what was dropped: a chain of similar texts may keep several documents, and a domain whose duplicates are kept"
        " loses none. The overlaps show documents that quote a little of each other."
        + choosing.note_left_out((everything, scopes))
    )
