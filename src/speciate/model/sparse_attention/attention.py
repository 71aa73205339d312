"""Attention over the keys that an indexer chose: the selector of Gated Sparse Attention.

    o_t = sum over the chosen s of softmax_s(q_t . k_s / sqrt(h)) v_s    for each head

Truly sparse: scores of all keys are made for some queries at a time and dropped (view.py), of the choice k indices a
query are kept, and the backward pass gathers the chosen keys again (weighing.py). At k fixed, memory grows with T. The
indexer's ranking alone takes time with T^2, and little of it. While an indexer warms up, attention is over all keys,
again for some queries at a time, with nothing of T x T kept.

B blocks of T queries and S keys, N query and K key heads of h dimensions, k chosen keys.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from speciate.config.contracts.model import BudgetOptions, IndexerOptions
from speciate.model.sparse_attention.gathered_softmax import gathered_attention
from speciate.model.sparse_attention.indexer_base import Budget, Indexer, rows
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.sparse_attention.stable_top_k import stable_top_k
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.selection import Selection, Selector


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The keys of each query."""

    index_BTk: Tensor
    """Which, the best first; where a query has fewer, its own column."""
    valid_BTk: Tensor
    """Whether it is one."""
    after: tuple[Tensor, ...]
    """What a budget needs to know of these tokens when there are more."""


@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """What the heads took, and a report of what they could take it from."""

    mixed_BTNh: Tensor
    choice: Choice | None
    """None where attention was dense."""
    mass_BTk: Tensor | None
    """The share of each query's attention, averaged over heads, on each chosen key."""
    report: Callable[[], Selection]

    @property
    def selection(self) -> Selection:
        """What was selected; made when asked for, since it looks at every key once more."""
        return self.report()


class SparseAttention(Selector):
    """Chooses keys and attends to them.

    Args:
        indexer: options of a kind of model/sparse_attention/indexer.
        budget: options of a kind of model/sparse_attention/budget.
        place: where in the model.
    """

    def __init__(self, indexer: IndexerOptions, budget: BudgetOptions, place: BuildContext) -> None:
        super().__init__()
        self.indexer: Indexer = indexer.component().Indexer(indexer, place)
        self.budget: Budget = budget.component().Budget(budget)
        self.edges = [2**power for power in range((place.model.context - 1).bit_length())]
        self.num_slots = 2 + len(self.edges)

    def before_update(self, progress: float) -> None:
        """Lets the indexer pass from one stage to the next."""
        self.indexer.before_update(progress)

    def forward(
        self, view: AttentionInputs, value_BSKh: Tensor, tokens: TokenBatch, before: tuple[Tensor, ...] = ()
    ) -> Attended:
        """What each head takes from the keys in view.

        Args:
            view: queries and keys, with the indexer's features.
            value_BSKh: of each key.
            tokens: of the queries.
            before: what the budget wanted to know of the tokens before these.
        """
        real_BT = tokens.index_BT >= 0
        if self.training and self.indexer.dense:
            mixed_BTNh, divergence_BT = self._dense(view, value_BSKh)
            loss = _mean(divergence_BT, real_BT)
            return Attended(mixed_BTNh, None, None, lambda: nothing(self.num_slots, loss))
        choice = self.choose(view, before)
        score_BTk = self.indexer.chosen_scores(view, choice.index_BTk)
        bias_BTk = None if score_BTk is None else self.indexer.bias(score_BTk)
        mixed_BTNh, mass_BTk = attend(view, value_BSKh, choice, bias_BTk)
        loss = mixed_BTNh.new_zeros((), dtype=torch.float32)
        if score_BTk is not None:
            divergence = self.indexer.divergence(score_BTk, mass_BTk, choice.valid_BTk)
            loss = loss if divergence is None else _mean(divergence, real_BT)

        def report() -> Selection:
            # in training nobody reads the decisions, and they would cost as much as the choice itself
            return nothing(self.num_slots, loss) if self.training else self.selection(view, choice, tokens, loss)

        return Attended(mixed_BTNh, choice, mass_BTk, report)

    @torch.no_grad()
    def choose(self, view: AttentionInputs, before: tuple[Tensor, ...] = ()) -> Choice:
        """The keys of each query."""
        most = min(self.budget.most, view.key_BSKh.shape[1])
        found: list[tuple[Tensor, Tensor]] = []
        spreads: list[Tensor] = []
        for columns, part in view.parts(self.indexer.num_heads):
            score_BCS = self.indexer.scores(part)
            if self.budget.adaptive:
                spreads.append(self.budget.spread(score_BCS, part.visible(), view.key_BSKh.shape[1]))
            width = min(most, score_BCS.shape[-1])
            index_BCk = stable_top_k(part.hide(score_BCS), width)
            valid_BCk = score_BCS.gather(2, index_BCk) > -torch.inf
            own_C1 = torch.arange(columns.start, columns.stop, device=index_BCk.device)[:, None] + view.first
            index_BCk = torch.where(valid_BCk, index_BCk, own_C1)
            if width < most:
                index_BCk = torch.cat((index_BCk, own_C1.expand(len(index_BCk), -1, most - width)), dim=2)
                valid_BCk = torch.nn.functional.pad(valid_BCk, (0, most - width))
            found.append((index_BCk, valid_BCk))
        index_BTk, valid_BTk = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        if not self.budget.adaptive:
            return Choice(index_BTk, valid_BTk, ())
        count_BT, after = self.budget.counts(torch.cat(spreads, dim=1), view.document_BT, before)
        rank_k = torch.arange(most, device=index_BTk.device)
        return Choice(index_BTk, valid_BTk & (rank_k < count_BT[:, :, None]), after)

    def _dense(self, view: AttentionInputs, value_BSKh: Tensor) -> tuple[Tensor, Tensor]:
        """Attention over all keys, (B, T, N, h), and the indexer's divergence from it, (B, T)."""
        found = [
            checkpoint(self._dense_part, part, value_BSKh[:, : part.key_BSKh.shape[1]], use_reentrant=False)
            for _, part in view.parts(view.query_BTNh.shape[2])
        ]
        mixed_BTNh, divergence_BT = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return mixed_BTNh, divergence_BT

    def _dense_part(self, part: AttentionInputs, value_BSKh: Tensor) -> tuple[Tensor, Tensor]:
        visible_BCS = part.visible()
        mixed, masses = [], []
        for weight_BCGS, value_BSh in zip(part.weights(visible_BCS), value_BSKh.unbind(2), strict=True):
            mixed_BMh = weight_BCGS.flatten(1, 2).to(value_BSh.dtype) @ value_BSh
            mixed.append(mixed_BMh.unflatten(1, weight_BCGS.shape[1:3]))
            masses.append(weight_BCGS.detach().sum(2))
        mass_BCS = torch.stack(masses).sum(0) / part.query_BTNh.shape[2]
        score_BCS = self.indexer.scores(part)
        divergence_BC = self.indexer.divergence(score_BCS, mass_BCS, visible_BCS.expand_as(mass_BCS))
        assert divergence_BC is not None, "what warms up learns"
        return torch.cat(mixed, dim=2), divergence_BC

    def slots(self, position_BT: Tensor, position_BS: Tensor) -> Tensor:
        """0: the context's first token; b + 1: a key at a distance from 2^(b-1) to below 2^b, b = 0 at 0; integer."""
        edges = torch.tensor(self.edges, device=position_BT.device)
        bucket = torch.bucketize((position_BT - position_BS).clamp_min(0), edges, right=True)
        return torch.where(position_BS == 0, 0, bucket + 1)

    @torch.no_grad()
    def selection(self, view: AttentionInputs, choice: Choice, tokens: TokenBatch, loss: Tensor) -> Selection:
        """A decision a query: its probabilities, chosen keys and visible keys, by slot."""
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for columns, part in view.parts(self.indexer.num_heads):
            visible_BCS = part.visible().expand(len(choice.index_BTk), -1, -1)
            score_BCS = part.hide(self.indexer.scores(part))
            slot_BCS = self.slots(part.position_BT[:, :, None], part.position_BS[:, None, :])
            prob_BCS = self.indexer.probabilities(score_BCS, self.budget.most)
            index_BCk, valid_BCk = choice.index_BTk[:, columns], choice.valid_BTk[:, columns]
            weighed = ((slot_BCS, prob_BCS), (slot_BCS.gather(2, index_BCk), valid_BCk), (slot_BCS, visible_BCS))
            found.append(tuple(self._by_slot(*pair) for pair in weighed))  # type: ignore[arg-type]
        probs_NS, chosen_NS, null_NS = (torch.cat(parts, dim=1).flatten(0, 1) for parts in zip(*found, strict=True))
        return Selection(probs_NS, chosen_NS, null_NS, tokens.index_BT.flatten(), loss)

    def _by_slot(self, slot_BCM: Tensor, weight_BCM: Tensor) -> Tensor:
        """The share of the weight in each slot, (B, C, slots)."""
        weight_BCM = weight_BCM.to(torch.promote_types(weight_BCM.dtype, torch.float32))
        total_BCS = weight_BCM.new_zeros((*slot_BCM.shape[:2], self.num_slots)).scatter_add_(2, slot_BCM, weight_BCM)
        return total_BCS / total_BCS.sum(-1, keepdim=True)


def attend(view: AttentionInputs, value_BSKh: Tensor, choice: Choice, bias_BTk: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each head's mean of chosen values, (B, T, N, h), and the attention on each key, the heads' mean, (B, T, k)."""
    mixed_RNh, mass_Rk = gathered_attention(
        view.query_BTNh.flatten(0, 1),
        view.key_BSKh.flatten(2).flatten(0, 1),
        value_BSKh.flatten(2).flatten(0, 1),
        None if bias_BTk is None else bias_BTk.flatten(0, 1),
        rows(choice.index_BTk, view),
        choice.valid_BTk.flatten(0, 1),
    )
    return mixed_RNh.view(view.query_BTNh.shape), mass_Rk.view(choice.index_BTk.shape)


def nothing(num_slots: int, loss: Tensor) -> Selection:
    """No decision, and a loss."""
    none_NS = loss.new_zeros((0, num_slots))
    return Selection(none_NS, none_NS, none_NS, torch.zeros(0, dtype=torch.long, device=loss.device), loss)


def _mean(divergence_BT: Tensor, real_BT: Tensor) -> Tensor:
    """Over the queries that are no padding."""
    return (divergence_BT * real_BT).sum() / real_BT.sum().clamp_min(1)
