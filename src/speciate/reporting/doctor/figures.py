"""The figures of the doctor's page, in their order."""

from speciate.reporting.doctor import expert_figures, layer_figures, other_figures
from speciate.reporting.doctor.drawing import Drawing, Tables


def drawings(tables: Tables, seed: int) -> list[Drawing]:
    """Return the figures that the tables can fill.

    Args:
        tables: those of a Judgement, and `knock_out` and `training` where there are such.
        seed: of the draws from chance that stand beside what was measured.
    """
    makers = (
        layer_figures.collapse,
        layer_figures.load,
        other_figures.agreement,
        other_figures.flips,
        layer_figures.information,
        expert_figures.lift,
        expert_figures.knock_out,
        layer_figures.commitment,
        expert_figures.pairs,
        other_figures.training,
    )
    found = (maker(tables, seed) for maker in makers)
    return [drawing for drawing in found if drawing is not None]
