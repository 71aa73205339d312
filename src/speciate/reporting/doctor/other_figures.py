"""Draw two records beside each other, and what training logs say."""

import numpy as np
from matplotlib.figure import Figure

from speciate.figures import style
from speciate.reporting.doctor.drawing import (
    Drawing,
    Tables,
    arms,
    height_of,
    label_layers,
    layer_names,
    panels_of,
    rows_of,
    shorten,
)
from speciate.reporting.formats import format_number, format_percent, join_names, pluralise


def agreement(tables: Tables, seed: int) -> Drawing | None:
    """Draw how much two records agree, and how far their loads are apart beside two halves of one record."""
    rows = rows_of(tables, "agreement", "overlap")
    if rows is None:
        return None
    least = rows.loc[rows["overlap"].idxmin()]
    finding = (
        f"The two choose {format_percent(rows['overlap'].mean())} of the same experts; they differ most in layer"
        f" {layer_names(rows)[int(least.name)]} ({format_percent(least['overlap'])})"
    )

    def draw() -> Figure:
        figure, panels = panels_of(2, height_of(len(rows), 1.9))
        y = np.arange(len(rows))
        for column, marker, colour, label in (
            ("overlap", "o", style.INK, "experts in common"),
            ("same_first", "s", style.COLOURS[0], "same first choice"),
            ("kappa", "D", style.COLOURS[1], "beyond what loads give (kappa)"),
        ):
            if column in rows and rows[column].notna().any():
                panels[0].plot(rows[column], y, marker, mfc="none", color=colour, label=label)
        panels[0].set(xlabel="share of tokens or choices; 1: identical", xlim=(min(0, panels[0].get_xlim()[0]), 1.02))
        known = rows["divergence_bits"].to_numpy(dtype=float)
        ends = [rows[f"divergence_{end}"].to_numpy(dtype=float) for end in ("low", "high")]
        panels[1].barh(y, rows["null_bits"], height=0.72, color=style.HAIR, label="two halves of one record")
        panels[1].errorbar(
            known,
            y,
            xerr=arms(known, *ends),
            fmt="o",
            color=style.INK,
            label="the two records",
        )
        panels[1].set(xlabel="divergence of the loads, bits")
        for axes in panels:
            label_layers(axes, layer_names(rows))
            axes.set_ylabel("layer")
            axes.legend(frameon=False, fontsize=6.5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        return figure

    return Drawing(
        "agreement",
        "Do the two records choose the same experts?",
        finding,
        "Left: agreement token by token. Right: Jensen-Shannon divergence of the loads, with its interval over"
        " documents, beside that of two halves of one record.",
        "whether the change matters for the loss.",
        draw,
    )


def flips(tables: Tables, seed: int) -> Drawing | None:
    """Draw the share of tokens whose choice differs, by how close the choice was."""
    rows = rows_of(tables, "flips", "margin", "flipped", "tokens")
    if rows is None or not rows["tokens"].sum():
        return None
    total = rows.assign(changed=rows["flipped"] * rows["tokens"]).groupby("margin")[["changed", "tokens"]].sum()
    share = total["changed"] / total["tokens"]
    overall = total["changed"].sum() / total["tokens"].sum()
    finding = f"{format_percent(overall)} of the choices differ; of the closest ones {format_percent(share.iloc[0])} do"

    def draw() -> Figure:
        figure = style.new_figure(2.3)
        axes = figure.subplots()
        for _, layer in rows.groupby("path", sort=False):
            axes.plot(layer["margin"], layer["flipped"], color=style.FAINT, lw=0.7)
        axes.plot(share.index, share, color=style.INK, marker="o", label="all layers")
        axes.set(xlabel="margin in the first record, logits (upper end of the bin)", ylabel="share that differ")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return figure

    return Drawing(
        "flips",
        "Are the choices that differ close calls?",
        finding,
        "Grey: layers. A margin is the logit of the last chosen expert minus that of the best one not chosen. Noise of"
        " numerics changes close calls only; another router changes others too.",
        "which of the two is right.",
        draw,
    )


METRICS = {
    "max_vio": "MaxVio",
    "effective_share": "effective experts as a share of all",
    "cv": "coefficient of variation of the load",
    "dead_share": "share of experts without tokens",
    "unevenness": "unevenness of the load",
}
"""Metric of the training logs -> what the page calls it; any other keeps its name."""


def _named(metric: object) -> str:
    return METRICS.get(str(metric), str(metric))


def training(tables: Tables, seed: int) -> Drawing | None:
    """Draw what training logs say, on one definition."""
    rows = rows_of(tables, "training", "step", "value")
    if rows is None:
        return None
    # the largest share first, as the verdict rests on it
    metrics = sorted(dict.fromkeys(rows["metric"]), key=lambda metric: metric != "max_vio")[:4]
    last = rows[rows["metric"] == metrics[0]].sort_values("step").groupby(["source", "layer"])["value"].last()
    finding = (
        f"{style.sentence(_named(metrics[0]))} ends at {format_number(float(last.median()))} in the median of"
        f" {pluralise(len(last), 'layer')}"
    )

    def draw() -> Figure:
        figure, panels = panels_of(len(metrics), 2.2)
        for axes, metric in zip(panels, metrics, strict=True):
            sources = list(rows[rows["metric"] == metric].groupby("source", sort=False))
            for place, (source, of_source) in enumerate(sources):
                colour = style.COLOURS[place % len(style.COLOURS)]
                for _, line in of_source.groupby("layer"):
                    axes.plot(line["step"], line["value"], color=colour, lw=0.5, alpha=0.5)
                middle = of_source.groupby("step")["value"].median()
                axes.plot(middle.index, middle, color=colour, label=shorten(str(source)))
            axes.set_title(shorten(_named(metric), 40), loc="left")
            axes.set_xlabel("step")
            if len(sources) > 1:
                axes.legend(frameon=False)
        return figure

    return Drawing(
        "training",
        "What do the training logs say?",
        finding,
        f"Thin: layers; thick: their median. Converted to one definition of {join_names(map(_named, metrics))}.",
        "why it changed; the logs have no texts.",
        draw,
    )
