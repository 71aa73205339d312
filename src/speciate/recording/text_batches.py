"""Texts as batches of token ids: cut into blocks, sorted into rows, padded on the right.

B rows of T tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from speciate.selection.text import Text

BLOCK_LENGTH = 512
"""Tokens of a block, where nobody says it."""
TOKENS_AT_ONCE = 8192
"""Tokens of a forward pass, where nobody says it."""
SPACE = "\u2581"
"""Stands for a space in SentencePiece's tokens."""


@dataclass(frozen=True, eq=False)
class TextBatch:
    """Some blocks of some texts."""

    texts: Sequence[Text]
    """The text that each row is of."""
    start_B: Sequence[int]
    """Position of each row's first token within its text."""
    token_BT: Tensor
    """Token ids; 0 at padding."""
    mask_BT: Tensor
    """1 at tokens, 0 at padding."""


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text, with the special tokens that the tokenizer adds.

    Args:
        tokenizer: one of transformers, or of tokenizers.
        text: the text.
    """
    encoded = tokenizer.encode(text)
    return list(encoded if isinstance(encoded, list) else encoded.ids)


def pieces(tokenizer: Any, ids: Iterable[int]) -> dict[int, str]:
    """Return the text of each token id, with the space that it begins with.

    Args:
        tokenizer: one of transformers, or of tokenizers; any other gives none.
        ids: token ids.
    """
    kind = type(tokenizer)
    if hasattr(kind, "convert_ids_to_tokens"):
        name_of = tokenizer.convert_ids_to_tokens
    elif hasattr(kind, "id_to_token"):
        name_of = tokenizer.id_to_token
    else:
        return {}
    found: dict[int, str] = {}
    for token in ids:
        name = name_of(token)
        # decoding a single token of SentencePiece would lose its space
        is_word = name is not None and SPACE in name
        found[token] = name.replace(SPACE, " ") if is_word else tokenizer.decode([token], skip_special_tokens=False)
    return found


def block_sizes(model: nn.Module, block_length: int | None, batch_size: int | None, room: int = 0) -> tuple[int, int]:
    """Return the length of blocks and the number of them in a batch.

    Args:
        model: a model of transformers.
        block_length: most tokens of a block, cut to the model's context; None: BLOCK_LENGTH, or the context.
        batch_size: number of blocks in a batch; None: as many as have TOKENS_AT_ONCE tokens.
        room: tokens of the context that are kept free, for what is generated.

    Raises:
        ValueError: a number is not positive, or the context has no room.
    """
    for name, value in (("--block-length", block_length), ("--batch-size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: must be at least 1, not {value}")
    length, context = BLOCK_LENGTH if block_length is None else block_length, context_of(model)
    if context is not None:
        if context <= room:
            raise ValueError(f"--generate: the model's context of {context} tokens has no room for {room} more")
        length = min(length, context - room)
    return length, max(1, TOKENS_AT_ONCE // length) if batch_size is None else batch_size


def input_device(model: Any) -> torch.device:
    """Return the device that token ids go to: that of the embeddings, where a model is spread over several."""
    embeddings = model.get_input_embeddings() if hasattr(type(model), "get_input_embeddings") else model
    weight: Tensor = next((embeddings if isinstance(embeddings, nn.Module) else model).parameters())
    return weight.device


def context_of(model: nn.Module) -> int | None:
    """Return the largest number of tokens of a text, as the model's configuration has it; None: it says nothing."""
    config = vars(model).get("config")
    length = None if config is None else config.get_text_config().to_dict().get("max_position_embeddings")
    return None if length is None else int(length)


def batches(
    tokenizer: Any, texts: Iterable[Text], *, block_length: int, batch_size: int, one_block: bool = False
) -> Iterator[TextBatch]:
    """Yield the blocks of the texts in their order, `batch_size` at a time.

    Args:
        tokenizer: what encodes them.
        texts: read as they are needed.
        block_length: most tokens of a block; a longer text is cut, and a block sees nothing of those before it.
        batch_size: most rows of a batch.
        one_block: whether only the first block of each text is wanted.
    """
    rows: list[tuple[Text, int, list[int]]] = []
    for text in texts:
        ids = encode(tokenizer, text.text)
        for start in range(0, min(len(ids), block_length) if one_block else len(ids), block_length):
            rows.append((text, start, ids[start : start + block_length]))
            if len(rows) == batch_size:
                yield _padded(rows)
                rows = []
    if rows:
        yield _padded(rows)


def _padded(rows: list[tuple[Text, int, list[int]]]) -> TextBatch:
    length = max(len(ids) for _, _, ids in rows)
    token_BT = torch.zeros(len(rows), length, dtype=torch.long)
    mask_BT = torch.zeros_like(token_BT)
    for row, (_, _, ids) in enumerate(rows):
        token_BT[row, : len(ids)] = torch.tensor(ids)
        mask_BT[row, : len(ids)] = 1
    return TextBatch([text for text, _, _ in rows], [start for _, start, _ in rows], token_BT, mask_BT)
