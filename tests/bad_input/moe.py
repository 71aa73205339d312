"""Define impossible mixtures of experts, refused before there is a graph of jobs, or by a model asked for too much."""

from collections.abc import Callable
from typing import Any

from tests.bad_input.case import Case, Place
from tests.bad_input.small import Command

FFN = "base.model.block.ffn"
AT = "study.yaml: ablations.auxiliary.model"


def changed(*change: tuple[str, Any]) -> Callable[[Place], Command]:
    """Return the study with these keys changed."""
    return lambda place: place.study(*change)


def refused(wrong: str, says: str, *change: tuple[str, Any]) -> Case:
    """Make a case of one changed study file."""
    return Case("Mixture of experts", wrong, changed(*change), says)


def arm(**ffn: Any) -> tuple[str, Any]:
    """Return the arm `auxiliary` with its experts changed."""
    return "ablations.auxiliary.change", {"model": {"block": {"ffn": ffn}}}


CASES = [
    refused(
        "capacity 0",
        f"{AT}.block.ffn.choice.capacity_factor: input should be greater than 0, not 0.0",
        arm(choice={"kind": "token", "capacity_factor": 0.0}),
    ),
    refused(
        "expert choice in a causal model",
        f"{AT}: choice: expert: whether an expert takes a token depends on the block's later tokens, so the loss of a "
        "causal model would be no likelihood; non_causal: true allows it",
        arm(choice="expert", balance="none"),
    ),
    refused(
        "a balance where experts choose",
        f"{AT}.block.ffn: balance: choice expert fills every expert evenly; balance: none goes with it",
        arm(choice={"kind": "expert", "non_causal": True}),
    ),
    refused(
        "an oracle that is not told how many domains there are",
        f"{AT}.block.ffn.router.domains: is missing",
        arm(router="oracle", balance="none"),
    ),
    refused(
        "an oracle of another number of domains",
        "study.yaml: ablations.auxiliary: router: oracle: domains is 3, but the study has 2 domains",
        arm(router={"kind": "oracle", "domains": 3}, balance="none"),
    ),
    refused(
        "fewer experts than an oracle has domains",
        f"{AT}.block.ffn: router: oracle gives each of 2 domains a slot, and there are 1",
        arm(router={"kind": "oracle", "domains": 2}, balance="none", num_experts=1),
    ),
    refused(
        "two experts a token from a router that names one",
        f"{AT}.block.ffn: top_k: router oracle names one expert for each token, so top_k must be 1",
        arm(router={"kind": "oracle", "domains": 2}, balance="none", top_k=2),
    ),
    refused(
        "a balance that cannot move its router",
        f"{AT}.block.ffn: balance: orthogonal acts by the gradient, which cannot move router uniform_random; "
        "balance: none goes with it",
        arm(router="uniform_random", balance="orthogonal"),
    ),
    refused(
        "a balance that ends before it begins",
        f"{AT}.block.ffn: balance_from: 0.6 is not before balance_until, 0.4; balance: none never balances",
        arm(balance_from=0.6, balance_until=0.4),
    ),
    refused(
        "a balance that is switched on again before it is switched off",
        f"{AT}.block.ffn: balance_off: [0.6, 0.4] must rise strictly between balance_from 0 and balance_until 1",
        arm(balance_off=[0.6, 0.4]),
    ),
    refused(
        "annealed noise together with learned noise",
        f"{AT}.block.ffn.router: noise_std: 0.1 is for annealed noise; learned noise learns its scale",
        arm(router={"kind": "learned", "noise": "learned", "noise_std": 0.1}),
    ),
]
