"""A fitted tokenizer: its files, and text to ids and back.

The tokenizers that a study fits, and GPT-2's, are byte-level BPEs (Radford et al. 2019, "Language models are
unsupervised multitask learners"). All 256 bytes are in the vocabulary, so any text can be encoded without loss. Each id
stands for a fixed number of bytes: sum(token_bytes[ids]) is the text's length in UTF-8. Losses in bits per byte and the
position of each token in its text both follow from that table. `data/tokens/token_bytes.py` defines the table for other
tokenizers.

Text never becomes a special token: a document that spells `<|endoftext|>` gets the ordinary tokens of its characters.
An added token that is not special (Qwen's `<think>`, GPT-NeoX's runs of spaces) is ordinary vocabulary: where a text
spells it, the text gets its id. So do `tokenizers` with `encode_special_tokens` and `transformers` with
`split_special_tokens`.
"""

import hashlib
import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from speciate.data.tokens.loss import loses_only_unknown
from speciate.data.tokens.lossless import missing_bytes, why_not_lossless
from speciate.data.tokens.manifest import END_OF_TEXT, TokenizerManifest, read_manifest
from speciate.data.tokens.token_bytes import special_tokens, token_bytes, unknown_token


def byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    """Build a tokenizer around `model` with GPT-2's pre-tokenizer: no normalisation, no prefix space, byte symbols."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def switch_off(tokenizer: tokenizers.Tokenizer) -> list[str]:
    """Switch off what makes a text's tokens random, or adds or removes some; return what was switched off.

    A published tokenizer.json may hold BPE-dropout (Provilkov et al. 2020), with which two runs get other tokens of the
    same text, truncation, padding, and a post-processor that puts special tokens around a text. Packing puts the
    end-of-text token after a document, and nothing else.
    """
    found = []
    dropout = tokenizer.model.dropout if isinstance(tokenizer.model, models.BPE) else None
    if dropout is not None:
        tokenizer.model.dropout = None
        found += [f"dropout {dropout:.4g}"] if dropout else []
    if tokenizer.truncation is not None:
        found.append(f"truncation to {tokenizer.truncation['max_length']} tokens")
        tokenizer.no_truncation()
    if tokenizer.padding is not None:
        found.append(f"padding with {tokenizer.padding['pad_token']}")
        tokenizer.no_padding()
    if tokenizer.num_special_tokens_to_add(is_pair=False):
        around = tokenizer.encode("").tokens
        found.append(f"the post-processor, which adds {', '.join(around)}")
        tokenizer.post_processor = None
    return found


class FittedTokenizer:
    """A tokenizer that can encode and decode, with its manifest and `token_bytes` int32 (V,)."""

    def __init__(self, text: str, kind: str, end_of_text: str = END_OF_TEXT, switched_off: Sequence[str] = ()) -> None:
        """Load the tokenizer from the text of a `tokenizer.json`.

        Args:
            text: the file's text, as `switch_off` leaves it.
            kind: the kind of tokenizer in the study file.
            end_of_text: the special token that ends a document.
            switched_off: what `switch_off` changed.

        Raises:
            ValueError: `end_of_text` is not one of its special tokens, or `token_bytes.token_bytes` fails.
        """
        self.text = text
        self.tokenizer = tokenizers.Tokenizer.from_str(text)
        self.tokenizer.encode_special_tokens = True  # text never becomes a special token
        self.token_bytes, lossless = token_bytes(self.tokenizer)
        available = special_tokens(self.tokenizer)
        end = self.tokenizer.token_to_id(end_of_text)
        if end is None or end_of_text not in available:
            raise ValueError(
                f"tokenizer: {end_of_text} is not one of its special tokens: {', '.join(available) or 'none'}"
            )
        self.manifest = TokenizerManifest(
            kind=kind,
            vocabulary=len(self.token_bytes),
            end_of_text=end,
            end_token=end_of_text,
            lossless=lossless,
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
            switched_off=list(switched_off),
        )
        description = json.loads(self.tokenizer.to_str())
        self.why_not_lossless = why_not_lossless(description)
        """Why the tokenizer is not byte-level; None if it is."""
        self.missing_bytes = missing_bytes(description) if lossless else frozenset[int]()
        """Bytes that a byte-level tokenizer cannot spell."""
        self.loses_only_unknown = lossless or loses_only_unknown(description)
        """Whether all text that it loses shows as unknown tokens or as missing bytes."""
        unknown = unknown_token(description["model"])
        self.unknown_id = None if unknown is None else self.tokenizer.token_to_id(unknown)
        """Id of the token for text that the vocabulary cannot spell."""
        self.is_special_V = np.zeros(len(self.token_bytes), np.bool_)
        """Whether text must never become this id: every special token but the unknown one, and what ends a document."""
        for index, token in self.tokenizer.get_added_tokens_decoder().items():
            self.is_special_V[index] = token.special and (token.content != unknown or index == end)

    def encode(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]:
        """Return the concatenated ids of `texts`, (N,) of the manifest's dtype, and the length of each text, (D,).

        `tokenizers` encodes; its ids are the definition. `data/tokens/encoder.py` gives the same ids faster.
        """
        ids_of_texts = [
            encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ]
        lengths = np.fromiter(map(len, ids_of_texts), np.int64, len(ids_of_texts))
        ids = np.empty(int(lengths.sum()), self.manifest.dtype)
        for stop, length, text_ids in zip(np.cumsum(lengths), lengths, ids_of_texts, strict=True):
            ids[stop - length : stop] = text_ids
        return ids, lengths

    def decode(self, ids: npt.NDArray[np.integer]) -> str:
        """Return the text of `ids` (N,). Bytes that are not UTF-8 (a character cut in two) become U+FFFD."""
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def files(self) -> dict[str, bytes]:
        """Return file name -> content for all the files that `read_tokenizer` reads."""
        table = io.BytesIO()
        np.save(table, self.token_bytes)
        return {
            "tokenizer.json": self.text.encode(),
            "token_bytes.npy": table.getvalue(),
            "tokenizer_manifest.json": (self.manifest.model_dump_json(indent=1) + "\n").encode(),
        }


def read_tokenizer(folder: pathlib.Path) -> FittedTokenizer:
    """Read the tokenizer that `fit` wrote into `folder`. Raises ValueError if its files do not belong together."""
    manifest, file = read_manifest(folder), folder / "tokenizer.json"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    if hashlib.sha256(text.encode()).hexdigest() != manifest.fingerprint:
        raise ValueError(f"{file}: is not the tokenizer that tokenizer_manifest.json describes")
    fitted = FittedTokenizer(text, manifest.kind, manifest.end_token, manifest.switched_off)
    if fitted.manifest != manifest:
        raise ValueError(f"{file}: does not match tokenizer_manifest.json")
    return fitted
