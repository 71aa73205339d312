"""torchtitan: `collect_moe_load_metrics` of torchtitan/models/common/moe.py, from counts summed over all ranks.

Its test (tests/unit_tests, `test_stats_of_known_counts`) fixes the definitions: counts of 12, 4, 0, 0 give cv = 1.22,
which divides by E, max_vio = 2 and cold_frac = .5; from how many tokens on an expert is not cold, it does not say.
There are no values of single layers.
"""

from speciate.training_logs.log_names import LogName

TITLE = "torchtitan"
SOURCE = (
    "pytorch/torchtitan, `collect_moe_load_metrics` in torchtitan/models/common/moe.py, as its test has it (main, 2026)"
)
PHASE = "train"
NOTES = (
    "An expert without tokens is cold, and one with a few may be: the dead share is at most `cold_frac`.",
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
