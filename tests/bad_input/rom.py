"""Define impossible Mamba and Routing Mamba, refused before there is a graph of jobs."""

from typing import Any

from tests.bad_input.case import Case, Place
from tests.bad_input.small import Command

AT = "study.yaml: ablations.dense.model"


def refused(wrong: str, says: str, mixer: dict[str, Any], **model: Any) -> Case:
    """Make a case of the study's arm `dense` with another mixer."""
    feed = {"kind": "dense", "hidden": 256}
    change = {"model": {"block": {"mixer": mixer, "ffn": feed}, **model}}

    def make(place: Place) -> Command:
        return place.study(("ablations.dense.change", change))

    return Case("Recurrent mixer", wrong, make, says)


def rom(**options: Any) -> dict[str, Any]:
    """Return Routing Mamba with these options."""
    return {"kind": "rom", "router": "learned", "balance": "none", **options}


CASES = [
    refused(
        "a state space without states",
        f"{AT}.block.mixer.state: input should be greater than or equal to 1, not 0",
        {"kind": "mamba", "state": 0},
    ),
    refused(
        "a convolution over no token",
        f"{AT}.block.mixer.conv: input should be greater than or equal to 1, not 0",
        {"kind": "mamba", "conv": 0},
    ),
    refused(
        "an expansion to a part of a channel",
        f"{AT}: expand: 1.3 times a width of 128 is no whole number of channels",
        {"kind": "mamba", "expand": 1.3},
    ),
    refused(
        "step sizes of a higher rank than there are channels",
        f"{AT}: step_rank: 300 is more than 256 channels",
        rom(step_rank=300),
    ),
    refused(
        "more experts a token than a projection has",
        f"{AT}.block.mixer: top_k: cannot choose 5 of 4 experts",
        rom(top_k=5),
    ),
    refused(
        "a gradient to balance a router of projections that never learns",
        f"{AT}.block.mixer: balance: auxiliary acts by the gradient, which cannot move router frozen; balance: none"
        " goes with it",
        rom(router="frozen", balance="auxiliary"),
    ),
    refused(
        "projections routed in a way that there is not",
        f"{AT}.block.mixer.routed: input should be 'shared', 'independent' or 'as_published', not 'pairs'",
        rom(routed="pairs"),
    ),
    refused(
        "a mixer that reads from left to right in a model that sees the whole block",
        f"{AT}: causal: rom sees only what came before; it cannot serve causal: false",
        rom(),
        causal=False,
    ),
]
