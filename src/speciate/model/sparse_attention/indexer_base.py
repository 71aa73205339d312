"""Which keys a query attends to: how keys are ranked and how many are taken (Gated Sparse Attention, arXiv 2601.15305).

    I_ts = sum_j sigmoid(w_j . x_t) act(q_tj . k_s / sqrt(i) + b_j),   act = sigmoid or relu,   q_tj, k_s linear in x

Query t attends to the keys of its k_t largest I_ts, the same for all heads of attention. The key is shared by the
indexer's heads, and nothing here knows of positions. Two folders of kinds, one class a file:

    indexer/<kind>.py   Indexer(options, place)   an Indexer: how keys are ranked, and what it learns from
    budget/<kind>.py    Budget(options)           a Budget: how many of them each query takes

B blocks of T queries and S keys, J heads of i dimensions, C queries at once, k chosen keys, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.model.sparse_attention.gather_recompute import gather_recompute
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import BuildContext

TILE = 2**17
"""Scores of an indexer's heads, held at once."""


class Indexer(nn.Module):
    """What every indexer kind is; this one learns nothing."""

    num_heads = 1
    """Scores of each pair of query and key that it holds at once."""
    dense = False
    """Whether attention is over all keys while it trains, and the indexer only learns to rank them."""

    def before_update(self, progress: float) -> None:
        """Called before each optimizer step; progress in [0, 1)."""

    def features(self, x_BTD: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(what each token asks with, what is kept of it as a key), each (B, T, ...)."""
        return (), ()

    def scores(self, view: AttentionInputs) -> Tensor:
        """What keys are ranked by, (B, T, S); where a key is not visible, anything finite."""
        raise NotImplementedError

    def probabilities(self, score_BTS: Tensor, k: int) -> Tensor:
        """What the Selection reports, (B, T, S), of scores that are -inf where no key is seen; rows sum to one."""
        return score_BTS.softmax(-1)

    def chosen_scores(self, view: AttentionInputs, index_BTk: Tensor) -> Tensor | None:
        """The scores of the chosen keys with gradient, (B, T, k); None where nothing learns from them."""
        return None

    def bias(self, score_BTk: Tensor) -> Tensor | None:
        """What is added to attention's logits of the chosen keys; None: nothing."""
        return None

    def divergence(self, score_BTk: Tensor, mass_BTk: Tensor, valid_BTk: Tensor) -> Tensor | None:
        """What the indexer minimises, (B, T), given the attention `mass_BTk` on the same keys; None: nothing."""
        return None

    def key_flops(self, length: int, k: int) -> float:
        """Of one token's ranking and its share of what is learned from; see model/profiling/flops.py."""
        return 0.0


class Learned(Indexer):
    """The indexer of the equation above, from the options `heads`, `width` and `activation`.

    Args:
        options: of a kind that has them.
        place: where in the model.
        detached: no gradient leaves the indexer by x.
        frozen: its weights are buffers, which nothing trains.
    """

    def __init__(self, options: Any, place: BuildContext, *, detached: bool, frozen: bool = False) -> None:
        super().__init__()
        self.heads, self.width, self.detached = options.heads, options.width, detached
        self.relu = options.activation == "relu"
        self.query = nn.Linear(place.model.width, self.heads * self.width, bias=False)
        self.key = nn.Linear(place.model.width, self.width, bias=False)
        self.gate = nn.Linear(place.model.width, self.heads, bias=False)
        self.bias_J = nn.Parameter(torch.zeros(self.heads))
        self.learns = not frozen
        if frozen:
            for linear in (self.query, self.key, self.gate):
                freeze(linear, "weight")
            freeze(self, "bias_J")

    def features(self, x_BTD: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """((queries, gates), (keys,)), in the weights' own precision; queries are scaled."""
        x_BTD = (x_BTD.detach() if self.detached else x_BTD).to(self.bias_J.dtype)
        query_BTJi = self.query(x_BTD).unflatten(-1, (self.heads, self.width)) * self.width**-0.5
        return (query_BTJi, self.gate(x_BTD).sigmoid()), (self.key(x_BTD),)

    def scores(self, view: AttentionInputs) -> Tensor:
        """I, made for some keys at a time, so that the heads' scores stay in a processor's cache."""
        (query_BTJi, gate_BTJ), (key_BSi,) = view.asked, view.kept
        size = max(1, TILE // max(1, gate_BTJ.numel()))
        query_BMi, gate_BT1J = query_BTJi.flatten(1, 2), gate_BTJ.unsqueeze(2)
        tiles: list[Tensor] = []
        for key_Bsi in key_BSi.split(size, dim=1):
            logit_BTJs = (query_BMi @ key_Bsi.mT).unflatten(1, query_BTJi.shape[1:3]).add_(self.bias_J[:, None])
            active_BTJs = logit_BTJs.relu_() if self.relu else logit_BTJs.sigmoid_()
            tiles.append((gate_BT1J @ active_BTJs).squeeze(2))
        return torch.cat(tiles, dim=-1)

    def chosen_scores(self, view: AttentionInputs, index_BTk: Tensor) -> Tensor | None:
        """I of the chosen keys; made again for the backward pass."""
        if not self.learns:
            return None
        asked = [tensor.flatten(0, 1) for tensor in view.asked]
        kept = [tensor.flatten(0, 1) for tensor in view.kept]
        (score_Rk,) = gather_recompute(self._scores_of_chosen, rows(index_BTk, view), asked, kept, [self.bias_J])
        return score_Rk.view(index_BTk.shape)

    def _scores_of_chosen(
        self, asked: Sequence[Tensor], kept: Sequence[Tensor], shared: Sequence[Tensor]
    ) -> tuple[Tensor]:
        (query_CJi, gate_CJ), (key_Cki,), (bias_J,) = asked, kept, shared
        logit_CJk = query_CJi @ key_Cki.mT + bias_J[:, None]
        active_CJk = logit_CJk.relu() if self.relu else logit_CJk.sigmoid()
        return ((gate_CJ.unsqueeze(1) @ active_CJk).squeeze(1),)

    def key_flops(self, length: int, k: int) -> float:
        """The ranking of all keys has no backward pass: a third, since the caller triples."""
        of_a_key: float = 2.0 * self.heads * (self.width + 1)
        return of_a_key * (length / 3 + (k if self.learns else 0))


class Budget(nn.Module):
    """What every budget kind is: how many keys each query takes, at most `most`."""

    adaptive = False
    """Whether it depends on the scores; one that does not needs none of the rest."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def spread(self, score_BTS: Tensor, visible_BTS: Tensor, num_keys: int) -> Tensor:
        """What it needs to know of each query's scores, (B, T)."""
        raise NotImplementedError

    def counts(
        self, spread_BT: Tensor, document_BT: Tensor | None, before: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(keys of each query, (B, T) integer; what the next tokens need to know of these, each (B, ...))."""
        raise NotImplementedError


def keys_by_ratio(ratio_BT: Tensor, options: Any) -> Tensor:
    """k (1/2 + 1 / (1 + temperature ratio)) in [k_min, k_max], rounded, (B, T): fewer keys where scores spread more."""
    keys_BT: Tensor = options.k * (0.5 + 1 / (1 + options.temperature * ratio_BT))
    return keys_BT.round().long().clamp(options.k_min, options.k_max)


def rows(index_BTk: Tensor, view: AttentionInputs) -> Tensor:
    """Indices into each block's keys as rows of all blocks' keys, (B T, k)."""
    first_B11 = torch.arange(len(index_BTk), device=index_BTk.device).view(-1, 1, 1) * view.key_BSKh.shape[1]
    return (index_BTk + first_B11).flatten(0, 1)


def kl(mass_BTS: Tensor, score_BTS: Tensor, valid_BTS: Tensor) -> Tensor:
    """KL(mass || softmax of the scores) over the valid keys of each query, (B, T); the mass is given."""
    mass_BTS = mass_BTS.detach()
    log_BTS = F.log_softmax(score_BTS.masked_fill(~valid_BTS, -torch.inf), dim=-1).masked_fill(~valid_BTS, 0.0)
    return (torch.xlogy(mass_BTS, mass_BTS) - mass_BTS * log_BTS).sum(-1)


def freeze(module: nn.Module, name: str) -> None:
    """Makes a parameter a buffer of the same name, which is drawn and saved alike, and never learned."""
    parameter = getattr(module, name)
    delattr(module, name)
    module.register_buffer(name, parameter.detach().clone())
