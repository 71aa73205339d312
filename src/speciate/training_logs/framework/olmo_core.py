"""OLMo-core: `MoERouter.compute_metrics` of src/olmo_core/nn/moe/router.py.

`load imbalance` is the largest over the mean number of tokens of an expert, MaxVio + 1. Each rank computes it of its
own tokens, and the largest of the ranks is logged: a load of all tokens is at most as uneven. `MoETransformer` puts
`block 03/` before the name for each block, and logs the largest of all blocks without it; the trainer adds `train/`.
"""

from speciate.training_logs.log_names import LogName, minus_one

TITLE = "OLMo-core"
SOURCE = (
    "allenai/OLMo-core, src/olmo_core/nn/moe/router.py (`compute_metrics`) and nn/transformer/model.py"
    " (`compute_auxiliary_metrics`), v2, 2026"
)
PHASE = "train"
NOTES = (
    "`load imbalance` is the largest of the ranks, each of its own tokens: with several ranks, MaxVio of all tokens is"
    " at most x - 1.",
)


LOSS = "not a function of the load: E sum f P is 1 wherever the mean probabilities P are even"
BLOCK = r"block[ _](?P<layer>\d+)/"
"""Writers of event files may put `_` for a space."""
NAMES = (
    LogName(
        "train/block {i}/load imbalance",
        rf"{BLOCK}load[ _]imbalance",
        "max_vio",
        "x - 1 (at most, with several ranks)",
        minus_one,
        relation="<=",
    ),
    LogName(
        "train/load imbalance",
        "load[ _]imbalance",
        "max_vio",
        "x - 1 (at most, with several ranks)",
        minus_one,
        relation="<=",
        over="max",
    ),
    LogName(
        "train/block {i}/load balancing loss", rf"(?:{BLOCK})?load[ _]balancing[ _]loss(?:[ _]unscaled)?", "", LOSS
    ),
    LogName(
        "train/block {i}/router Z loss",
        rf"(?:{BLOCK})?router[ _]Z[ _]loss(?:[ _]unscaled)?",
        "",
        "of the size of logits, not of a load",
    ),
)
