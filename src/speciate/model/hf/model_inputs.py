"""Turn the arguments that transformers passes to a model into the batch that our Transformer reads, or refuse them.

    attention_mask 0   padding: seen by no token, in no capacity, quota or loss of a selector
    position_ids       without mask and cache, each position that does not follow the one before it starts another text,
                       and texts are kept apart: so transformers packs texts (its DataCollatorWithFlattening)

B rows of T tokens, S tokens including the cached ones, C context.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from speciate.model.hf.generation_cache import GenerationCache
from speciate.model.token_batch import TokenBatch


def refuse_unknown(given: Mapping[str, Any], known: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse keyword arguments that are not `allowed`, naming the `known` one that is meant, as Python refuses them.

    Raises:
        TypeError: there is one.
    """
    for name in given:
        if name not in allowed:
            close = difflib.get_close_matches(name, [*known, *allowed], n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise TypeError(f"forward() got an unexpected keyword argument '{name}'{hint}")


def token_batch(
    id_BT: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    cache: GenerationCache | None,
    *,
    context: int,
) -> TokenBatch:
    """Return the batch.

    Args:
        id_BT: token ids.
        attention_mask: (B, S), 0 at padding; None: there is none.
        position_ids: (B or 1, T), position of each token in its text; None: counted without padding.
        cache: cache of the tokens before these.
        context: C.

    Raises:
        ValueError: an argument has a shape or a value that the model cannot follow; names it.
    """
    if id_BT.shape[1] == 0:
        raise ValueError(
            "input_ids: there are no new tokens; to go on from past_key_values, generate needs the whole text as "
            "input_ids, or an attention_mask of its length"
        )
    if position_ids is not None and position_ids.shape not in ((1, id_BT.shape[1]), id_BT.shape, id_BT.shape[1:]):
        raise ValueError(f"position_ids: must have the shape of the tokens, {tuple(id_BT.shape)}")
    if cache is not None and cache.real_BS is not None and len(cache.real_BS) != len(id_BT):
        raise ValueError(
            f"past_key_values: holds {len(cache.real_BS)} rows, and there are {len(id_BT)}; "
            "see its batch_repeat_interleave"
        )
    real_BS = real_tokens(id_BT, attention_mask, cache)
    first = 0 if cache is None else cache.length
    real_BT = None if real_BS is None else real_BS[:, first:]
    document_BT = None
    if position_ids is not None:
        position_BT = position_ids.expand_as(id_BT)
        document_BT = check_positions(position_BT, real_BT, cache, packed=attention_mask is None, context=context)
    elif real_BS is not None:
        position_BT = (real_BS.long().cumsum(-1) - 1).clamp(min=0)[:, first:]
    else:
        position_BT = (torch.arange(id_BT.shape[1], device=id_BT.device) + first).expand_as(id_BT)
    return TokenBatch.of(id_BT, document_BT, cache, position_BT=position_BT, real_BT=real_BT)


def real_tokens(id_BT: Tensor, attention_mask: Tensor | None, cache: GenerationCache | None) -> Tensor | None:
    """Return which of the S tokens are no padding, (B, S) boolean; None: all.

    Raises:
        ValueError: the mask does not fit the tokens, or has padding between them.
    """
    cached_BS = None if cache is None else cache.real_BS
    length = id_BT.shape[1] + (0 if cache is None else cache.length)
    if attention_mask is None:
        if cached_BS is not None and not bool(cached_BS.all()):
            raise ValueError("attention_mask: is needed, because past_key_values holds padding")
        return None
    if attention_mask.shape != (len(id_BT), length):
        raise ValueError(
            f"attention_mask: must be (rows, cached and new tokens) = {(len(id_BT), length)}, "
            f"not {tuple(attention_mask.shape)}; masks of pairs of tokens are not supported"
        )
    real_BS = attention_mask != 0
    if cached_BS is not None and not torch.equal(real_BS[:, : cached_BS.shape[1]], cached_BS):
        raise ValueError("attention_mask: differs from that of the tokens in past_key_values")
    if bool(real_BS.all()):
        return None
    starts_BS = real_BS.clone()
    starts_BS[:, 1:] &= ~real_BS[:, :-1]
    if bool((starts_BS.sum(1) > 1).any()):
        raise ValueError("attention_mask: has padding between a row's tokens; pad before them (to generate) or after")
    return real_BS


def check_positions(
    position_BT: Tensor, real_BT: Tensor | None, cache: GenerationCache | None, *, packed: bool, context: int
) -> Tensor | None:
    """Return the number of the packed text of each token, (B, T); None if each row holds one.

    Args:
        position_BT: position of each token.
        real_BT: which are no padding; None: all.
        cache: cache of the tokens before these.
        packed: whether a row may hold several texts.
        context: C.

    Raises:
        ValueError: a position is outside the context, or the positions of one text do not grow.
    """
    real_BT = torch.ones_like(position_BT, dtype=torch.bool) if real_BT is None else real_BT
    real_N = position_BT[real_BT]
    if real_N.numel() and not 0 <= int(real_N.min()) <= int(real_N.max()) < context:
        raise ValueError(f"position_ids: {int(real_N.min())} to {int(real_N.max())} are not within 0 to {context - 1}")
    step_BT = torch.ones_like(position_BT)
    step_BT[:, 1:] = position_BT[:, 1:] - position_BT[:, :-1]
    follows_BT = real_BT.clone()
    follows_BT[:, 1:] &= real_BT[:, :-1]
    if packed and cache is None:
        document_BT = (step_BT != 1).cumsum(1)
        return document_BT if bool((document_BT > 0).any()) else None
    if bool((step_BT[follows_BT] < 1).any()):
        raise ValueError(
            "position_ids: start again within a row; packed texts need attention_mask to be left out and "
            "use_cache=False"
        )
    if cache is not None and cache.position_B is not None:
        first_B = position_BT.masked_fill(~real_BT, context).min(1).values
        if bool((first_B <= cache.position_B).any()):
            raise ValueError(
                "position_ids: must go on after those in past_key_values; generate needs the whole text as "
                "input_ids, or an attention_mask of its length"
            )
    return None


def is_packed(position_ids: Tensor | None, attention_mask: Tensor | None) -> bool:
    """Tell whether positions start again within a row, so that it holds several texts."""
    if position_ids is None or attention_mask is not None:
        return False
    return bool((position_ids.diff(dim=-1) != 1).any())
