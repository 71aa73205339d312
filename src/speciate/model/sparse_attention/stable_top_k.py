"""The exact top k of long rows, ties to the last.

torch.topk of 16,384 scores takes 50 microseconds on a CPU core, nearly all of it on scores that cannot be among 64
chosen. So the row is cut into groups of neighbours, and only the k groups of the largest maxima are looked into: if a
score of group g is among the top k and g is not, then each of those k groups has a score that comes before it. The
groups' maxima are a row again.

Equal scores are ordered by their place, the later first: which of them is chosen then never depends on how long the row
is, so that a decoder that reads one token at a time chooses as it would from the whole. Scores are compared in float32.

R rows, S scores each, k chosen, G groups, m candidates.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 8
"""Scores in a group."""


@torch.no_grad()
def stable_top_k(score_RS: Tensor, k: int) -> Tensor:
    """Where in its row the `k` largest scores are, (..., k), the largest first; k at most S, and no NaN among them."""
    lead, size = score_RS.shape[:-1], score_RS.shape[-1]
    return _stable_top_k(score_RS.reshape(-1, size).float(), k).view(*lead, k)


def _stable_top_k(score_RS: Tensor, k: int) -> Tensor:
    size, device = score_RS.shape[1], score_RS.device
    if size <= GROUP * k:
        return _ordered(score_RS, torch.arange(size, device=device), k)
    group_Rk = _stable_top_k(F.max_pool1d(score_RS, GROUP), k)
    inside_Rm = (group_Rk[:, :, None] * GROUP + torch.arange(GROUP, device=device)).flatten(1)
    rest_Rm = torch.arange(size // GROUP * GROUP, size, device=device).expand(len(score_RS), -1)
    place_Rm = torch.cat((inside_Rm, rest_Rm), dim=1)
    return _ordered(score_RS.gather(1, place_Rm), place_Rm, k)


def _ordered(score_RM: Tensor, place_RM: Tensor, k: int) -> Tensor:
    """The places of the k largest by (score, place): both in one integer, since floats order as their bits do."""
    bits_RM = (score_RM + 0.0).contiguous().view(torch.int32)  # + 0.0: minus zero is zero
    ordered_RM = bits_RM ^ ((bits_RM >> 31) & 0x7FFFFFFF)
    joint_RM = (ordered_RM.long() << 32) | place_RM
    return joint_RM.topk(k, dim=-1).values & 0xFFFFFFFF
