"""torchtitan: `collect_moe_load_metrics` of torchtitan/models/common/moe.py, from counts summed over all ranks.

Its test (tests/unit_tests, `test_stats_of_known_counts`) fixes the definitions: counts of 12, 4, 0, 0 give cv = 1.22,
which divides by E, max_vio = 2 and cold_frac = .5. There are no values of single layers.
"""

from speciate.training_logs.log_names import LogName

TITLE = "torchtitan"
SOURCE = "pytorch/torchtitan, `collect_moe_load_metrics` in torchtitan/models/common/moe.py (main, autumn 2026)"
PHASE = "train"
NOTES = (
    "`cold_frac` counts experts with few tokens as well as dead ones, so the dead share is at most as large.",
    "It logs summaries over layers alone, so no log of it says which layer has collapsed.",
)
NAMES = (
    LogName("moe_load/max_vio/{mean,max}", "moe_load/max_vio/(?P<over>mean|max)", "max_vio", "x"),
    LogName("moe_load/cv/{mean,max}", "moe_load/cv/(?P<over>mean|max)", "cv", "x"),
    LogName(
        "moe_load/cold_frac/{mean,max}",
        "moe_load/cold_frac/(?P<over>mean|max)",
        "dead_share",
        "at most x",
        relation="<=",
    ),
)
