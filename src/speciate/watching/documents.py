"""Tell which document each token of a batch belongs to, from the arguments of a model's forward pass.

Shape suffixes: B rows, T tokens of a row, N = B T.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

NO_DOCUMENT = -1
"""Document of padding."""
IDS = ("input_ids", "token_BT", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
"""Names of the argument that has a row for each text."""


def document_of_tokens(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the document of each token, (B, T), -1 for padding; one tensor for each of encoder and decoder.

    A row is a document, except where `position_ids` start again at 0 within a row, as they do for packed texts: then
    each such stretch is one. Padding is what `attention_mask` leaves out.

    Raises:
        ValueError: there is no argument that has a row for each text.
    """
    given = {name: kwargs[name] for name in IDS if isinstance(kwargs.get(name), Tensor)}
    if not given and args and isinstance(args[0], Tensor):
        given = {"input_ids": args[0]}
    if not given:
        raise ValueError(f"the watched model was called without a tensor of token ids; its arguments have one of {IDS}")
    found: list[Tensor] = []
    for name, value in given.items():
        batch, length = value.shape[0], value.shape[1] if value.ndim > 1 else 1
        document_BT = torch.arange(batch, device=value.device)[:, None].expand(batch, length)
        if name.startswith("decoder_"):
            mask = kwargs.get("decoder_attention_mask")
        else:
            mask = kwargs.get("attention_mask")
            position_BT = kwargs.get("position_ids")
            if isinstance(position_BT, Tensor) and position_BT.shape == (batch, length):
                starts_BT = (position_BT == 0).to(value.device)
                starts_BT[:, 0] = True
                document_BT = starts_BT.flatten().cumsum(0).view(batch, length) - 1
        if isinstance(mask, Tensor) and mask.shape == (batch, length):
            document_BT = document_BT.where(mask.to(value.device) != 0, NO_DOCUMENT)
        found.append(document_BT)
    return found


def match_tokens(documents: Sequence[Tensor], num_tokens: int, path: str, *, last: bool) -> Tensor:
    """Return the document of each of a router's tokens, (N,).

    Args:
        documents: of the encoder's and of the decoder's tokens, as `document_of_tokens` returns them.
        num_tokens: N.
        path: the router's path, for the message.
        last: whether the router is the decoder's.

    Raises:
        ValueError: the router decided about another number of tokens than the batch has.
    """
    fitting = [document_BT for document_BT in documents if document_BT.numel() == num_tokens]
    if not fitting:
        shapes = " or ".join(f"{tuple(document_BT.shape)}" for document_BT in documents)
        raise ValueError(
            f"{path}: the router decided about {num_tokens} tokens of a batch of {shapes}, so the document of a token is"
            " unknown; watch it on a probe batch of whole rows"
        )
    return fitting[-1 if last else 0].flatten()


def number_documents(document_BT: Tensor) -> int:
    """Return the number of documents: one more than the largest."""
    return int(document_BT.max()) + 1 if document_BT.numel() else 0
