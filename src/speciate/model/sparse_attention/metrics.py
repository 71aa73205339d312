"""What sparse attention is measured by while somebody listens, beside what all attention is (attended.py).

    recall                share of dense attention's mass on the chosen keys, of queries that saw more than they took
    k_mean                keys that a query took
    k_share (at)          share of queries that took up to so many, and more than the bin before
    k_by_entropy (at)     keys of queries whose dense attention has up to this share of the largest possible entropy
    leak                  of the queries in a block's first half, the share that took more or fewer keys than they would
                          were that half alone; of a number of keys that adapts, and 0 where nothing later decides it

B blocks of T queries and S keys, C queries at once, k chosen keys.
"""

import torch
from torch import Tensor

from speciate.model.attention_metrics import after_first
from speciate.model.sparse_attention.attention import Choice, SparseAttention
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import TokenBatch
from speciate.selection.metrics import record_metric

BINS = 8


@torch.no_grad()
def record_choice(
    selector: SparseAttention, view: AttentionInputs, choice: Choice, mass_BTk: Tensor, tokens: TokenBatch
) -> None:
    """Notes what dense attention would have done beside what was chosen, and how many keys were.

    Args:
        selector: that chose, and that notes.
        view: what it chose from.
        choice: what it chose.
        mass_BTk: attention on the chosen keys.
        tokens: of the queries.
    """
    first_BTk = view.position_BS[:, None].expand(-1, view.query_BTNh.shape[1], -1).gather(2, choice.index_BTk) == 0
    share_BT = (mass_BTk * (first_BTk & choice.valid_BTk)).sum(-1)
    record_metric(selector, "first_token_share", share_BT[after_first(tokens)])
    real_BT, keys_BT = tokens.index_BT >= 0, choice.valid_BTk.sum(-1).double()
    record_metric(selector, "k_mean", keys_BT[real_BT])
    for upper in range(1, BINS + 1):
        low, high = (selector.budget.most * edge / BINS for edge in (upper - 1, upper))
        record_metric(selector, "k_share", ((keys_BT > low) & (keys_BT <= high))[real_BT], at=high)
    for columns, part in view.parts(view.query_BTNh.shape[2]):
        visible_BCS = part.visible().expand(len(share_BT), -1, -1)
        mass_BCS, number_BC = part.mass(visible_BCS), visible_BCS.sum(-1)
        index_BCk, valid_BCk = choice.index_BTk[:, columns], choice.valid_BTk[:, columns]
        recall_BC = (mass_BCS.gather(2, index_BCk) * valid_BCk).sum(-1)
        record_metric(selector, "recall", recall_BC[real_BT[:, columns] & (number_BC > keys_BT[:, columns])])
        # where fewer keys are visible than may be taken, their number is what decides
        free_BC = real_BT[:, columns] & (number_BC > selector.budget.most)
        entropy_BC = -torch.xlogy(mass_BCS, mass_BCS).sum(-1) / number_BC.log()
        for upper in range(1, BINS + 1):
            in_bin_BC = free_BC & ((entropy_BC * BINS).ceil().clamp(1, BINS) == upper)
            record_metric(selector, "k_by_entropy", keys_BT[:, columns][in_bin_BC], at=upper / BINS)
    if selector.budget.adaptive:
        record_metric(selector, "leak", leak(selector, view, choice)[real_BT[:, : view.query_BTNh.shape[1] // 2]])


def leak(selector: SparseAttention, view: AttentionInputs, choice: Choice) -> Tensor:
    """Which queries of a block's first half took more or fewer keys than were that half alone; (B, T / 2)."""
    half = view.query_BTNh.shape[1] // 2
    moved: list[Tensor] = []
    for block in range(len(view.query_BTNh)):
        alone = selector.choose(view.block(block).part(0, half))
        k = alone.valid_BTk.shape[2]
        whole_Tk = choice.valid_BTk[block, :half]
        differs_T = (whole_Tk[:, :k] != alone.valid_BTk[0]).any(-1) | whole_Tk[:, k:].any(-1)
        moved.append(differs_T)
    return torch.stack(moved)
