"""Megatron-LM: `MoEMetricsTracker` of megatron/core/transformer/moe/moe_logging.py, and the overload factors.

Per-layer values are `moe/{name}_layer_{i}` with i from 0 over all layers, those without experts included, which log 0.
A load-balancing loss is E sum f P with P the mean probabilities: it is 1 for an even load, and also for any load whose
mean probabilities are even. So it does not determine the load, and a collapse may hide in it.

An overload factor compares ranks of experts and not experts: the tokens of the most loaded rank over the mean. The
most loaded expert of that rank has at least as large a factor, so MaxVio is at least the overload factor minus 1.
"""

from speciate.training_logs.log_names import LogName, minus_one

TITLE = "Megatron-LM"
SOURCE = (
    "NVIDIA/Megatron-LM, megatron/core/transformer/moe/moe_logging.py, and pull requests 2569 (losses) and 4110"
    " (overload factors), 2026"
)
PHASE = "train"
NOTES = (
    "A load-balancing loss of 1 says nothing of the load: it is E sum f P, and 1 wherever the mean probabilities P are"
    " even, even if one expert takes every token.",
    "An overload factor is of ranks that hold several experts, and of single micro-batches; it bounds MaxVio from"
    " below.",
)


LOSS = "not a function of the load: E sum f P is 1 wherever the mean probabilities P are even"
NAMES = (
    LogName(
        "moe/max_overload_factor_layer_{i}",
        r"moe/max_overload_factor_layer_(?P<layer>\d+)",
        "max_vio",
        "at least x - 1, of some micro-batch",
        minus_one,
        relation=">=",
        zero_is_absent=True,
    ),
    LogName(
        "moe/avg_overload_factor_layer_{i}",
        r"moe/avg_overload_factor_layer_\d+",
        "",
        "a mean over micro-batches; moe/max_overload_factor_layer_{i} is read",
    ),
    LogName(
        "moe/max_overload_factor",
        "moe/(?P<over>max)_overload_factor",
        "max_vio",
        "at least x - 1, of some micro-batch",
        minus_one,
        relation=">=",
    ),
    LogName(
        "moe/avg_overload_factor",
        "moe/avg_overload_factor",
        "max_vio",
        "at least x - 1, on average",
        minus_one,
        relation=">=",
        over="mean",
    ),
    LogName("moe/max_cum_overload_factor", "moe/max_cum_overload_factor", "", "of memory over time, not of a load"),
    LogName("load_balancing_loss", "(?:[a-z]+_)?load_balancing_loss", "", LOSS),
    LogName("moe/load_balancing_loss_layer_{i}", r"moe/(?:[a-z]+_)?load_balancing_loss_layer_\d+", "", LOSS),
    LogName("z_loss", "z_loss", "", "of the size of logits, not of a load"),
    LogName("moe/z_loss_layer_{i}", r"moe/z_loss_layer_\d+", "", "of the size of logits, not of a load"),
)
