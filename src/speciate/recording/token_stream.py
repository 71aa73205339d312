"""The tokens of one forward pass, as the routers see them: in their flattened order, with padding marked.

N tokens; B rows of T tokens, S tokens including the cached ones.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class TokenStream:
    """The tokens of one forward pass."""

    token_N: Tensor
    """Token ids; -1 if unknown."""
    batch_N: Tensor
    """Row of the batch that each token is in."""
    position_N: Tensor
    """Position of each token within its row, from 0, padding before it left out."""
    real_N: Tensor
    """False at padding."""
    place_N: Tensor
    """Index of each token among all tokens of its row, those in the cache and padding included."""
    first_B: Tensor
    """Index of each row's first token that is no padding."""
    is_continued: bool
    """Whether earlier tokens of these rows are in a cache, so that these follow a prompt."""


def token_streams(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, TokenStream]:
    """Return the tokens that a call of a model is about, under `decoder`, and those of its encoder, if it has one.

    Raises:
        ValueError: the call has neither token ids nor embeddings.
    """
    names = list(inspect.signature(type(model).forward).parameters)[1:]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    cached = _cached(given.get("past_key_values"))
    if given.get("decoder_input_ids") is None:
        return {"decoder": _stream(given, "", cached)}
    streams = {"decoder": _stream(given, "decoder_", cached)}
    if given.get("input_ids") is not None:
        streams["encoder"] = _stream(given, "", 0)
    return streams


def _cached(cache: Any) -> int:
    """Return how many tokens a cache holds."""
    return 0 if cache is None or not hasattr(cache, "get_seq_length") else int(cache.get_seq_length())


def _stream(given: dict[str, Any], prefix: str, cached: int) -> TokenStream:
    ids, embeds = given.get(f"{prefix}input_ids"), given.get(f"{prefix}inputs_embeds")
    seen = embeds if ids is None else ids
    if seen is None:
        raise ValueError("the model was called without input_ids and without inputs_embeds")
    (num_rows, length), device = seen.shape[:2], seen.device
    token_BT = ids if ids is not None else torch.full((num_rows, length), -1, device=device)
    mask = given.get(f"{prefix}attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        mask_BS = mask.to(device).bool()
        position_BT = (mask_BS.cumsum(1) - 1).clamp_min(0)[:, -length:]
        real_BT, first_B = mask_BS[:, -length:], mask_BS.long().argmax(1)
    else:
        position_BT = (cached + torch.arange(length, device=device)).expand(num_rows, length)
        real_BT = torch.ones((num_rows, length), dtype=torch.bool, device=device)
        first_B = torch.zeros(num_rows, dtype=torch.long, device=device)
    row_BT = torch.arange(num_rows, device=device)[:, None].expand(num_rows, length)
    place_BT = (cached + torch.arange(length, device=device)).expand(num_rows, length)
    return TokenStream(
        token_N=token_BT.flatten(),
        batch_N=row_BT.flatten(),
        position_N=position_BT.flatten(),
        real_N=real_BT.flatten(),
        place_N=place_BT.flatten(),
        first_B=first_B,
        is_continued=cached > 0,
    )
