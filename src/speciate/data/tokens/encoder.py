"""Text to ids at speed: `fastokens` where it can serve, `tokenizers` elsewhere; and a check that they agree.

Decision, of the five faster libraries on the package index: fastokens gives the ids of `tokenizers` on every text that
was tried (46,000 documents, and 28,000 texts made to break tokenizers, all of Unicode among them), at 30 to 130 times
its speed; its memory stays flat, it reads tokenizer.json as it is, and it needs no other package. gigatoken is faster
still, but its cache grows with the text and it brings a library of arrays along; splintr has half the speed and
tiktoken a tenth; tokie gives other ids for runs of white space.

What `tokenizers` says is right by definition. So it encodes a sample of the documents too, spread over all of them and
the same each time, and one difference is an error. There is no falling back later on: who encodes is settled, and told,
at the start.
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
    """Encodes with one library, chosen when it is made, and compares a sample with `tokenizers`.

    The sample is of 65,536 characters and a thousandth of those that came by; a document that fits into what is left of
    it is in it. So the check costs little however many documents there are, and however long one is.
    """

    def __init__(self, fitted: FittedTokenizer) -> None:
        self.fitted = fitted
        self.reason: str | None = None
        """Why it is not fastokens that encodes; None where it is."""
        self.documents_checked = 0
        self._checked = self._seen = 0
        self._fast = self._load()
        library = "tokenizers" if self._fast is None else "fastokens"
        self.name = f"{library} {importlib.metadata.version(library)}"
        """The library and its version."""

    def encode(
        self, texts: Sequence[str], names: Sequence[object]
    ) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]:
        """The ids of `texts` end to end, (N,) of the manifest's dtype, and how many each text has, (D,).

        Raises:
            ValueError: fastokens fails, or differs from `tokenizers` on a document of the sample; gives the document's
                name, its place in `names`.
        """
        if self._fast is None:
            return self.fitted.encode(texts)
        try:
            flat, offsets = self._fast.encode_batch_flat(list(texts), split_special_tokens=True)
        except Exception as error:  # it raises nothing narrower
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
        except Exception as error:  # it raises whatever it meets; what it cannot load is still a tokenizer
            self.reason = f"fastokens cannot load the tokenizer: {' '.join(str(error).split())[:200]}"
            return None

    def _check(
        self,
        texts: Sequence[str],
        names: Sequence[object],
        ids: npt.NDArray[np.unsignedinteger],
        edges: npt.NDArray[np.int64],
    ) -> None:
        for place, text in enumerate(texts):
            size = len(text)
            self._seen += size
            if self._checked + size > SAMPLE_CHARACTERS + self._seen * SAMPLE_SHARE:
                continue
            self._checked += size
            self.documents_checked += 1
            right, found = self.fitted.encode([text])[0], ids[edges[place] : edges[place + 1]]
            if not np.array_equal(right, found):
                same = min(len(right), len(found))
                where = int(np.argmax(np.append(right[:same] != found[:same], True)))
                raise ValueError(
                    f"document {names[place]}: {self.name} encodes it otherwise than tokenizers "
                    f"{importlib.metadata.version('tokenizers')}, from token {where} on: "
                    f"{found[where : where + 5].tolist()}, not {right[where : where + 5].tolist()}"
                )
