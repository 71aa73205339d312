"""Encode text with `fastokens` where it supports the tokenizer, else with `tokenizers`, and compare the two.

Decision: of the five faster libraries on the package index, fastokens is used. It gave the ids of `tokenizers` on every
text tried: 46,000 documents, and 28,000 texts made to break tokenizers, which cover all of Unicode. It is 30 to 130
times as fast as `tokenizers`, its memory stays flat, it reads tokenizer.json unchanged and it has no dependencies.
gigatoken is faster still, but its cache grows with the text and it depends on an array library. splintr has half the
speed of fastokens and tiktoken a tenth. tokie gives different ids for runs of white space.

The ids of `tokenizers` are correct by definition. So `tokenizers` encodes a sample of the documents as well, spread
over all of them and the same each time; any difference is an error. The library is chosen and reported at the start,
and never changes during a run.
"""

import importlib.metadata
from collections.abc import Sequence

import fastokens
import numpy as np
import numpy.typing as npt

from speciate.data.tokens.fitted import FittedTokenizer

SAMPLE_CHARACTERS = 1 << 16
SAMPLE_SHARE = 1 / 1000


class Encoder:
    """Encode with one library, chosen at construction, and compare a sample with `tokenizers`.

    The sample may hold 65,536 characters plus a thousandth of the characters seen so far. A document is sampled if it
    fits into what is left. So the check costs little, however many documents there are and however long one is.
    """

    def __init__(self, fitted: FittedTokenizer) -> None:
        self.fitted = fitted
        self.reason: str | None = None
        """Why fastokens is not used; None if it is used."""
        self.documents_checked = 0
        self._checked = self._seen = 0
        self._fast = self._load()
        library = "tokenizers" if self._fast is None else "fastokens"
        self.name = f"{library} {importlib.metadata.version(library)}"
        """The library that encodes, with its version."""

    def encode(
        self, texts: Sequence[str], names: Sequence[object]
    ) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]:
        """Return the concatenated ids of `texts`, (N,) of the manifest's dtype, and the length of each text, (D,).

        Raises:
            ValueError: fastokens fails, or differs from `tokenizers` on a sampled document; gives the document's name
                from `names`.
        """
        if self._fast is None:
            return self.fitted.encode(texts)
        try:
            flat, offsets = self._fast.encode_batch_flat(list(texts), split_special_tokens=True)
        except Exception as error:  # fastokens raises nothing narrower
            raise ValueError(f"documents {names[0]} to {names[-1]}: {self.name} fails: {error}") from None
        ids = np.frombuffer(flat, "<u4").astype(self.fitted.manifest.dtype)
        edges = np.frombuffer(offsets, "<u8").astype(np.int64)
        self._check(texts, names, ids, edges)
        return ids, np.diff(edges)

    def _load(self) -> fastokens.Tokenizer | None:
        if not self.fitted.manifest.lossless:
            self.reason = "the tokenizer is not byte-level"
            return None
        try:
            return fastokens.Tokenizer.from_json_str(self.fitted.text)
        except Exception as error:  # fastokens may raise anything; `tokenizers` still serves
            self.reason = f"fastokens cannot load the tokenizer: {' '.join(str(error).split())[:200]}"
            return None

    def _check(
        self,
        texts: Sequence[str],
        names: Sequence[object],
        ids: npt.NDArray[np.unsignedinteger],
        edges: npt.NDArray[np.int64],
    ) -> None:
        for index, text in enumerate(texts):
            size = len(text)
            self._seen += size
            if self._checked + size > SAMPLE_CHARACTERS + self._seen * SAMPLE_SHARE:
                continue
            self._checked += size
            self.documents_checked += 1
            expected, actual = self.fitted.encode([text])[0], ids[edges[index] : edges[index + 1]]
            if not np.array_equal(expected, actual):
                shorter = min(len(expected), len(actual))
                first = int(np.argmax(np.append(expected[:shorter] != actual[:shorter], True)))
                raise ValueError(
                    f"document {names[index]}: {self.name} and tokenizers "
                    f"{importlib.metadata.version('tokenizers')} encode it differently from token {first} on: "
                    f"{actual[first : first + 5].tolist()} instead of {expected[first : first + 5].tolist()}"
                )
