"""Encode text with `fastokens` where it supports the tokenizer, else with `tokenizers`, and compare the two.

Decision: of the five faster libraries on the package index, fastokens is used. It gave the ids of `tokenizers` on every
text tried: 46,000 documents, and 28,000 texts made to break tokenizers, which cover all of Unicode. It is 30 to 130
times as fast as `tokenizers`, its memory stays flat, it reads tokenizer.json unchanged and it has no dependencies.
gigatoken is faster still, but its cache grows with the text and it depends on an array library. splintr has half the
speed of fastokens and tiktoken a tenth. tokie gives different ids for runs of white space.

The ids of `tokenizers` are correct by definition. So both encode some texts made to break tokenizers before the first
document, and fastokens is used only where it agrees. Then `tokenizers` encodes a sample of the documents as well,
spread over all of them and the same each time; any difference is an error. The library is chosen and reported at the
start, and never changes during a run.
"""

import importlib.metadata
from collections.abc import Sequence

import fastokens
import numpy as np
import numpy.typing as npt

from speciate.data.tokens.fast_form import fast_form
from speciate.data.tokens.fitted import FittedTokenizer

SAMPLE_CHARACTERS = 1 << 16
SAMPLE_SHARE = 1 / 1000
TRIAL = (
    "The café's 1st, 22nd, 333rd and 4444th: it'S, we'LL, I'm...  two  three   \n\n\tfour\r\n    five\n ",
    "def f(x_1, *y):\n\treturn {'a': x_1 ** 2 != 0x1F}  # ½ ² Ⅷ １２ ١٢٣ ۱۲۳۴\n",
    "日本語とかな、中文。한국어 हिन्दी ไทย العربية ελληνικά «Ünïcödé» — “naïve” ﬁ ſ İ 👩‍👩‍👧‍👦🙂\U0001f3fd",
    "e\u0301 \u0301\u0302 \u200b\u200d\ufeff\xa0\u3000\u2028\x00\x04\x7f\x85\xad \U00040000\U0010fffd",
)
"""Texts on which both libraries must agree."""


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
            return self._encode_slowly(texts, names)
        try:
            flat, offsets = self._fast.encode_batch_flat(list(texts), split_special_tokens=True)
        except Exception as error:  # fastokens raises nothing narrower
            raise ValueError(f"documents {names[0]} to {names[-1]}: {self.name} fails: {error}") from None
        ids = np.frombuffer(flat, "<u4").astype(self.fitted.manifest.dtype)
        edges = np.frombuffer(offsets, "<u8").astype(np.int64)
        self._check(texts, names, ids, edges)
        return ids, np.diff(edges)

    def _encode_slowly(
        self, texts: Sequence[str], names: Sequence[object]
    ) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]:
        try:
            return self.fitted.encode(texts)
        except Exception:  # `tokenizers` raises nothing narrower
            for text, name in zip(texts, names, strict=True):
                try:
                    self.fitted.encode([text])
                except Exception as error:
                    raise ValueError(f"document {name}: {self.name} cannot encode it: {error}") from None
            raise

    def _load(self) -> fastokens.Tokenizer | None:
        if self.fitted.why_not_lossless:
            self.reason = f"the tokenizer is not byte-level: {self.fitted.why_not_lossless}"
            return None
        try:
            fast = fastokens.Tokenizer.from_json_str(fast_form(self.fitted.text))
            wrong = self._first_difference(fast)
        except Exception as error:  # fastokens may raise anything; `tokenizers` still serves
            self.reason = f"fastokens cannot load the tokenizer: {' '.join(str(error).split())[:200]}"
            return None
        if wrong is not None:
            self.reason = f"fastokens gives other ids for {wrong[:20]!r}"
            return None
        return fast

    def _first_difference(self, fast: fastokens.Tokenizer) -> str | None:
        """Return the first trial text that fastokens encodes differently; None if there is none."""
        added = self.fitted.tokenizer.get_added_tokens_decoder().values()
        texts = [*TRIAL, *(f"a{token.content}b {token.content} {token.content}{token.content}" for token in added)]
        for text in texts:
            flat, _ = fast.encode_batch_flat([text], split_special_tokens=True)
            if not np.array_equal(np.frombuffer(flat, "<u4"), self.fitted.encode([text])[0]):
                return text
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
