"""Tell which document each token of a forward pass belongs to.

Shape suffixes: B rows, T tokens of a row, N = B T.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speciate.recording.token_stream import token_streams

PADDING = -1
"""Document of padding."""


def of_transformer(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the document of each token, (N,), -1 for padding, for a model's decoder and for its encoder if it has one.

    A row is a document, except where `position_ids` start again at 0 within a row, as they do for packed texts: then
    each such stretch is one.

    Raises:
        ValueError: the model was called without tokens.
    """
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


def of_own(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the document of each token, (N,), of a batch of this package's model: its row, or its `document_BT`."""
    token_BT = kwargs["token_BT"] if "token_BT" in kwargs else args[0]
    document_BT = kwargs.get("document_BT", args[1] if len(args) > 1 else None)
    row_BT = torch.arange(len(token_BT), device=token_BT.device)[:, None].expand(token_BT.shape)
    if document_BT is None:
        return row_BT.flatten()
    # documents have numbers of the whole set, and one that spans rows is one
    document_N = document_BT.flatten().long()
    known, number_N = document_N.unique(return_inverse=True)
    result: Tensor = (number_N - int((known < 0).sum())).clamp_min(PADDING)
    return result


def match_tokens(documents: Mapping[str, Tensor], num_tokens: int, path: str, stream: str) -> Tensor:
    """Return the document of each of a router's tokens, (N,).

    Args:
        documents: as `of_transformer` returns them.
        num_tokens: N.
        path: the router's path, for the message.
        stream: `decoder` or `encoder`: whose tokens reach the router, in a model that has both.

    Raises:
        ValueError: the router decided about another number of tokens than the batch has.
    """
    document_N = documents.get(stream, documents["decoder"])
    if len(document_N) != num_tokens:
        raise ValueError(
            f"{path}: the router decided about {num_tokens} tokens of a batch of {len(document_N)}, so the documents of"
            " its tokens are unknown; watch it on a probe batch of whole rows"
        )
    return document_N
