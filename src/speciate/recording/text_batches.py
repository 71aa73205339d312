"""Texts as batches of token ids: cut into blocks, sorted into rows, padded on the right.

B rows of T tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from speciate.selection.text import Text

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
