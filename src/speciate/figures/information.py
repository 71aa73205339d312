"""Figure: how much do a router's choices tell about a text's domain, beyond chance and the controls?

I(E;D) over training, in bits, on hard choices with equal domain weights, minus what chance alone gives it: the same
quantity as in the tables. Around zero is the band of the null, with documents as units; beside each arm are the routers
that do not learn, at the same layers.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "How much do a router’s choices tell about a text’s domain during training, beyond chance and the controls?"
TABLES = {
    "selectors": (
        *("ablation", "seed", "selector", "layer", "step", "probe"),
        *("information_bits", "null_mean_bits", "null_low_bits", "null_high_bits", "excess_information_bits"),
    ),
    "runs": ("ablation", "seed", "excess_information_bits", "matched_nats"),
}
LIMITS = (
    "That a router’s choices tell the domain does not mean that the model uses what they tell; their cost is above."
)
DASHES = ((0, (4, 2)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (2, 2)))


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_arms: int = Field(9, ge=1)
    """Largest number of arms drawn; the caption names the others."""
    max_selectors: int = Field(12, ge=1)
    """Largest number of selectors drawn, spread over the depth."""


def _unbiased(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the information minus the null's mean as `bits`; where no null was drawn, the plain estimate."""
    mean = rows["null_mean_bits"].fillna(0.0)
    band = {name: rows[f"null_{name}_bits"] - mean for name in ("low", "high")}
    return rows.assign(bits=rows["information_bits"] - mean, **band)


def _telemetry_rows(tables: style.Tables) -> pd.DataFrame:
    selectors = tables["selectors"]
    return _unbiased(selectors[selectors["probe"] == "telemetry"])


def finished_means(tables: style.Tables) -> pd.DataFrame:
    """Return each arm's information and its excess over the controls: means over selectors, then over runs."""
    full = tables["selectors"]
    full = _unbiased(full[full["probe"] == "full"])
    by_run = full.groupby(["ablation", "seed"])[["bits", "excess_information_bits"]].mean()
    return by_run.groupby("ablation").mean()


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the reference's choices tell of the domain, beside the controls; or those of the arm with most."""
    seen, means = _telemetry_rows(tables), finished_means(tables)
    if seen.empty or means.empty:
        return ""
    learned = [str(arm) for arm in means.index if style.learns(str(arm), subject)] or [str(arm) for arm in means.index]
    arm = subject.reference if subject.reference in learned else str(means.loc[learned, "bits"].idxmax())
    text = f"{style.sentence(style.plain_name(arm))}’s choices tell {means.loc[arm, 'bits']:.3f} bits of the domain"
    runs = tables["runs"][tables["runs"]["ablation"] == arm]
    excess = runs["excess_information_bits"].dropna()
    if arm not in subject.controls and len(excess):
        less = excess.mean() < 0
        change = style.with_interval(-excess if less else excess, subject.confidence)
        text += f", {change} {'less' if less else 'more'} than routers that never learned"
    return f"{text}{style.worth(runs, subject)}"


def _candidate_arms(seen: pd.DataFrame, subject: style.Subject) -> list[str]:
    """Return the arms with selectors that can learn, or the others where there is nothing else."""
    arms = choosing.arms_with_selectors(seen, subject)
    return [arm for arm in arms if style.learns(arm, subject)] or arms


def _choose_drawn(
    tables: style.Tables, subject: style.Subject, options: Any
) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the arms and selectors to draw, and every selector's name."""
    seen = _telemetry_rows(tables)
    names = choosing.selector_names(seen)
    ends = seen[seen["step"] == seen["step"].max()]
    most = ends.groupby("ablation")["bits"].mean().to_dict()
    arms = choosing.choose_arms(_candidate_arms(seen, subject), options.max_arms, most, subject)
    strongest = ends.groupby("selector")["bits"].mean().to_dict()
    return arms, choosing.choose_names(list(names), options.max_selectors, strongest), names


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per arm: a line per layer, the mean over layers, the controls' means and the null band."""
    seen = _telemetry_rows(tables)
    if seen.empty:
        return style.message_figure("No run of this study has a selector.")
    arms, selectors, names = _choose_drawn(tables, subject, options)
    columns = min(3, len(arms), style.columns_of(3))
    rows = -(-len(arms) // columns)
    drawn = style.new_figure(0.75 + 1.65 * rows, style.WIDTH if columns == 3 else 2.6 * columns + 1.4)
    grid = drawn.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    means = seen.groupby(["ablation", "selector", "step"])["bits"].mean()
    low = min(float(means.min()), float(seen["low"].min()) if seen["low"].notna().any() else 0.0, 0.0)
    grid[0, 0].set(xlim=(0, float(seen["step"].max())), ylim=(1.08 * low, 1.08 * float(means.max())))
    for index, axes in enumerate(grid.flat):
        if index >= len(arms):
            axes.set_axis_off()
            continue
        arm_rows = seen[seen["ablation"] == arms[index]]
        _draw_panel(axes, arm_rows, {selector: names[selector] for selector in selectors})
        _draw_controls(axes, _rows_of_controls(tables, seen, arms[index], subject), subject)
        axes.set_title(style.plain_name(arms[index]), loc="left", weight="bold")
        if index + columns >= len(arms):
            axes.tick_params(labelbottom=True)
    drawn.supxlabel("optimizer step", fontsize=7.5)
    drawn.supylabel("I(E;D) beyond the null’s mean, bits", fontsize=7.5)
    _add_legend(drawn, seen, subject)
    return drawn


def _draw_panel(axes: Any, arm_rows: pd.DataFrame, names: dict[str, str]) -> None:
    """Draw one arm's lines, of the selectors in `names`, and its null band."""
    null = arm_rows.groupby("step")[["low", "high"]].mean().dropna()
    axes.fill_between(null.index, null["low"], null["high"], color=style.HAIR, linewidth=0)
    axes.axhline(0, color=style.FAINT, linewidth=0.5)
    ends: list[tuple[float, str]] = []
    for selector, name in names.items():
        line = arm_rows[arm_rows["selector"] == selector].groupby("step")["bits"].mean()
        if len(line):
            axes.plot(line.index, line, color=style.COLOURS[0], linewidth=0.6, alpha=0.6)
            ends.append((float(line.iloc[-1]), name.removeprefix("layer ")))
    for _, run in arm_rows.groupby("seed"):
        line = run.groupby("step")["bits"].mean()
        axes.plot(line.index, line, color=style.INK, linewidth=1.3)
    style.label_ends(axes, float(arm_rows["step"].max()), [(*end, style.COLOURS[0]) for end in ends], size=5.5, dx=2)


def _rows_of_controls(tables: style.Tables, seen: pd.DataFrame, arm: str, subject: style.Subject) -> pd.DataFrame:
    """Return the rows of the controls of an arm's selectors, and of no other selector.

    A control says nothing of a selector that it does not have, nor of itself. Paths do not tell, as figures call a
    router and an indexer of one layer the same: where a selector has controls, the tables have its excess over them.
    """
    full = tables["selectors"]
    full = full[(full["probe"] == "full") & (full["ablation"] == arm)]
    paths = set(full.loc[full["excess_information_bits"].notna(), "selector"])
    others = [name for name in subject.controls if name != arm]
    return seen[seen["ablation"].isin(others) & seen["selector"].isin(paths)]


def _draw_controls(axes: Any, rows: pd.DataFrame, subject: style.Subject) -> None:
    """Draw the controls' means over layers and seeds."""
    present = set(rows["ablation"])
    for index, arm in enumerate(subject.controls):
        if arm not in present:
            continue
        line = rows[rows["ablation"] == arm].groupby("step")["bits"].mean()
        axes.plot(line.index, line, color=style.ACCENT, linewidth=1.0, linestyle=DASHES[index % len(DASHES)])


def _add_legend(drawn: Figure, seen: pd.DataFrame, subject: style.Subject) -> None:
    """Say above the panels which line is which."""
    handles = [
        Line2D([], [], color=style.INK, linewidth=1.3, label="a seed, mean over layers"),
        Line2D([], [], color=style.COLOURS[0], linewidth=0.6, alpha=0.6, label="a layer, mean over seeds"),
    ]
    for index, arm in enumerate(subject.controls):
        if arm in set(seen["ablation"]):
            dash = DASHES[index % len(DASHES)]
            label = f"{style.plain_name(arm)} (control)"
            handles.append(Line2D([], [], color=style.ACCENT, linewidth=1.0, linestyle=dash, label=label))
    ncols = 2 if style.is_narrow() else 4
    drawn.legend(handles=handles, loc="outside upper center", ncols=ncols, frameon=False, fontsize=6.5)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    seen = _telemetry_rows(tables)
    if seen.empty:
        return "No run of this study has a selector, so there is no information to show."
    arms, selectors, names = _choose_drawn(tables, subject, options)
    bits = finished_means(tables)["bits"]
    present = [arm for arm in subject.controls if arm in bits.index]
    best = bits[[arm for arm in arms if arm in bits.index]].idxmax() if len(bits) else None
    levels = ", ".join(f"{style.plain_name(arm)} {bits[arm]:.3f}" for arm in present)
    after = (
        f" In the finished models, on the whole probe set and minus the null’s mean, {style.plain_name(best)} has the"
        f" most ({bits[best]:.3f} bits)" + (f"; the controls: {levels}." if levels else ".")
        if best is not None
        else ""
    )
    band = (
        f"Grey band: {subject.confidence:.0%} of what chance alone gives, by how documents of one domain differ (means"
        " over layers and seeds), around its mean."
        if seen["null_low_bits"].notna().any()
        else "No null was computed during training, so there is no band, and the lines include their bias."
    )
    num_seeds = seen["seed"].nunique()
    lines = "Thick: the mean over layers" + (
        f", with a line for each of the {num_seeds} seeds" if num_seeds > 1 else ""
    )
    dashed = (
        f" Dashed and dotted: {style.join_names(present)}, whose routers do not learn, at the arm’s own layers; an arm"
        " without such a line has selectors that no control has. Only what lies above them was learned, whatever the"
        " null says."
        if present
        else " The study has no control router, so what was learned cannot be told from what any router has."
    )
    return (
        "Mutual information between choice and domain on the telemetry probe, in bits, minus what chance alone gives"
        " it, as in the table (the maximum is log2 of the"
        f" number of domains, {np.log2(max(2, len(subject.domains))):.2f}). {lines}; thin: single layers, numbered"
        f" where they end, means over seeds. {band}{dashed}{after} The probe set of the lines is small."
        + choosing.note_left_out((_candidate_arms(seen, subject), arms), choosing.all_and_drawn(names, selectors))
    )
