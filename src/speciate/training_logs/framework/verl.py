"""verl: `compute_rollout_moe_load_balance_metrics` of verl/trainer/ppo/metric_utils.py, of the sampled tokens.

Its test fixes the definitions: with all tokens on one of four experts max_vio is 3, min_vio -1 and avg_vio 1.5, the
mean absolute deviation from an even load. A root mean square is at least a mean of absolute values, so cv >= avg_vio.
prime-rl logs MaxVio of training batches under the same name without a layer: the mean over layers, and `/max`.
"""

from speciate.training_logs.log_names import LogName

TITLE = "verl"
SOURCE = (
    "verl-project/verl, verl/trainer/ppo/metric_utils.py, pull request 6853 (2026),"
    " `moe_load_balance_metrics_interval`; and prime-rl's `moe/max_vio`"
)
PHASE = "train"
NOTES = (
    "verl's counts are of response tokens over the whole interval of `moe_load_balance_metrics_interval`, so a step"
    " stands for the steps since the last one.",
)
LEAST = "of the least loaded expert alone; -1 means that it is dead"
NAMES = (
    LogName("rollout/moe/max_vio/layer_{i}", r"moe/max_vio/layer_(?P<layer>\d+)", "max_vio", "x"),
    LogName("rollout/moe/max_vio/{max,avg}", "moe/max_vio/(?P<over>max|avg|mean)", "max_vio", "x"),
    LogName("moe/max_vio", "moe/max_vio", "max_vio", "x", over="mean"),
    LogName("rollout/moe/avg_vio/layer_{i}", r"moe/avg_vio/layer_(?P<layer>\d+)", "cv", "at least x", relation=">="),
    LogName("rollout/moe/avg_vio/{max,avg}", "moe/avg_vio/(?P<over>max|avg|mean)", "cv", "at least x", relation=">="),
    LogName("rollout/moe/min_vio/layer_{i}", r"moe/min_vio/layer_\d+", "", LEAST),
    LogName("rollout/moe/min_vio/{max,avg}", "moe/min_vio/(?:max|avg|mean)", "", LEAST),
    LogName(
        "rollout/moe/routed_expert{s_found,_assignments}",
        "moe/routed_expert(?:s_found|_assignments)",
        "",
        "counts of what was measured, not a measure of load",
    ),
)
