"""Base classes of sparse attention's indexers and budgets (Gated Sparse Attention, arXiv 2601.15305).

    I_ts = sum_j sigmoid(w_j . x_t) act(q_tj . k_s / sqrt(i) + b_j),   act = sigmoid or relu,   q_tj, k_s linear in x

Query t attends to the keys of its k_t largest I_ts, the same for all heads of attention. The indexer's heads share the
key, and nothing here depends on positions. Two folders hold the components, one class a file:

    indexer/<kind>.py   Indexer(options, context)   an Indexer: how keys are ranked, and what it learns from
    budget/<kind>.py    Budget(options)             a Budget: how many keys each query takes

B blocks of T queries and S keys, J heads of i dimensions, C queries at once, k chosen keys, D width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.model.sparse_attention.budget_options import AdaptiveBudgetOptions
from speciate.model.sparse_attention.gather_recompute import gather_recompute
from speciate.model.sparse_attention.indexer_options import IndexerHeadsOptions
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import BuildContext

TILE = 2**17
"""Number of scores of an indexer's heads held at once."""


class Indexer(nn.Module):
    """Base of every indexer kind; it has nothing to learn."""

    num_heads = 1
    """Number of scores of each pair of query and key that it holds at once."""
    dense = False
    """Whether attention is now over all keys in training, while the indexer only learns to rank them."""

    def before_update(self, progress: float) -> None:
        """Prepare the next optimizer step; `progress` is the share of the training done, in [0, 1)."""

    def features(self, x_BTD: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return (each token's features as a query, its features as a key), each (B, T, ...)."""
        return (), ()

    def scores(self, inputs: AttentionInputs) -> Tensor:
        """Return the scores by which keys are ranked, (B, T, S); for keys that are not visible, anything finite."""
        raise NotImplementedError

    def probabilities(self, score_BTS: Tensor, k: int) -> Tensor:
        """Return the probabilities that the Selection reports, (B, T, S); scores of unseen keys are -inf."""
        return score_BTS.softmax(-1)

    def chosen_scores(self, inputs: AttentionInputs, index_BTk: Tensor) -> Tensor | None:
        """Return the chosen keys' scores with gradient, (B, T, k); None if nothing learns from them."""
        return None

    def bias(self, score_BTk: Tensor) -> Tensor | None:
        """Return what is added to attention's logits of the chosen keys; None: nothing."""
        return None

    def divergence(self, score_BTk: Tensor, mass_BTk: Tensor, valid_BTk: Tensor) -> Tensor | None:
        """Return the indexer's loss, (B, T), given the attention `mass_BTk` on the same keys; None: it has no loss."""
        return None

    def key_flops(self, length: float, k: float) -> float:
        """Return the FLOPs of one token's ranking and of the scores that it learns from; see profiling/flops.py."""
        return 0.0


class LearnedIndexer(Indexer):
    """The indexer of the equation above.

    Args:
        options: numbers of heads and dimensions.
        context: the model and the layer.
        activation: `sigmoid` or `relu`.
        detached: stop the gradient from the indexer to x.
        frozen: keep the weights as buffers, which nothing trains.
    """

    def __init__(
        self,
        options: IndexerHeadsOptions,
        context: BuildContext,
        *,
        activation: str = "sigmoid",
        detached: bool,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.width, self.detached = options.heads, options.width, detached
        self.relu = activation == "relu"
        self.query = nn.Linear(context.model.width, self.heads * self.width, bias=False)
        self.key = nn.Linear(context.model.width, self.width, bias=False)
        self.gate = nn.Linear(context.model.width, self.heads, bias=False)
        self.bias_J = nn.Parameter(torch.zeros(self.heads))
        self.learns = not frozen
        if frozen:
            for linear in (self.query, self.key, self.gate):
                freeze(linear, "weight")
            freeze(self, "bias_J")

    def features(self, x_BTD: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return ((queries, gates), (keys,)) in the precision of the weights; queries are scaled."""
        x_BTD = (x_BTD.detach() if self.detached else x_BTD).to(self.bias_J.dtype)
        query_BTJi = self.query(x_BTD).unflatten(-1, (self.heads, self.width)) * self.width**-0.5
        return (query_BTJi, self.gate(x_BTD).sigmoid()), (self.key(x_BTD),)

    def scores(self, inputs: AttentionInputs) -> Tensor:
        """Return I, computed for some keys at a time, so that the heads' scores stay in a processor's cache."""
        (query_BTJi, gate_BTJ), (key_BSi,) = inputs.query_features, inputs.key_features
        size = max(1, TILE // max(1, gate_BTJ.numel()))
        query_BMi, gate_BT1J = query_BTJi.flatten(1, 2), gate_BTJ.unsqueeze(2)
        tiles: list[Tensor] = []
        for key_Bsi in key_BSi.split(size, dim=1):
            logit_BTJs = (query_BMi @ key_Bsi.mT).unflatten(1, query_BTJi.shape[1:3]).add_(self.bias_J[:, None])
            active_BTJs = logit_BTJs.relu_() if self.relu else logit_BTJs.sigmoid_()
            tiles.append((gate_BT1J @ active_BTJs).squeeze(2))
        return torch.cat(tiles, dim=-1)

    def chosen_scores(self, inputs: AttentionInputs, index_BTk: Tensor) -> Tensor | None:
        """Return I of the chosen keys; the backward pass recomputes it."""
        if not self.learns:
            return None
        per_query = [tensor.flatten(0, 1) for tensor in inputs.query_features]
        per_key = [tensor.flatten(0, 1) for tensor in inputs.key_features]
        index_Rk = flat_rows(index_BTk, inputs)
        (score_Rk,) = gather_recompute(self._scores_of_chosen, index_Rk, per_query, per_key, shared=[self.bias_J])
        return score_Rk.view(index_BTk.shape)

    def _scores_of_chosen(
        self, per_query: Sequence[Tensor], per_key: Sequence[Tensor], shared: Sequence[Tensor]
    ) -> tuple[Tensor]:
        (query_CJi, gate_CJ), (key_Cki,), (bias_J,) = per_query, per_key, shared
        logit_CJk = query_CJi @ key_Cki.mT + bias_J[:, None]
        active_CJk = logit_CJk.relu() if self.relu else logit_CJk.sigmoid()
        return ((gate_CJ.unsqueeze(1) @ active_CJk).squeeze(1),)

    def key_flops(self, length: float, k: float) -> float:
        """Return the FLOPs; ranking all keys has no backward pass, so it counts a third, which the caller triples."""
        flops_per_key: float = 2.0 * self.heads * (self.width + 1)
        return flops_per_key * (length / 3 + (k if self.learns else 0))


class Budget(nn.Module):
    """Base of every budget kind: how many keys each query takes, at most `max_keys`."""

    adaptive = False
    """Whether the number depends on the scores; only then are the two methods called."""

    def __init__(self, max_keys: int) -> None:
        super().__init__()
        self.max_keys = max_keys

    def dispersion(self, score_BTS: Tensor, visible_BTS: Tensor, num_keys: int) -> Tensor:
        """Return the dispersion of each query's scores, (B, T)."""
        raise NotImplementedError

    def counts(
        self, dispersion_BT: Tensor, document_BT: Tensor | None, before: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return (number of keys of each query, (B, T) integer; the state for the next tokens, each (B, ...))."""
        raise NotImplementedError


def keys_by_ratio(ratio_BT: Tensor, options: AdaptiveBudgetOptions) -> Tensor:
    """Return k (1/2 + 1 / (1 + temperature ratio)), rounded, in [k_min, k_max], (B, T)."""
    keys_BT: Tensor = options.k * (0.5 + 1 / (1 + options.temperature * ratio_BT))
    return keys_BT.round().long().clamp(options.k_min, options.k_max)


def flat_rows(index_BTk: Tensor, inputs: AttentionInputs) -> Tensor:
    """Turn indices into each block's keys into rows of all blocks' keys, (B T, k)."""
    first_B11 = torch.arange(len(index_BTk), device=index_BTk.device).view(-1, 1, 1) * inputs.key_BSKh.shape[1]
    return (index_BTk + first_B11).flatten(0, 1)


def masked_kl(mass_BTS: Tensor, score_BTS: Tensor, valid_BTS: Tensor) -> Tensor:
    """Return KL(mass || softmax of the scores) over the valid keys of each query, (B, T); the mass gets no gradient."""
    mass_BTS = mass_BTS.detach()
    log_BTS = F.log_softmax(score_BTS.masked_fill(~valid_BTS, -torch.inf), dim=-1).masked_fill(~valid_BTS, 0.0)
    return (torch.xlogy(mass_BTS, mass_BTS) - mass_BTS * log_BTS).sum(-1)


def freeze(module: nn.Module, name: str) -> None:
    """Replace a parameter by a buffer of the same name, which is drawn and saved alike, and never trained."""
    parameter = getattr(module, name)
    delattr(module, name)
    module.register_buffer(name, parameter.detach().clone())
