"""Figure: does one expert take over, in which layer, and when? The trajectory of collapse.

Each line is one expert's share f_e of the telemetry probe's tokens, on hard choices; a balanced router has 1/E. Shaded:
the shares below which a perfectly balanced router of independent choices stays, (1 + noise floor) / E.
"""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "Does one expert take over, in which layer, and when?"
TABLES = {
    "experts": ("ablation", "seed", "selector", "layer", "step", "probe", "domain", "slot", "share"),
    "selectors": (
        *("ablation", "seed", "selector", "layer", "step", "probe"),
        *("num_slots", "max_share", "noise_floor", "unevenness", "load_state"),
        *("max_share_low", "max_share_high"),
    ),
    "verdicts": ("ablation", "seed", "selector", "rule", "first_step"),
}
LIMITS = (
    "The lines are of a small probe set and of one seed, and experts have no common names across seeds or arms; the"
    " tables have the finished models on the whole probe set."
)
RULE_60_SHARE = 0.6
"""Above this share the rule of the moe-emergence repository sees collapse; `analysis.collapse` applies it."""


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_arms: int = Field(12, ge=1)
    """Largest number of arms drawn; the caption names the others."""
    max_selectors: int = Field(4, ge=1)
    """Largest number of selectors drawn: the most uneven ones."""


def _telemetry_rows(tables: style.Tables) -> pd.DataFrame:
    selectors = tables["selectors"]
    return selectors[selectors["probe"] == "telemetry"]


def _choose_drawn(
    tables: style.Tables, subject: style.Subject, options: Any
) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the arms and selectors to draw, and every selector's name."""
    seen = _telemetry_rows(tables)
    names = choosing.selector_names(seen)
    last = seen[seen["step"] == seen.groupby("ablation")["step"].transform("max")]
    by_arm = last.groupby("ablation")["unevenness"].max().to_dict()
    arms = choosing.choose_arms(choosing.arms_with_selectors(seen, subject), options.max_arms, by_arm, subject)
    columns = choosing.column_selectors(names)
    return arms, choosing.most_uneven(last, columns, min(options.max_selectors, style.columns_of(4)), subject), names


def worst_rows(tables: style.Tables, subject: style.Subject) -> pd.DataFrame:
    """Return the most uneven selector of each run that learns, of the finished models: nearest to its limits first.

    Shares do not compare selectors of different sizes; unevenness does.
    """
    full = tables["selectors"]
    full = full[(full["probe"] == "full") & full["unevenness"].notna()]
    learned = full[~full["ablation"].isin([*subject.controls, *subject.fixed])]
    ranked = (learned if len(learned) else full).sort_values("unevenness", ascending=False, kind="stable")
    return ranked.drop_duplicates(["ablation", "seed"])


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return how much one slot has in the most uneven layer of the finished models."""
    rows = worst_rows(tables, subject)
    if _telemetry_rows(tables).empty or rows.empty:
        return ""
    worst = rows.iloc[0]
    names = choosing.selector_names(tables["selectors"])
    bounds = f" [{worst['max_share_low']:.1%}, {worst['max_share_high']:.1%}]" if worst["max_share_low"] >= 0 else ""
    one, several = choosing.slot_words_of(rows.iloc[:1], tables["selectors"])
    share = f"{worst['max_share']:.1%}{bounds} of the choices go to one of {worst['num_slots']} {several}"
    where = f"{style.plain_name(worst['ablation'])}, {names[worst['selector']]}, seed {worst['seed']}"
    if worst["load_state"] == "collapsed":
        number = int((rows["load_state"] == "collapsed").sum())
        return f"One {one} takes over: {share} in {where}, the most uneven of {number} collapsed runs"
    return f"No {one} takes over: in the most uneven run that learned ({where}), {share}"


def _shown_seed(tables: style.Tables, subject: style.Subject) -> int:
    """Return the seed that is drawn: that of the most uneven run, or the first."""
    worst = worst_rows(tables, subject)
    return int(worst.iloc[0]["seed"] if len(worst) else _telemetry_rows(tables)["seed"].min())


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a row per arm and a column per layer: the experts of one seed, and where the other seeds end."""
    seen = _telemetry_rows(tables)
    if seen.empty:
        return style.message_figure("No run of this study has a selector.")
    arms, selectors, names = _choose_drawn(tables, subject, options)
    drawn = style.new_figure(0.55 + 0.78 * len(arms))
    grid = drawn.subplots(len(arms), len(selectors), sharex=True, sharey=True, squeeze=False)
    experts = tables["experts"]
    experts = experts[(experts["probe"] == "telemetry") & (experts["domain"] == "all")]
    lowest: dict[int, Any] = {}
    seed = _shown_seed(tables, subject)
    for row, arm in enumerate(arms):
        paths = list(seen[seen["ablation"] == arm]["selector"].unique())
        for column, selector in enumerate(choosing.selectors_of_columns(paths, selectors)):
            axes = grid[row, column]
            if row == 0:
                axes.set_title(names[selectors[column]])
            if selector is None:
                style.hide_axes(axes)
                continue
            cell, cell_experts, verdicts = (
                frame[(frame["ablation"] == arm) & (frame["selector"] == selector)]
                for frame in (seen, experts, tables["verdicts"])
            )
            _draw_cell(axes, cell, cell_experts, seed)
            _mark_alarm(axes, verdicts[verdicts["seed"] == seed])
            _mark_run_alarm(axes, tables["verdicts"], arm, seed)
            if selector not in selectors:
                axes.annotate(names[selector], (0.98, 0.78), xycoords="axes fraction", ha="right", fontsize=6)
            lowest[column] = axes
        name = "\n".join(textwrap.wrap(style.plain_name(arm), 11, break_long_words=False))
        grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        grid[row, 0].yaxis.label.set_weight("bold")
    for axes in lowest.values():
        axes.tick_params(labelbottom=True)
    grid[0, 0].set(ylim=(0, 1.02), xlim=(0, float(seen["step"].max())))
    grid[0, 0].set_yticks([0, 0.5, 1], ["0", "50%", "100%"])
    drawn.supxlabel("optimizer step", fontsize=7.5)
    drawn.supylabel("share of the choices", fontsize=7.5)
    words = choosing.slot_words_of(seen[seen["ablation"].isin(arms)], tables["selectors"])
    _add_legend(drawn, words, several=seen["seed"].nunique() > 1)
    return drawn


def _add_legend(drawn: Figure, words: tuple[str, str], *, several: bool) -> None:
    """Say above the axes what each line and each mark is; `words` are those for one slot and several."""
    one, more = words
    handles = [
        Line2D([], [], color=style.ACCENT, linewidth=1.5, label=f"the {one} that ends largest"),
        Line2D([], [], color=style.COLOURS[0], linewidth=0.7, alpha=0.55, label=f"other {more}"),
        Line2D([], [], color=style.INK, linewidth=0.6, label="the layer’s alarm"),
        Line2D([], [], color=style.INK, marker="v", linestyle="", markersize=4, label="the run’s alarm"),
    ]
    if several:
        label = "largest share of another seed at the end"
        handles.append(Line2D([], [], color=style.INK, marker="o", linestyle="", markersize=2.5, label=label))
    drawn.legend(
        handles=handles, loc="outside upper center", ncols=2 if style.is_narrow() else 5, frameon=False, fontsize=6
    )


def _draw_cell(axes: Any, seen: pd.DataFrame, experts: pd.DataFrame, seed: int) -> None:
    """Draw one selector's experts over the steps."""
    drawn_run = seen[seen["seed"] == seed].sort_values("step")
    floor = (1 + drawn_run["noise_floor"]) / drawn_run["num_slots"]
    axes.fill_between(drawn_run["step"], 0, floor, color=style.HAIR, linewidth=0, zorder=0)
    axes.axhline(RULE_60_SHARE, color=style.FAINT, linewidth=0.5, linestyle=(0, (4, 3)), zorder=0)
    others = seen[seen["seed"] != seed]
    ends = others[others["step"] == others.groupby("seed")["step"].transform("max")]
    dots = {"color": style.INK, "markersize": 2.5, "markeredgewidth": 0, "alpha": 0.75, "clip_on": False, "zorder": 4}
    axes.plot(ends["step"], ends["max_share"], "o", **dots)
    wide = experts[experts["seed"] == seed].pivot(index="step", columns="slot", values="share").sort_index()
    if wide.empty:
        return
    winner = wide.iloc[-1].idxmax()
    quiet = wide.drop(columns=winner)
    width = 0.7 if quiet.shape[1] <= 16 else 0.35
    axes.plot(quiet.index.to_numpy(), quiet.to_numpy(), color=style.COLOURS[0], linewidth=width, alpha=0.55)
    axes.plot(wide.index.to_numpy(), wide[winner].to_numpy(), color=style.ACCENT, linewidth=1.5)


def _mark_alarm(axes: Any, verdicts: pd.DataFrame) -> None:
    """Mark the step at which the layer's own alarm first fired."""
    for step in verdicts[verdicts["rule"] == "alarm"]["first_step"].dropna():
        axes.axvline(step, color=style.INK, linewidth=0.6, zorder=0)
        axes.annotate(f"step {step:.0f}", (step, 0.3), (2, 0), textcoords="offset points", va="center", fontsize=6)


def _mark_run_alarm(axes: Any, verdicts: pd.DataFrame, arm: str, seed: int) -> None:
    """Mark the step at which the run's alarm first fired, which has one guarantee over all layers."""
    of_run = verdicts[(verdicts["ablation"] == arm) & (verdicts["seed"] == seed) & (verdicts["selector"] == "any")]
    for step in of_run[of_run["rule"] == "alarm"]["first_step"].dropna():
        axes.plot(step, 1.0, "v", color=style.INK, markersize=4, clip_on=False, zorder=5)


def _describe_alarms(verdicts: pd.DataFrame, arms: list[str], seed: int) -> str:
    """Return sentences on the alarms of layers, which the figure marks, and on those of whole runs."""
    fired = verdicts[(verdicts["rule"] == "alarm") & verdicts["first_step"].notna() & verdicts["ablation"].isin(arms)]
    if fired.empty:
        return " Our alarm did not fire in the arms shown."
    of_run = fired[(fired["selector"] == "any") & (fired["seed"] == seed)].set_index("ablation")["first_step"]
    runs = [f"{style.plain_name(arm)} (step {of_run[arm]:.0f})" for arm in arms if arm in of_run.index]
    said = f"fired in {', '.join(runs)}" if runs else "did not fire"
    layers = [arm for arm in arms if arm in set(fired.loc[fired["selector"] != "any", "ablation"])]
    return (
        f" Vertical line: the step at which a layer’s own alarm first fired in seed {seed}; in some seed and layer it"
        f" fired in {style.join_names(layers) if layers else 'no arm'}. The run’s alarm, which has one guarantee over"
        f" all layers, {said} in seed {seed}."
    )


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    seen = _telemetry_rows(tables)
    if seen.empty:
        return "No run of this study has a selector, so there is no load to show."
    arms, selectors, names = _choose_drawn(tables, subject, options)
    shown = choosing.drawn_selectors(seen, arms, selectors)
    seeds = sorted(seen["seed"].unique())
    sizes = np.unique(seen["num_slots"])
    one, more = choosing.slot_words_of(seen[seen["ablation"].isin(arms)], tables["selectors"])
    uniform = f"1/{int(sizes[0])}" if len(sizes) == 1 else f"one over the number of {more}"
    others = " Dots: the largest share in the other seeds at the end." if seeds[1:] else ""
    shown_seed = _shown_seed(tables, subject)
    marks = _describe_alarms(tables["verdicts"], arms, shown_seed)
    return (
        f"Share of the telemetry probe’s tokens that each {one} gets during training, seed {shown_seed}; thick: the"
        f" {one} that ends with the largest share.{others} A balanced share is {uniform}. Grey: the range of a"
        f" perfectly balanced router of independent choices; dashed: {RULE_60_SHARE:.0%}, the limit of the"
        f" moe-emergence rule.{marks}"
        + choosing.note_left_out(
            (choosing.arms_with_selectors(seen, subject), arms), choosing.all_and_drawn(names, shown)
        )
        + _note_narrow(tables, subject, options, shown)
    )


def _note_narrow(tables: style.Tables, subject: style.Subject, options: Any, wide: list[str]) -> str:
    """Return ' A narrow screen shows only ...' for the caption where it has room for fewer selectors; or nothing."""
    with style.figure_style(style.NARROW):
        arms, selectors, names = _choose_drawn(tables, subject, options)
    narrow = choosing.drawn_selectors(_telemetry_rows(tables), arms, selectors)
    if len(narrow) == len(wide):
        return ""
    return f" A narrow screen shows only {style.join_names(names[path] for path in narrow)}."
