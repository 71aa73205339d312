"""NeMo Automodel: nemo_automodel/components/moe/load_balance_metrics.py, of the last forward pass before the step.

An expert's utilization is its load over the mean load, so the largest is MaxVio + 1. `expert_diversity` is e^H / E of
the loads. The standard deviation in `cv` divides by E - 1, so ours is smaller by sqrt((E - 1) / E).
"""

import math

from speciate.training_logs.log_names import LogName, minus_one

TITLE = "NeMo Automodel"
SOURCE = (
    "NVIDIA-NeMo/Automodel, nemo_automodel/components/moe/load_balance_metrics.py, pull requests 1232 and 1506 (2026)"
)
PHASE = "train"
NOTES = (
    "A layer's number is its place among the names of layers in alphabetical order, so that layer 10 comes before layer"
    " 2; it is not the model's number in models of more than ten layers.",
    "The loads are those of the last micro-batch before the step, and not of the whole step.",
)


def population_cv(value: float, experts: int) -> float:
    """Return the coefficient of variation with a standard deviation over E."""
    return value * math.sqrt((experts - 1) / experts)


LOSS = "not a function of the load: E sum f P is 1 wherever the mean probabilities P are even"
CV = "x sqrt((E - 1) / E)"
NAMES = (
    LogName("moe/layer_{i}/cv", r"moe/layer_(?P<layer>\d+)/cv", "cv", CV, population_cv, needs_experts=True),
    LogName(
        "moe/cv_{mean,median,min,max}",
        "moe/cv_(?P<over>mean|median|min|max)",
        "cv",
        CV,
        population_cv,
        needs_experts=True,
    ),
    LogName("moe/expert_utilization_max", "moe/expert_utilization_(?P<over>max)", "max_vio", "x - 1", minus_one),
    LogName(
        "moe_expert_utilization/layer_{i}_expert_{j}",
        r"moe_expert_utilization/layer_(?P<layer>\d+)_expert_(?P<expert>\d+)",
        "max_vio",
        "at least the largest x of the layer, minus 1: only the most and the least loaded experts are logged",
        minus_one,
        relation=">=",
    ),
    LogName("moe/layer_{i}/expert_diversity", r"moe/layer_(?P<layer>\d+)/expert_diversity", "effective_share", "x"),
    LogName("moe/expert_diversity_{mean,min}", "moe/expert_diversity_(?P<over>mean|min)", "effective_share", "x"),
    LogName("moe/layer_{i}/dead_expert_frac", r"moe/layer_(?P<layer>\d+)/dead_expert_frac", "dead_share", "x"),
    LogName("moe/dead_expert_frac_mean", "moe/dead_expert_frac_(?P<over>mean)", "dead_share", "x"),
    LogName(
        "moe/expert_utilization_{min,p25,median,p75}",
        "moe/expert_utilization_(?:min|p25|median|p75)",
        "",
        "a quantile over all experts of all layers",
    ),
    LogName("moe/layer_{i}/utilization_mean", r"moe/layer_\d+/utilization_mean", "", "1 by definition"),
    LogName("moe/aux_loss_mean", "moe/aux_loss_mean", "", LOSS),
    LogName("moe/layer_{i}/aux_loss", r"moe/layer_\d+/aux_loss", "", LOSS),
)
