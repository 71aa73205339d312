"""Define impossible multi-token prediction, refused before there is a graph of jobs."""

from typing import Any

from tests.bad_input.case import Case
from tests.bad_input.studies import study

DENSE = ("base.model.block.ffn", {"kind": "dense", "hidden": 64})


def heads(wrong: str, says: str, *change: tuple[str, Any], **options: Any) -> Case:
    """Make a case of a dense study with this objective."""
    objective = {"kind": "multi_token", "ffn": {"kind": "dense", "hidden": 64}, **options}
    ablations = {"dense": {"about": "Dense"}}
    alone = (("ablations", ablations), ("hypotheses", {}), ("analysis.reference", "dense"), ("analysis.controls", []))
    return study(wrong, says, DENSE, *alone, ("base.objective", objective), *change)


CASES = [
    heads(
        "no head",
        "study.yaml: ablations.dense.objective.heads: input should be greater than or equal to 1, not 0",
        heads=0,
    ),
    heads(
        "as many heads as a block has tokens",
        "study.yaml: ablations.dense.objective: heads: the last of 32 heads has no token to predict in 32 "
        "(block_length)",
        heads=32,
    ),
    heads(
        "as many heads as the context has tokens",
        "study.yaml: ablations.dense: heads: the last of 128 heads has no token to predict in 128 (model.context)",
        heads=128,
    ),
    heads(
        "multi-token prediction of a model that sees the whole block",
        "study.yaml: ablations.dense: model.causal: multi_token needs a model that sees only what came before, so True "
        "here",
        ("base.model.causal", False),
    ),
    heads(
        "more heads than there are published weights",
        "study.yaml: ablations.dense: weights: 4 weights are published (1, .5, .3, .2), and there are 6 heads",
        heads=6,
        weights="published",
    ),
    heads(
        "a feed-forward layer for linear heads",
        "study.yaml: ablations.dense: ffn: a linear head has no feed-forward layer; leave it out, or set form: block",
        form="linear",
    ),
    heads(
        "heads on a last layer of experts that do not say what theirs is",
        "study.yaml: ablations.dense: ffn: the last layer's kind is moe; set the heads' own, for example "
        "{kind: dense, hidden: 256}",
        ("base.model.block.ffn", {"kind": "moe", "router": "learned", "balance": "none"}),
        ffn=None,
    ),
]
