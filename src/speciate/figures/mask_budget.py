"""Figure: is as much masked as the noise level says? Mask rate against the noise level, and the curriculum's stages.

If the budget is not kept, the model trains on other noise than it is evaluated and sampled with.
"""

from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import lines, style

QUESTION = "Is as much masked as the noise level says?"
TABLES = {"measurements": ("ablation", "seed", "step", "probe", "layer", "name", "at", "value")}


LIMITS = "A budget that is kept does not show that the right tokens are masked."


class Options(FigureOptions):
    """No options."""

    needs: ClassVar[tuple[str, ...]] = ("objective.masked_diffusion",)
    """Components of which a study must use at least one for this figure to be drawn."""


def _varying_stages(tables: style.Tables) -> pd.DataFrame:
    """Return the rows of the curriculum's stage; none where it never changes."""
    rows = lines.telemetry_rows(lines.measurement_rows(tables, "stage"))
    return rows if len(rows) and rows["value"].nunique() > 1 else rows[:0]


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which arm departs most from its budget."""
    budget = lines.finished_rows(lines.measurement_rows(tables, "mask_budget")).groupby("ablation")["value"].mean()
    if budget.empty or lines.measurement_rows(tables, "mask_rate").empty:
        return ""
    arm = str((budget - 1).abs().idxmax())
    off = "farthest from its budget" if len(budget) > 1 else "beside its budget"
    return f"{style.sentence(style.plain_name(arm))} masks {budget[arm]:.0%} of the intended share, {off}"


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw the finished models' mask rate by noise level, and the budget and the stage over training."""
    rate, budget = (lines.measurement_rows(tables, name) for name in ("mask_rate", "mask_budget"))
    stage = _varying_stages(tables)
    if rate.empty:
        return style.message_figure("No arm of this study has an importance.")
    panels = 3 if len(stage) else 2
    drawn = style.new_figure(2.3 * panels if style.is_narrow() else 2.5)
    left, middle, *rest = drawn.subplots(*((panels, 1) if style.is_narrow() else (1, panels)))
    arms = lines.drawn_arms(rate, subject)
    left.plot([0, 1], [0, 1], color=style.FAINT, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    lines.draw_lines(left, lines.finished_rows(rate), by="at", arms=arms, subject=subject)
    left.set(xlabel="noise level t", ylabel="masked share")
    left.set_title("At the end", loc="left", weight="bold")
    middle.axhline(1, color=style.FAINT, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    lines.draw_lines(middle, lines.telemetry_rows(budget), by="step", arms=arms, subject=subject)
    middle.set(xlabel="optimizer step", ylabel="masked / intended")
    middle.set_title("During training", loc="left", weight="bold")
    for right in rest:
        lines.draw_lines(right, stage, by="step", arms=lines.drawn_arms(stage, subject), subject=subject)
        right.set(xlabel="optimizer step", ylabel="stage of the curriculum")
        right.set_title("Stage", loc="left", weight="bold")
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    budget = lines.finished_rows(lines.measurement_rows(tables, "mask_budget")).groupby("ablation")["value"].mean()
    if budget.empty:
        return "No arm of this study has an importance."
    ratios = "; ".join(f"{style.plain_name(str(arm))} {mean:.2f}" for arm, mean in budget.items())
    return (
        "Means over seeds, with bands for their range; dashed: the budget is kept. The masked over the intended share"
        f" in the finished models: {ratios}. Arms without an importance mask every token with the same probability and"
        " are not drawn."
        f"{lines.note_left_out(lines.measurement_rows(tables, 'mask_rate'), subject)}"
    )
