"""This package: the values of `speciate.watch`, on a probe batch or on training batches."""

from speciate.training_logs.log_names import LogName

TITLE = "`speciate.watch`"
SOURCE = "this package, `speciate.watch`: [watch.md](watch.md)"
PHASE = "train"
NOTES = ()
NAMES = (
    *(
        LogName(f"moe_load/{metric}/layer_{{i}}", rf"moe_load/{metric}/layer_(?P<layer>\d+)", metric, "x")
        for metric in ("max_vio", "effective_share", "cv", "dead_share", "unevenness")
    ),
    LogName("moe_load/wealth/run", "moe_load/wealth/run", "", "evidence of the alarm"),
    LogName("moe_load/wealth/layer_{i}", r"moe_load/wealth/layer_\d+", "", "evidence of the alarm"),
)
