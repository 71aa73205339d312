"""Draw what each layer does: its load, what its choice tells, and how far its probabilities are from even."""

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from speciate.figures import style
from speciate.reporting.doctor.drawing import (
    ALPHA,
    LEVELS,
    Drawing,
    Tables,
    arms,
    height_of,
    label_layers,
    layer_names,
    panels_of,
    rows_of,
)
from speciate.reporting.formats import format_number, format_percent, pluralise


def collapse(tables: Tables, seed: int) -> Drawing | None:
    """Draw each layer's largest share with its interval, beside the even share, the noise floor and the limit."""
    rows = rows_of(tables, "layers", "max_share", "num_slots")
    if rows is None:
        return None
    over = rows[rows["state"] == "collapsed"]
    worst = rows.loc[(rows["max_share"] * rows["num_slots"]).idxmax()]
    tops = f"one expert of layer {layer_names(rows)[int(worst.name)]} takes {format_percent(worst['max_share'])}"
    finding = (
        f"{pluralise(len(over), 'layer')} of {len(rows)} {'has' if len(over) == 1 else 'have'} collapsed; {tops}"
        if len(over)
        else f"No layer has collapsed; at most, {tops} of its choices"
    )

    def draw() -> Figure:
        figure = style.new_figure(height_of(len(rows)))
        axes = figure.subplots()
        y = np.arange(len(rows))
        even = 1 / rows["num_slots"].to_numpy(dtype=float)
        floor = even * (1 + rows["noise_floor"].to_numpy(dtype=float))
        axes.barh(y, floor, height=0.72, color=style.HAIR, label="even router, with its noise")
        axes.plot(rows["max_share_limit"], y, "|", ms=9, mew=1.6, color=style.ACCENT, label="limit of collapse")
        centre, low, high = (rows[f"max_share{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
        axes.errorbar(
            centre,
            y,
            xerr=arms(centre, low, high),
            fmt="o",
            color=style.INK,
            lw=1.1,
            label="largest share",
        )
        axes.set(xlabel="share of the choices that the most used expert takes", ylabel="layer", xlim=(0, None))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        label_layers(axes, layer_names(rows))
        figure.legend(loc="outside upper left", ncols=1 if style.is_narrow() else 3, frameon=False)
        return figure

    return Drawing(
        "collapse",
        "Has a layer collapsed?",
        finding,
        "Points: largest share of each layer, with its interval over documents. Grey: what an even router would show"
        " with as many decisions. The mark is the limit beyond which the layer is called collapsed.",
        "loads on other texts and in training batches, which may differ.",
        draw,
    )


def load(tables: Tables, seed: int) -> Drawing | None:
    """Draw the load of every expert beside that of an even router with as many decisions."""
    experts = rows_of(tables, "experts", "share")
    layers = rows_of(tables, "layers", "decisions", "num_chosen", "max_vio", "noise_floor")
    if experts is None or layers is None:
        return None
    keys = ["path", "phase"]
    named = list(zip(layers["path"], layers["phase"], strict=True))
    shares = {key: rows.sort_values("expert")["share"].to_numpy() for key, rows in experts.groupby(keys, sort=False)}
    layers = layers[[key in shares for key in named]].reset_index(drop=True)
    named = [key for key in named if key in shares]
    if not named:
        return None
    width = max(len(shares[key]) for key in named)
    rng = np.random.default_rng(seed)
    measured, twin = np.full((len(named), width), np.nan), np.full((len(named), width), np.nan)
    for row, (key, decisions, chosen) in enumerate(zip(named, layers["decisions"], layers["num_chosen"], strict=True)):
        count = len(shares[key])
        choices = max(1, round(decisions * chosen))
        drawn = rng.multinomial(choices, np.full(count, 1 / count)) / choices
        measured[row, :count] = np.sort(shares[key])[::-1] * count
        twin[row, :count] = np.sort(drawn)[::-1] * count
    above = int((layers["max_vio"] > layers["noise_floor"]).sum())
    dead = int(layers["dead_experts"].sum()) if "dead_experts" in layers else 0
    finding = (
        f"The load is more uneven than chance in {above} of {pluralise(len(layers), 'layer')}"
        if above
        else "The load is as even as chance allows in every layer"
    )
    finding += f", and no token chose {pluralise(dead, 'expert')}" if dead else ""

    def draw() -> Figure:
        figure, panels = panels_of(2, height_of(len(named)))
        for axes, values, title in zip(
            panels, (measured, twin), ("this model", "an even router with as many decisions"), strict=True
        ):
            with np.errstate(divide="ignore"):
                levels = np.clip(np.log2(values), -LEVELS, LEVELS)
            image = axes.imshow(
                levels, aspect="auto", cmap="PuOr_r", norm=TwoSlopeNorm(0, -LEVELS, LEVELS), interpolation="nearest"
            )
            axes.set_title(title, loc="left")
            axes.set(xlabel="experts of the layer, the most used first", ylabel="layer")
            axes.set_xticks([])
            label_layers(axes, layer_names(layers))
        bar = figure.colorbar(image, ax=panels, ticks=[-3, -2, -1, 0, 1, 2, 3], shrink=0.9, pad=0.01)
        bar.ax.set_yticklabels(["≤ 1/8", "1/4", "1/2", "even", "2", "4", "≥ 8"])
        return figure

    return Drawing(
        "load",
        "Is the load even?",
        finding,
        "Each row is a layer, each cell an expert, sorted by load. The colour is the load over an even one. Beside it"
        " is one draw of an even router with as many decisions, in the same colours.",
        "which expert is which; the table of experts has their numbers, with intervals. The twin takes tokens as"
        " independent, and tokens of one document are not.",
        draw,
    )


def information(tables: Tables, seed: int) -> Drawing | None:
    """Draw what each layer's choice tells of the label, beside chance, the tokens and routers that never learned."""
    rows = rows_of(tables, "layers", "excess_bits")
    if rows is None:
        return None
    q = rows["q_value"] if "q_value" in rows else pd.Series(np.nan, index=rows.index)
    telling = rows[q < ALPHA]
    best = rows.loc[rows["excess_bits"].idxmax()]
    place = f"layer {layer_names(rows)[int(best.name)]}"
    finding = (
        f"The choice tells the label in {len(telling)} of {pluralise(len(rows), 'layer')}, most in {place}"
        f" ({format_number(best['excess_bits'])} bits beyond chance)"
        if len(telling)
        else "In no layer does the choice tell the label by more than chance"
    )

    def draw() -> Figure:
        figure = style.new_figure(height_of(len(rows)))
        axes = figure.subplots()
        y = np.arange(len(rows))
        band = np.maximum(0, (rows["null_high_bits"] - rows["null_mean_bits"]).to_numpy(dtype=float))
        axes.barh(y, band, height=0.72, color=style.HAIR, label="chance: labels permuted")
        centre, low, high = (rows[f"excess{end}_bits"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
        axes.errorbar(
            centre,
            y,
            xerr=arms(centre, low, high),
            fmt="o",
            color=style.INK,
            lw=1.1,
            label="the choice",
        )
        for column, marker, colour, label in (
            ("shadow_bits", "D", style.COLOURS[3], "routers that never learned"),
            ("token_explained_bits", "s", style.COLOURS[1], "explained by the tokens"),
        ):
            if column in rows and rows[column].notna().any():
                axes.plot(rows[column], y, marker, mfc="none", color=colour, label=label)
        axes.set(xlabel="bits about the label, beyond what chance gives", ylabel="layer")
        label_layers(axes, layer_names(rows))
        figure.legend(loc="outside upper left", ncols=1 if style.is_narrow() else 4, frameon=False)
        return figure

    return Drawing(
        "information",
        "Does the choice tell your labels apart?",
        finding,
        "Points: mutual information of expert and label minus its mean under permuted labels, with its interval over"
        " documents. Grey: where chance stays. Open marks: what the tokens’ identity explains, and what routers reach"
        " that were never trained, on the same hidden states.",
        "whether the model needs the experts for the label; only a knock-out tells.",
        draw,
    )


def commitment(tables: Tables, seed: int) -> Drawing | None:
    """Draw commitment as drift and information, where the record has probabilities."""
    rows = rows_of(tables, "layers", "drift_nats", "information_nats")
    if rows is None:
        return None
    drift, told = rows["drift_nats"].sum(), rows["information_nats"].sum()
    share = told / (drift + told) if drift + told > 0 else 0.0
    finding = (
        f"{format_percent(share, 0)} of the routers’ commitment depends on the token; the rest is the same for all"
    )

    def draw() -> Figure:
        figure = style.new_figure(height_of(len(rows)))
        axes = figure.subplots()
        y = np.arange(len(rows))
        axes.barh(y, rows["drift_nats"], color=style.COLOURS[1], label="drift: the same for every token")
        axes.barh(
            y,
            rows["information_nats"],
            left=rows["drift_nats"],
            color=style.COLOURS[0],
            hatch="///",
            edgecolor=style.PAPER,
            label="information: depends on the token",
        )
        axes.set(xlabel="nats from an even router, which has 0", ylabel="layer")
        label_layers(axes, layer_names(rows))
        figure.legend(loc="outside upper left", ncols=1 if style.is_narrow() else 2, frameon=False)
        return figure

    return Drawing(
        "commitment",
        "How far are the probabilities from an even router’s?",
        finding,
        "Mean KL divergence of the probabilities from an even router’s, split into a preference that is the same for"
        " every token and the rest. An even router stands at zero.",
        "what the information is about: a router may tell tokens apart and no label.",
        draw,
    )
