"""A fitted tokenizer: what it is on disk, text to ids and back.

Those that a study fits, and GPT-2's, are byte-level BPEs (Radford et al. 2019, "Language models are unsupervised
multitask learners"): all 256 bytes are in the vocabulary, so that any text can be encoded, nothing is lost, and each id
stands for a fixed number of bytes: sum(token_bytes[ids]) is the text's length in UTF-8. Losses in bits per byte and the
place of each token in its text both follow from that table. `data/tokens/token_bytes.py` says what it means elsewhere.

Special tokens are never read out of a text: a document that spells `<|endoftext|>` gets the ordinary tokens of those
characters.
"""

import hashlib
import io
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from speciate.data.tokens.manifest import END_OF_TEXT, TokenizerManifest, read_manifest
from speciate.data.tokens.token_bytes import specials, token_bytes


def byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    """A tokenizer around `model` that reads text as GPT-2's does: no normalising, no prefix space, bytes as symbols."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


class FittedTokenizer:
    """A tokenizer that can encode and decode, with its manifest and `token_bytes` int32 (V,)."""

    def __init__(self, text: str, kind: str, end_of_text: str = END_OF_TEXT) -> None:
        """From the text of a `tokenizer.json`.

        Raises:
            ValueError: `end_of_text` is no special token of it, or as `surfaces.token_bytes` does.
        """
        self.text = text
        self.tokenizer = tokenizers.Tokenizer.from_str(text)
        self.tokenizer.encode_special_tokens = True  # a document that spells a special token does not mean it
        self.token_bytes, lossless = token_bytes(self.tokenizer)
        there = specials(self.tokenizer)
        end = self.tokenizer.token_to_id(end_of_text)
        if end is None or end_of_text not in there:
            raise ValueError(
                f"tokenizer: {end_of_text} is no special token of it; there are: {', '.join(there) or 'none'}"
            )
        self.manifest = TokenizerManifest(
            kind=kind,
            vocabulary=len(self.token_bytes),
            end_of_text=end,
            end_token=end_of_text,
            lossless=lossless,
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        )

    def encode(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]:
        """The ids of all `texts` end to end, (N,) of the manifest's dtype, and how many each text has, (D,).

        By `tokenizers`, whose ids are the definition; `data/tokens/encoder.py` gives the same ones faster.
        """
        found = [item.ids for item in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        ids = np.empty(int(lengths.sum()), self.manifest.dtype)
        for stop, length, item in zip(np.cumsum(lengths), lengths, found, strict=True):
            ids[stop - length : stop] = item
        return ids, lengths

    def decode(self, ids: npt.NDArray[np.integer]) -> str:
        """The text of `ids` (N,); bytes that are no UTF-8 (a character cut in two) become U+FFFD."""
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def files(self) -> dict[str, bytes]:
        """File name -> bytes of everything that `read_tokenizer` needs."""
        table = io.BytesIO()
        np.save(table, self.token_bytes)
        return {
            "tokenizer.json": self.text.encode(),
            "token_bytes.npy": table.getvalue(),
            "tokenizer_manifest.json": (self.manifest.model_dump_json(indent=1) + "\n").encode(),
        }


def read_tokenizer(folder: pathlib.Path) -> FittedTokenizer:
    """The tokenizer that `fit` wrote into `folder`. Raises ValueError where its files do not belong together."""
    manifest, file = read_manifest(folder), folder / "tokenizer.json"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    if hashlib.sha256(text.encode()).hexdigest() != manifest.fingerprint:
        raise ValueError(f"{file}: is not the tokenizer that tokenizer_manifest.json describes")
    fitted = FittedTokenizer(text, manifest.kind, manifest.end_token)
    if fitted.manifest != manifest:
        raise ValueError(f"{file}: is not what tokenizer_manifest.json says of it")
    return fitted
