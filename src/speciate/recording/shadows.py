"""Shadow routers: what routers that never learned would choose on the same hidden states, beside the real ones.

    random 1..R     l = s W x, W of independent normal numbers, s such that the logits spread over the slots as much as
                    the router's own do (on the first batch); then the router's rule: its scores, groups and number k
    token hash      k slots by a hash of the token's id and the layer alone

What the trained router knows beyond them is what training added: the rest is the geometry of the hidden states, and the
identity of the tokens. They are computed beside the forward pass, and nothing of it depends on them.

N tokens, D width, S slots, K chosen slots, R random routers.
"""

import math
import zlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speciate.recording.router_call import RouterCall, Rule, Site
from speciate.recording.scores import FUNCTIONS, are_probabilities, probabilities
from speciate.selection.record_builder import RecordBuilder
from speciate.selection.record_sums import SelectorShape
from speciate.selection.routing_record import Integers

HASH = "token hash"


@dataclass(eq=False)
class Shadows:
    """The shadow routers of a model. They keep one weight matrix a router."""

    count: int
    """Number of random routers for each router, R; 0: no shadows at all."""
    seed: int
    builders: dict[str, RecordBuilder] = field(default_factory=dict)
    _weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [f"random {number + 1}" for number in range(self.count)] + [HASH] * (self.count > 0)
        self.builders = {name: RecordBuilder(name, most_sampled=0) for name in names}

    def logits(self, site: Site, call: RouterCall, real_N: Tensor) -> Tensor | None:
        """Return the logits of the random routers on what the router saw, (N, R, S); None where it is not known."""
        if not self.count or call.hidden_ND is None or call.logits_NS is None:
            return None
        hidden_ND, num_slots = call.hidden_ND.float(), call.logits_NS.shape[1]
        weight_MD = self._weights.get(site.path)
        if weight_MD is None:
            draw = torch.Generator().manual_seed(seed_of(self.seed, site.path))
            weight_MD = torch.randn(self.count * num_slots, hidden_ND.shape[1], generator=draw).to(hidden_ND.device)
            own_NS = call.logits_NS.float()[real_N]
            own_NS = own_NS.clamp_min(1e-30).log() if are_probabilities(own_NS) else own_NS
            drawn_NRS = unflattened(hidden_ND[real_N] @ weight_MD.T, self.count)
            weight_MD = weight_MD * (spread(own_NS) / spread(drawn_NRS).clamp_min(1e-30))
            self._weights[site.path] = weight_MD
        return unflattened(hidden_ND @ weight_MD.T, self.count)

    def add_random(
        self, shape: SelectorShape, row_N: Integers, logits_NRS: Tensor, *, rule: Rule, position_N: Integers
    ) -> None:
        """Count what the random routers choose."""
        for number in range(self.count):
            logits_NS = logits_NRS[:, number]
            slot_NK = choose(logits_NS, int(shape.num_chosen), rule)
            probs_NS = probabilities(logits_NS, rule.scores or "softmax")
            self.builders[f"random {number + 1}"].add(
                shape, row_N, slot_NK.cpu().numpy(), position_N=position_N, probs_NS=probs_NS.cpu().numpy()
            )

    def add_hash(self, shape: SelectorShape, row_N: Integers, token_N: Integers, position_N: Integers) -> None:
        """Count what a hash of the token ids chooses; its probabilities are 1/k on each of the k slots."""
        slot_NK = hashed_slots(token_N, shape, self.seed)
        probs_NS = np.zeros((len(token_N), shape.num_slots), dtype=np.float32)
        np.put_along_axis(probs_NS, slot_NK, 1 / shape.num_chosen, axis=1)
        self.builders[HASH].add(shape, row_N, slot_NK, position_N=position_N, probs_NS=probs_NS)


def unflattened(logits_NM: Tensor, count: int) -> Tensor:
    """Return the logits of `count` routers side by side as one axis more, (N, R, S)."""
    return logits_NM.view(len(logits_NM), count, -1)


def spread(logits_NS: Tensor) -> Tensor:
    """Return the standard deviation of a decision's logits over its slots, root mean square over decisions."""
    return logits_NS.var(-1, unbiased=False).mean().sqrt()


def choose(logits_NS: Tensor, num_chosen: int, rule: Rule) -> Tensor:
    """Return the slots that a router without bias chooses, (N, K), the best first."""
    score_NS = FUNCTIONS[rule.scores or "softmax"](logits_NS)
    if rule.num_groups > 1:
        by_group = score_NS.unflatten(1, (rule.num_groups, -1))
        group_score = by_group.topk(rule.best_in_group, dim=-1).values.sum(-1)
        kept = torch.zeros_like(group_score, dtype=torch.bool)
        kept.scatter_(1, group_score.topk(rule.kept_groups, dim=-1).indices, True)
        score_NS = by_group.masked_fill(~kept[..., None], -torch.inf).flatten(1)
    return score_NS.topk(num_chosen, dim=-1).indices


def seed_of(seed: int, path: str) -> int:
    """Return the seed of one router's shadows."""
    return (seed << 32) ^ zlib.crc32(path.encode())


def hashed_slots(token_N: Integers, shape: SelectorShape, seed: int) -> Integers:
    """Return k different slots of each token id, (N, K): a start and a step that have no common divisor with S."""
    steps = np.array([step for step in range(1, shape.num_slots + 1) if math.gcd(step, shape.num_slots) == 1])
    salt = seed_of(seed, shape.path)
    start_N = mixed(token_N, salt) % np.uint64(shape.num_slots)
    step_N = steps[mixed(token_N, salt + 1) % np.uint64(len(steps))]
    slot_NK: Integers = start_N.astype(np.int64)[:, None] + step_N[:, None] * np.arange(shape.num_chosen)
    return slot_NK % shape.num_slots


def mixed(value_N: Integers, salt: int) -> npt.NDArray[np.uint64]:
    """Return pseudo-random numbers that depend on value and salt alone (SplitMix64, Steele et al. 2014)."""
    salted = np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    z_N = value_N.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + salted
    z_N = (z_N ^ (z_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z_N = (z_N ^ (z_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z_N ^ (z_N >> np.uint64(31))
