"""Tell which document each token of a forward pass belongs to.

Shape suffixes: N tokens or decisions, B rows, T tokens of a row.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from speciate.model.transformer import Transformer
from speciate.recording.router_call import Site
from speciate.recording.token_stream import token_streams

PADDING = -1
"""Document of padding."""


def document_of_tokens(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the document of each token, (N,), -1 for padding, for a model's decoder and for its encoder if it has one.

    A row is a document, except where `position_ids` start again at 0 within a row, as they do for packed texts: then
    each such stretch is one. Of this package's own Transformer, documents are those of its `document_BT`.

    Raises:
        ValueError: the model was called without tokens.
    """
    if isinstance(model, Transformer):
        return {"decoder": _of_own(*args, **kwargs)}
    documents = {}
    for name, stream in token_streams(model, args, kwargs).items():
        document_N = stream.batch_N
        position_BT = kwargs.get("position_ids")
        if name == "decoder" and isinstance(position_BT, Tensor) and position_BT.numel() == len(document_N):
            starts_N = position_BT.flatten() == 0
            starts_N[1:] |= document_N[1:] != document_N[:-1]
            starts_N[0] = True
            document_N = starts_N.cumsum(0) - 1
        documents[name] = document_N.where(stream.real_N, PADDING)
    return documents


def _of_own(token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
    """Return the document of each token of a call of `Transformer`."""
    if document_BT is None:
        row_BT = torch.arange(len(token_BT), device=token_BT.device)[:, None].expand(token_BT.shape)
        return row_BT.flatten()
    # documents have numbers of a whole set of texts, and one that spans rows is one
    known, number_N = document_BT.flatten().long().unique(return_inverse=True)
    result: Tensor = (number_N - int((known < 0).sum())).clamp_min(PADDING)
    return result


def document_of_decisions(
    documents: Mapping[str, Tensor], site: Site, num_decisions: int, token_N: Tensor | None
) -> Tensor:
    """Return the document of each of a selector's decisions, (N,).

    Args:
        documents: as `document_of_tokens` returns them.
        site: the selector.
        num_decisions: N.
        token_N: index of each decision's token, negative at padding; None: there is one decision a token.

    Raises:
        ValueError: the selector decided about another number of tokens than the batch has.
    """
    document_N = documents.get(site.stream, documents["decoder"])
    if token_N is not None:
        return document_N[token_N.clamp_min(0)].where(token_N >= 0, PADDING)
    if len(document_N) != num_decisions:
        raise ValueError(
            f"{site.path}: the router decided about {num_decisions} tokens of a batch of {len(document_N)}, so the"
            " documents of its tokens are unknown; watch it on a probe batch of whole rows"
        )
    return document_N
