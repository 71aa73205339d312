"""Draw what single experts do: which labels prefer them, which are chosen together, and which are needed."""

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
    layer_names,
    panels_of,
    rows_of,
    shorten,
)
from speciate.reporting.formats import format_number, pluralise

MOST_ROWS = 24
"""Experts in a panel of lifts; those with the largest lift of the layer are shown."""


def lift(tables: Tables, seed: int) -> Drawing | None:
    """Draw the lifts of the layer that tells most, beside those with shuffled labels."""
    rows = rows_of(tables, "lifts", "lift")
    if rows is None or "placebo_lift" not in rows:
        return None
    chosen = _layer_to_show(tables, rows)
    rows = rows[(rows["path"] == chosen[0]) & (rows["phase"] == chosen[1])]
    labels = list(dict.fromkeys(rows["label"]))
    strongest = rows.assign(size=np.abs(np.log2(rows["lift"].clip(2.0**-LEVELS, 2.0**LEVELS))))
    keep = strongest.groupby("expert")["size"].max().sort_values(ascending=False).index[:MOST_ROWS]
    grids = {
        column: rows.pivot_table(index="expert", columns="label", values=column, sort=False, dropna=False)
        .reindex(index=sorted(keep), columns=labels)
        .to_numpy(dtype=float)
        for column in ("lift", "placebo_lift", "shadow_lift", "q_value")
        if column in rows and rows[column].notna().any()
    }
    passed = rows[rows["q_value"] < ALPHA] if "q_value" in rows else rows.iloc[:0]
    layer = f"layer {layer_names(rows)[0]}"
    if len(passed):
        top = passed.loc[passed["lift"].idxmax()]
        finding = (
            f"In {layer}, {pluralise(len(passed), 'pair')} of expert and label differ from chance; the largest lift is"
            f" expert {top['expert']} in {top['label']}: {format_number(top['lift'], 2)}"
        )
    else:
        finding = f"In {layer}, no expert prefers a label by more than chance"
    titles = {"lift": "this model", "placebo_lift": "labels shuffled", "shadow_lift": "never trained, most extreme"}
    shown = [column for column in titles if column in grids]

    def draw() -> Figure:
        depth = min(len(keep), MOST_ROWS)
        figure, panels = panels_of(len(shown), height_of(depth, 1.9))
        for axes, column in zip(panels, shown, strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                levels = np.clip(np.log2(grids[column]), -LEVELS / 2, LEVELS / 2)
            image = axes.imshow(
                levels,
                aspect="auto",
                cmap="PuOr_r",
                norm=TwoSlopeNorm(0, -LEVELS / 2, LEVELS / 2),
                interpolation="nearest",
            )
            if column == "lift" and "q_value" in grids:
                y, x = np.nonzero(grids["q_value"] < ALPHA)
                axes.plot(x, y, "o", ms=2.2, color=style.ON_LIGHT, mec=style.ON_DARK, mew=0.4)
            axes.set_title(titles[column], loc="left")
            axes.set_xticks(range(len(labels)), [shorten(str(label), 16) for label in labels], rotation=45, ha="right")
            axes.set_yticks(range(len(keep)), [str(expert) for expert in sorted(keep)])
            axes.set_ylabel("expert")
        bar = figure.colorbar(image, ax=panels, ticks=[-1, 0, 1], shrink=0.9, pad=0.01)
        bar.ax.set_yticklabels(["half", "as much", "twice"])
        return figure

    left = f" The {MOST_ROWS} experts with the largest lifts are shown." if rows["expert"].nunique() > MOST_ROWS else ""
    return Drawing(
        "lift",
        "Which expert prefers which label?",
        finding,
        f"The share of an expert among texts of a label, over the mean of the labels, in {layer}, the one whose choice"
        f" tells most. A dot: q < {ALPHA}. Beside it the same with the documents’ labels shuffled.{left}",
        "other layers, which are in the table; and whether an expert does anything special for the label.",
        draw,
    )


def _layer_to_show(tables: Tables, rows: pd.DataFrame) -> tuple[str, str]:
    """Return path and phase of the layer with lifts that tells most, or of the first."""
    known = set(zip(rows["path"], rows["phase"], strict=True))
    layers = rows_of(tables, "layers", "excess_bits")
    if layers is not None:
        chance = layers["q_value"].fillna(1) >= ALPHA if "q_value" in layers else False
        order = layers.assign(chance=chance).sort_values(["chance", "excess_bits"], ascending=[True, False])
        for row in order.itertuples():
            if (row.path, row.phase) in known:
                return str(row.path), str(row.phase)
    first = rows.iloc[0]
    return str(first["path"]), str(first["phase"])


def pairs(tables: Tables, seed: int) -> Drawing | None:
    """Draw how often experts are chosen together, beside what their loads alone give."""
    rows = rows_of(tables, "pairs", "together", "expected")
    if rows is None:
        return None
    rows = rows[rows["expected"] > 0]
    if not len(rows):
        return None
    found = rows["q_value"] < ALPHA if "q_value" in rows else pd.Series(False, index=rows.index)
    finding = (
        f"{found.sum():,} of {pluralise(len(rows), 'pair')} of experts are chosen together more or less often than"
        " their loads alone give"
        if found.any()
        else "No pair of experts is chosen together more or less often than their loads alone give"
    )
    expected, together = rows["expected"].to_numpy(dtype=float), rows["together"].to_numpy(dtype=float)
    twin = np.random.default_rng(seed).poisson(expected).astype(float)

    def draw() -> Figure:
        figure, panels = panels_of(2, 2.5)
        low, high = max(0.5, expected.min() / 2), max(expected.max(), together.max()) * 2
        for axes, values, title in zip(panels, (together, twin), ("this model", "loads alone, one draw"), strict=True):
            axes.plot([low, high], [low, high], color=style.FAINT, lw=0.8)
            axes.loglog(expected, np.maximum(values, 0.5), ".", ms=2.5, color=style.FAINT, rasterized=len(rows) > 3000)
            if title == "this model":
                axes.loglog(
                    expected[found],
                    np.maximum(values, 0.5)[found],
                    "o",
                    ms=2.5,
                    color=style.ACCENT,
                    label=f"q < {ALPHA}",
                )
                if found.any():
                    axes.legend(frameon=False, loc="upper left")
            axes.set_title(title, loc="left")
            axes.set(xlabel="tokens expected", ylabel="tokens that chose both", xlim=(low, high), ylim=(0.4, high))
        return figure

    return Drawing(
        "pairs",
        "Which experts are chosen together?",
        finding,
        "Each point is a pair of experts of a layer: the tokens that chose both, against the number that their loads"
        " alone would give (the line). Beside it one draw from the loads alone. Where a layer has very many pairs, the"
        " table keeps the most extreme ones.",
        "why they go together: two experts may share a label, a token, or a place in the text.",
        draw,
    )


def knock_out(tables: Tables, seed: int) -> Drawing | None:
    """Draw what the loss of each expert costs beside rerouting as many random tokens."""
    rows = rows_of(tables, "knock_out", "cost_nats")
    if rows is None:
        return None
    whole = rows[rows["label"] == ""].sort_values("cost_nats", ascending=False).reset_index(drop=True)
    if not len(whole):
        return None
    has_control = whole["control_nats"].notna().any()
    beyond = int((whole["cost_low_nats"] > whole["control_nats"].fillna(np.inf)).sum())
    finding = (
        f"{beyond} of {pluralise(len(whole), 'expert')} that were knocked out cost more than as many random tokens"
        if has_control
        else f"Knocked out, the costliest of {pluralise(len(whole), 'expert')} costs"
        f" {format_number(whole['cost_nats'].iloc[0], 4)} nats a token"
    )
    related = _lift_and_need(tables, rows)
    if related is not None:
        finding += f"; lift and need have a rank correlation of {format_number(related, 2, sign=True)}"

    def draw() -> Figure:
        figure = style.new_figure(2.6)
        axes = figure.subplots()
        x = np.arange(len(whole))
        cost, low, high = (whole[f"cost{end}_nats"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
        axes.axhline(0, color=style.FAINT, lw=0.8)
        if has_control:
            axes.plot(x, whole["control_nats"], "_", ms=6, mew=1.4, color=style.ACCENT, label="as many random tokens")
        axes.errorbar(x, cost, yerr=arms(cost, low, high), fmt=".", color=style.INK, lw=0.8, label="expert masked")
        axes.set(xlabel="experts, the costliest first", ylabel="nats per token lost")
        axes.set_xticks([])
        axes.legend(frameon=False)
        return figure

    return Drawing(
        "knock_out",
        "Which experts does the model need?",
        finding,
        "Nats per token that the model loses when an expert is masked and its tokens go to their next best, with"
        " intervals over documents; beside it the loss when as many random tokens are rerouted.",
        "what happens when several experts are removed at once, or after further training.",
        draw,
    )


def _lift_and_need(tables: Tables, rows: pd.DataFrame) -> float | None:
    """Return Spearman's rank correlation of lift and need over experts and labels; None without both.

    The need is the cost minus that of the load-matched control, as in table `knock_out_layers`.
    """
    lifts = rows_of(tables, "lifts", "lift")
    if lifts is None:
        return None
    # a table of knock-outs may have lifts of its own
    needs = rows[["path", "expert", "label"]].assign(need=rows["cost_nats"] - rows["control_nats"])
    both = lifts[["path", "expert", "label", "lift"]].merge(needs[needs["label"] != ""].dropna())
    if len(both) < 8 or both["lift"].nunique() < 2 or both["need"].nunique() < 2:
        return None
    return float(both["lift"].rank().corr(both["need"].rank()))
