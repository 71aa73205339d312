"""What attention of any kind is measured by while somebody listens: attention sinks and large activations.

    first_token_share     of each query's attention, the mean over heads on its context's first token; queries after it
    largest_activation    the largest entry of what the mixer adds to the residual stream, of a batch

B blocks of T queries and S keys, N heads of h dimensions.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from speciate.model.tokens import Tokens
from speciate.model.view import View
from speciate.selection.meter import note


def note_largest(mixer: nn.Module, out_BTD: Tensor) -> None:
    """Notes `largest_activation`."""
    note(mixer, "largest_activation", out_BTD.abs().amax())


@torch.no_grad()
def note_dense(
    mixer: nn.Module,
    query_BTNh: Tensor,
    key_BSKh: Tensor,
    tokens: Tokens,
    position_BS: Tensor,
    seen_BTS: Tensor | None,
) -> None:
    """Notes `first_token_share` of dense attention.

    Args:
        mixer: that notes.
        query_BTNh: as the scores take them.
        key_BSKh: likewise.
        tokens: of the queries.
        position_BS: of each key, in its context.
        seen_BTS: which keys each query sees; None: those up to its own.
    """
    first = key_BSKh.shape[1] - query_BTNh.shape[1]
    view = View(query_BTNh, key_BSKh, (), (), tokens.position_BT, position_BS, None, None, first)
    for columns, part in view.parts(query_BTNh.shape[2]):
        if seen_BTS is not None:
            part = replace(view, query_BTNh=part.query_BTNh)
        mass_BCS = part.mass(part.visible() if seen_BTS is None else seen_BTS[:, columns])
        share_BC = (mass_BCS * (part.position_BS == 0)[:, None]).sum(-1)
        note(mixer, "first_token_share", share_BC[after_first(tokens)[:, columns]])


def after_first(tokens: Tokens) -> Tensor:
    """Queries that are no padding, and not the first of their context, which can see nothing else; (B, T)."""
    return (tokens.position_BT > 0) & (tokens.index_BT >= 0)
