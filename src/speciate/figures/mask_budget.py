"""Is as much masked as the noise level says? Mask rate against the noise level, and the curriculum's stages.

A budget that is not kept trains the model on other noise than it is evaluated and sampled with.
"""

from typing import Any, ClassVar

from matplotlib.figure import Figure

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import lines, style

QUESTION = "Is as much masked as the noise level says?"
TABLES = {"measurements": ("ablation", "seed", "step", "probe", "layer", "name", "at", "value")}


class Options(FigureOptions):
    """None."""

    needs: ClassVar[tuple[str, ...]] = ("objective.masked_diffusion",)
    """Kinds of which a study must use one for this figure to be drawn."""


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Left: mask rate by noise level, finished models. Middle: the budget over training. Right: the stage."""
    rate, budget, stage = (lines.measurement_rows(tables, name) for name in ("mask_rate", "mask_budget", "stage"))
    if rate.empty:
        return style.message_figure("No arm of this study has an importance.")
    drawn = style.new_figure(2.5)
    left, middle, right = drawn.subplots(1, 3)
    arms = lines.drawn_arms(rate, subject)
    left.plot([0, 1], [0, 1], color=style.FAINT, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    lines.draw_lines(left, lines.finished_rows(rate), "at", arms, subject)
    left.set(xlabel="noise level t", ylabel="share that is masked")
    left.set_title("At the end", loc="left", weight="bold")
    middle.axhline(1, color=style.FAINT, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    lines.draw_lines(middle, lines.telemetry_rows(budget), "step", arms, subject)
    middle.set(xlabel="optimizer step", ylabel="masked / meant to be")
    middle.set_title("While training", loc="left", weight="bold")
    lines.draw_lines(right, lines.telemetry_rows(stage), "step", lines.drawn_arms(stage, subject), subject)
    right.set(xlabel="optimizer step", ylabel="stage of the curriculum")
    right.set_title("Stage", loc="left", weight="bold")
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """What is seen and what is not."""
    budget = lines.finished_rows(lines.measurement_rows(tables, "mask_budget")).groupby("ablation")["value"].mean()
    if budget.empty:
        return "No arm of this study has an importance."
    told = "; ".join(f"{style.plain_name(str(arm))} {mean:.2f}" for arm, mean in budget.items())
    return (
        "Means over seeds, bands their range; dashed: the budget kept. Masked over what is meant to be, finished"
        f" models: {told}. Arms without an importance mask every token alike and are not drawn."
        f"{lines.note_left_out(lines.measurement_rows(tables, 'mask_rate'), subject)}"
    )
