"""Metrics of sparse attention, recorded while metrics are collected, besides those of model/attention_metrics.py.

    recall                share of dense attention's mass on the chosen keys; of queries that see more than they take
    k_mean                number of keys that a query takes
    k_share (at)          share of queries whose number of keys is in the bin that ends at `at`
    k_by_entropy (at)     number of keys of queries, binned by dense attention's share of the largest entropy possible
    leak                  of the queries in a block's first half, the share that takes other numbers of keys than if
                          that half were alone; of adaptive budgets, and 0 if no later token decides

B blocks of T queries and S keys, C queries at once, k chosen keys.
"""

import torch
from torch import Tensor

from speciate.model.attention_metrics import follows_another_token
from speciate.model.sparse_attention.attention import KeyChoice, SparseAttention
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import TokenBatch
from speciate.selection.metrics import record_metric

BINS = 8


@torch.no_grad()
def record_choice(
    selector: SparseAttention, inputs: AttentionInputs, choice: KeyChoice, mass_BTk: Tensor, *, tokens: TokenBatch
) -> None:
    """Record how the choice compares with dense attention, and how many keys were chosen.

    Args:
        selector: the module that chose, and that records.
        inputs: queries and keys that it chose from.
        choice: the chosen keys.
        mass_BTk: attention on the chosen keys.
        tokens: the queries' tokens.
    """
    first_BTk = inputs.position_BS[:, None].expand(-1, inputs.query_BTNh.shape[1], -1).gather(2, choice.index_BTk) == 0
    share_BT = (mass_BTk * (first_BTk & choice.valid_BTk)).sum(-1)
    record_metric(selector, "first_token_share", share_BT[follows_another_token(tokens)])
    real_BT, keys_BT = tokens.index_BT >= 0, choice.valid_BTk.sum(-1).double()
    record_metric(selector, "k_mean", keys_BT[real_BT])
    for upper in range(1, BINS + 1):
        low, high = (selector.budget.max_keys * edge / BINS for edge in (upper - 1, upper))
        record_metric(selector, "k_share", ((keys_BT > low) & (keys_BT <= high))[real_BT], at=high)
    for columns, part in inputs.parts(inputs.query_BTNh.shape[2]):
        visible_BCS = part.visible().expand(len(share_BT), -1, -1)
        mass_BCS, number_BC = part.mass(visible_BCS), visible_BCS.sum(-1)
        index_BCk, valid_BCk = choice.index_BTk[:, columns], choice.valid_BTk[:, columns]
        recall_BC = (mass_BCS.gather(2, index_BCk) * valid_BCk).sum(-1)
        record_metric(selector, "recall", recall_BC[real_BT[:, columns] & (number_BC > keys_BT[:, columns])])
        # if fewer keys are visible than may be taken, the number of visible keys decides
        free_BC = real_BT[:, columns] & (number_BC > selector.budget.max_keys)
        entropy_BC = -torch.xlogy(mass_BCS, mass_BCS).sum(-1) / number_BC.log()
        for upper in range(1, BINS + 1):
            in_bin_BC = free_BC & ((entropy_BC * BINS).ceil().clamp(1, BINS) == upper)
            record_metric(selector, "k_by_entropy", keys_BT[:, columns][in_bin_BC], at=upper / BINS)
    if selector.budget.adaptive:
        record_metric(selector, "leak", leak(selector, inputs, choice)[real_BT[:, : inputs.query_BTNh.shape[1] // 2]])


def leak(selector: SparseAttention, inputs: AttentionInputs, choice: KeyChoice) -> Tensor:
    """Tell which queries of a block's first half take more or fewer keys than if it were alone; (B, T / 2)."""
    half = inputs.query_BTNh.shape[1] // 2
    moved: list[Tensor] = []
    for block in range(len(inputs.query_BTNh)):
        alone = selector.choose(inputs.block(block).part(0, half))
        k = alone.valid_BTk.shape[2]
        in_block_Tk = choice.valid_BTk[block, :half]
        differs_T = (in_block_Tk[:, :k] != alone.valid_BTk[0]).any(-1) | in_block_Tk[:, k:].any(-1)
        moved.append(differs_T)
    return torch.stack(moved)
