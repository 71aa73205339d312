"""Define impossible sparse attention, refused before there is a graph of jobs."""

from typing import Any

from tests.bad_input.case import Case
from tests.bad_input.studies import study

MIXER = "base.model.block.mixer"
GSA = {"kind": "gsa", "num_heads": 4, "indexer": "kl", "budget": {"kind": "fixed", "k": 16}}
RUNNING = {"kind": "running", "k": 16, "k_min": 4, "k_max": 32}
HERE = "study.yaml: ablations.dense.model"


def gsa(wrong: str, says: str, *more: tuple[str, Any], **change: Any) -> Case:
    """Make a case of sparse attention with these options."""
    return study(f"sparse attention, {wrong}", says, (MIXER, {**GSA, **change}), *more)


CASES = [
    gsa(
        "more keys than the context has", f"{HERE}: k: 200 keys of a context of 128", budget={"kind": "fixed", "k": 200}
    ),
    gsa(
        "a window of none",
        f"{HERE}.block.mixer.budget.k: input should be greater than or equal to 1, not 0",
        indexer="window",
        budget={"kind": "fixed", "k": 0},
    ),
    gsa(
        "fewest keys above the most",
        f"{HERE}.block.mixer.budget: k_min: needs k_min <= k <= k_max, not 40, 16, 32",
        budget={**RUNNING, "k_min": 40},
    ),
    gsa(
        "a number of keys by scores that there are not",
        f"{HERE}.block.mixer: budget: running goes by an indexer's scores, and window has none",
        indexer="window",
        budget=RUNNING,
    ),
    gsa(
        "a look ahead that nobody asked for",
        f"{HERE}: non_causal: the number of keys is normalised over the whole batch, later tokens included;"
        " `non_causal: true` allows it, `running` repairs it",
        budget={**RUNNING, "kind": "published"},
    ),
    gsa(
        "log of relu's zeros",
        f"{HERE}.block.mixer.indexer.activation: unknown key of soft; as_published, kl have it",
        indexer={"kind": "soft", "activation": "relu"},
    ),
    gsa(
        "in a model that sees both ways",
        f"{HERE}: causal: gsa sees only what came before; it cannot serve causal: false",
        ("base.model.causal", False),
    ),
]
