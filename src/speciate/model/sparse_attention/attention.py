"""Sparse attention over the keys that an indexer chose: the selector of Gated Sparse Attention.

    o_t = sum over the chosen s of softmax_s(q_t . k_s / sqrt(h)) v_s    for each head

Its memory is truly sparse. Scores of all keys are computed for some queries at a time and dropped (query_chunks.py),
only k indices a query are kept, and the backward pass gathers the chosen keys again (gathered_softmax.py). At fixed k,
memory grows with T. Only the indexer's ranking takes time that grows with T^2, and it is a small part. While an indexer
warms up, attention is over all keys, again for some queries at a time, and nothing of size T x T is kept.

B blocks of T queries and S keys, N query and K key heads of h dimensions, k chosen keys.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from speciate.config.contracts.model import BudgetOptions, IndexerOptions
from speciate.model.sparse_attention.gathered_softmax import gathered_attention
from speciate.model.sparse_attention.indexer_base import Budget, Indexer, flat_rows
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.sparse_attention.stable_top_k import stable_top_k
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.selection import Selection, Selector


@dataclass(frozen=True, slots=True, eq=False)
class KeyChoice:
    """The chosen keys of each query."""

    index_BTk: Tensor
    """Indices of the keys, the best first; unused places hold the query's own column."""
    valid_BTk: Tensor
    """Whether each place holds a chosen key."""
    after: tuple[Tensor, ...]
    """The budget's state after these tokens, for the next ones."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionOutput:
    """The heads' outputs, and how to report what was selected."""

    mixed_BTNh: Tensor
    choice: KeyChoice | None
    """The chosen keys; None if attention was dense."""
    mass_BTk: Tensor | None
    """Share of each query's attention on each chosen key, mean over heads."""
    report: Callable[[], Selection]
    """Computes the Selection."""

    @property
    def selection(self) -> Selection:
        """The Selection, computed on demand, since it looks at every key once more."""
        return self.report()


class SparseAttention(Selector):
    """Chooses keys and attends to them.

    Args:
        indexer: options of a kind of model/sparse_attention/indexer.
        budget: options of a kind of model/sparse_attention/budget.
        context: the model and the layer.
    """

    def __init__(self, indexer: IndexerOptions, budget: BudgetOptions, context: BuildContext) -> None:
        super().__init__()
        self.indexer: Indexer = indexer.component().Indexer(indexer, context)
        self.budget: Budget = budget.component().Budget(budget)
        self.edges = [2**power for power in range((context.model.context - 1).bit_length())]
        self.num_slots = 2 + len(self.edges)

    def before_update(self, progress: float) -> None:
        """Let the indexer end its warm-up."""
        self.indexer.before_update(progress)

    def forward(
        self, inputs: AttentionInputs, value_BSKh: Tensor, tokens: TokenBatch, before: tuple[Tensor, ...] = ()
    ) -> AttentionOutput:
        """Choose keys and return each head's output.

        Args:
            inputs: queries and keys, with the indexer's features.
            value_BSKh: value of each key.
            tokens: the queries' tokens.
            before: the budget's state after the tokens before these.
        """
        real_BT = tokens.index_BT >= 0
        if self.training and self.indexer.dense:
            mixed_BTNh, divergence_BT = self._dense(inputs, value_BSKh)
            loss = _mean(divergence_BT, real_BT)
            return AttentionOutput(mixed_BTNh, None, None, lambda: empty_selection(self.num_slots, loss))
        choice = self.choose(inputs, before)
        score_BTk = self.indexer.chosen_scores(inputs, choice.index_BTk)
        bias_BTk = None if score_BTk is None else self.indexer.bias(score_BTk)
        mixed_BTNh, mass_BTk = attend_to_chosen(inputs, value_BSKh, choice, bias_BTk)
        loss = mixed_BTNh.new_zeros((), dtype=torch.float32)
        if score_BTk is not None:
            divergence = self.indexer.divergence(score_BTk, mass_BTk, choice.valid_BTk)
            loss = loss if divergence is None else _mean(divergence, real_BT)

        def report() -> Selection:
            # in training nothing reads the decisions, and they would cost as much as the choice itself
            return (
                empty_selection(self.num_slots, loss) if self.training else self.selection(inputs, choice, tokens, loss)
            )

        return AttentionOutput(mixed_BTNh, choice, mass_BTk, report)

    @torch.no_grad()
    def choose(self, inputs: AttentionInputs, before: tuple[Tensor, ...] = ()) -> KeyChoice:
        """Choose the keys of each query."""
        most = min(self.budget.max_keys, inputs.key_BSKh.shape[1])
        choices: list[tuple[Tensor, Tensor]] = []
        dispersions: list[Tensor] = []
        for columns, part in inputs.parts(self.indexer.num_heads):
            score_BCS = self.indexer.scores(part)
            if self.budget.adaptive:
                dispersions.append(self.budget.dispersion(score_BCS, part.visible(), inputs.key_BSKh.shape[1]))
            width = min(most, score_BCS.shape[-1])
            index_BCk = stable_top_k(part.mask_unseen(score_BCS), width)
            valid_BCk = score_BCS.gather(2, index_BCk) > -torch.inf
            own_C1 = torch.arange(columns.start, columns.stop, device=index_BCk.device)[:, None] + inputs.first
            index_BCk = torch.where(valid_BCk, index_BCk, own_C1)
            if width < most:
                index_BCk = torch.cat((index_BCk, own_C1.expand(len(index_BCk), -1, most - width)), dim=2)
                valid_BCk = torch.nn.functional.pad(valid_BCk, (0, most - width))
            choices.append((index_BCk, valid_BCk))
        index_BTk, valid_BTk = (torch.cat(parts, dim=1) for parts in zip(*choices, strict=True))
        if not self.budget.adaptive:
            return KeyChoice(index_BTk, valid_BTk, ())
        count_BT, after = self.budget.counts(torch.cat(dispersions, dim=1), inputs.document_BT, before)
        rank_k = torch.arange(most, device=index_BTk.device)
        return KeyChoice(index_BTk, valid_BTk & (rank_k < count_BT[:, :, None]), after)

    def _dense(self, inputs: AttentionInputs, value_BSKh: Tensor) -> tuple[Tensor, Tensor]:
        """Return attention over all keys, (B, T, N, h), and the indexer's divergence from it, (B, T)."""
        outputs = [
            checkpoint(self._dense_part, part, value_BSKh[:, : part.key_BSKh.shape[1]], use_reentrant=False)
            for _, part in inputs.parts(inputs.query_BTNh.shape[2])
        ]
        mixed_BTNh, divergence_BT = (torch.cat(parts, dim=1) for parts in zip(*outputs, strict=True))
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
        assert divergence_BC is not None, "an indexer with a warm-up learns"
        return torch.cat(mixed, dim=2), divergence_BC

    def slots(self, position_BT: Tensor, position_BS: Tensor) -> Tensor:
        """Return each key's slot: 0: the context's first token; b + 1: a distance in [2^(b-1), 2^b), b = 0 at 0."""
        edges = torch.tensor(self.edges, device=position_BT.device)
        bucket = torch.bucketize((position_BT - position_BS).clamp_min(0), edges, right=True)
        return torch.where(position_BS == 0, 0, bucket + 1)

    @torch.no_grad()
    def selection(self, inputs: AttentionInputs, choice: KeyChoice, tokens: TokenBatch, loss: Tensor) -> Selection:
        """Report one decision a query: its probabilities, chosen keys and visible keys, by slot."""
        sums: list[tuple[Tensor, Tensor, Tensor]] = []
        for columns, part in inputs.parts(self.indexer.num_heads):
            visible_BCS = part.visible().expand(len(choice.index_BTk), -1, -1)
            score_BCS = part.mask_unseen(self.indexer.scores(part))
            slot_BCS = self.slots(part.position_BT[:, :, None], part.position_BS[:, None, :])
            prob_BCS = self.indexer.probabilities(score_BCS, self.budget.max_keys)
            index_BCk, valid_BCk = choice.index_BTk[:, columns], choice.valid_BTk[:, columns]
            weighted = ((slot_BCS, prob_BCS), (slot_BCS.gather(2, index_BCk), valid_BCk), (slot_BCS, visible_BCS))
            sums.append(tuple(self._sum_by_slot(*pair) for pair in weighted))  # type: ignore[arg-type]
        probs_NS, chosen_NS, null_NS = (torch.cat(parts, dim=1).flatten(0, 1) for parts in zip(*sums, strict=True))
        return Selection(probs_NS, chosen_NS, null_NS, tokens.index_BT.flatten(), loss)

    def _sum_by_slot(self, slot_BCM: Tensor, weight_BCM: Tensor) -> Tensor:
        """Return the share of the weight in each slot, (B, C, slots)."""
        weight_BCM = weight_BCM.to(torch.promote_types(weight_BCM.dtype, torch.float32))
        total_BCS = weight_BCM.new_zeros((*slot_BCM.shape[:2], self.num_slots)).scatter_add_(2, slot_BCM, weight_BCM)
        return total_BCS / total_BCS.sum(-1, keepdim=True)


def attend_to_chosen(
    inputs: AttentionInputs, value_BSKh: Tensor, choice: KeyChoice, bias_BTk: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return each head's output, (B, T, N, h), and the attention on each chosen key, mean over heads, (B, T, k)."""
    mixed_RNh, mass_Rk = gathered_attention(
        inputs.query_BTNh.flatten(0, 1),
        inputs.key_BSKh.flatten(2).flatten(0, 1),
        value_BSKh.flatten(2).flatten(0, 1),
        None if bias_BTk is None else bias_BTk.flatten(0, 1),
        index_Rk=flat_rows(choice.index_BTk, inputs),
        valid_Rk=choice.valid_BTk.flatten(0, 1),
    )
    return mixed_RNh.view(inputs.query_BTNh.shape), mass_Rk.view(choice.index_BTk.shape)


def empty_selection(num_slots: int, loss: Tensor) -> Selection:
    """Return a Selection with a loss and no decisions."""
    none_NS = loss.new_zeros((0, num_slots))
    return Selection(none_NS, none_NS, none_NS, torch.zeros(0, dtype=torch.long, device=loss.device), loss)


def _mean(divergence_BT: Tensor, real_BT: Tensor) -> Tensor:
    """Return the mean over the queries that are no padding."""
    return (divergence_BT * real_BT).sum() / real_BT.sum().clamp_min(1)
