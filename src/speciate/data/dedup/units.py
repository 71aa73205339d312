r"""Find the units of texts: what near-duplicates, contamination checks and the card's overlaps count runs of.

The text is read in lower case (`str.lower`). A unit is a word: a maximal run of letters, digits and underscores, with
the combining marks that follow them. Everything else separates words, save characters that are not shown, such as soft
hyphens and joiners, which are passed over. In a script without spaces (data/characters.py lists them) every letter,
with its marks, is a unit, and two such units count as one word. A run of n words begins at each unit, and ends with the
first unit at which it has n words or more.

The code is vectorised over the UTF-8 bytes of many texts at once: a byte costs a table look-up and a comparison, and
each different character beyond ASCII one look at its properties.

W units, R runs, D texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.indexing import concatenate_ranges
from speciate.data.characters import LETTERS_IN_WORD, UNSEEN, CharacterKind, character_kind

Indices = npt.NDArray[np.int64]

WORD_BYTES = bytes(byte > 127 or byte == ord("_") or chr(byte).isalnum() for byte in range(256))
SPARE_BITS = np.array([0, 56, 48, 40, 32, 24, 16, 8, 0], np.uint64)
"""Bits to shift out of an eight-byte word when only the first 0, 1, ..., 8 bytes count."""
_SINGLE_LETTER = 2
"""Values from here on mark letters that are units; those of neighbours differ in their last bit."""


@dataclass(frozen=True)
class Units:
    """The units of a batch of texts."""

    data: bytes
    """The texts in lower case, with a newline between them."""
    starts_W: Indices
    """Byte at which each unit starts."""
    lengths_W: Indices
    """Length of each unit, in bytes."""
    is_letter_W: npt.NDArray[np.bool_] | None
    """Whether each unit is a letter of a script without spaces; None if none is."""
    ends_D: Indices
    """Unit at which each text ends."""

    def eights(self) -> npt.NDArray[np.uint64]:
        """Return the eight bytes that start at each byte."""
        return _eights(self.data)

    def runs(self, ngram: int) -> tuple[Indices, Indices, Indices]:
        """Return the first unit of each run of `ngram` words, the unit at which it ends, (R,), and runs a text, (D,).

        A text of fewer words has one run of all of them; a text without words has none.
        """
        units_D = np.diff(self.ends_D, prepend=0)
        firsts_D = self.ends_D - units_D
        if self.is_letter_W is None:
            counts_D = np.where(units_D < ngram, np.minimum(units_D, 1), units_D - ngram + 1)
            starts_R = concatenate_ranges(firsts_D, counts_D)
            stops_R = starts_R + ngram
        else:
            # measured in letters, of which a word counts as several
            needed = LETTERS_IN_WORD * ngram
            before_W = np.zeros(len(self.starts_W) + 1, np.int64)
            np.cumsum(np.where(self.is_letter_W, 1, LETTERS_IN_WORD), out=before_W[1:])
            complete_D = np.searchsorted(before_W, before_W[self.ends_D] - needed, "right") - firsts_D
            counts_D = np.where(complete_D > 0, complete_D, np.minimum(units_D, 1))
            starts_R = concatenate_ranges(firsts_D, counts_D)
            stops_R = np.searchsorted(before_W, before_W[starts_R] + needed)
        return starts_R, np.minimum(stops_R, np.repeat(self.ends_D, counts_D)), counts_D

    def read(self, start: int, stop: int) -> str:
        """Return units `start` to `stop` as people write them: words apart, letters that follow each other not."""
        is_letter_W = np.zeros(len(self.starts_W), bool) if self.is_letter_W is None else self.is_letter_W
        parts: list[str] = []
        for unit in range(start, stop):
            if parts and not (is_letter_W[unit] and is_letter_W[unit - 1]):
                parts.append(" ")
            first = int(self.starts_W[unit])
            parts.append(self.data[first : first + int(self.lengths_W[unit])].decode())
        return "".join(parts)


def find_units(texts: Sequence[str]) -> Units:
    """Return the units of `texts`."""
    parts = [text.lower().encode() for text in texts]
    data = b"\n".join(parts)
    wide = _wide_characters(data)
    if wide and CharacterKind.UNSEEN in wide.kinds:
        parts = [UNSEEN.sub("", text.lower()).encode() for text in texts]
        data = b"\n".join(parts)
        wide = _wide_characters(data)
    marks = bytearray(b"\0" + data.translate(WORD_BYTES) + b"\0")
    values = np.frombuffer(marks, np.uint8)
    if wide:
        wide.mark(values[1:])
    edges = np.flatnonzero(values[1:] != values[:-1])
    is_letter_W = None
    has_letters = wide is not None and CharacterKind.SPACELESS in wide.kinds
    del wide  # some ten bytes for each of the texts'
    if has_letters:
        starts_W, stops_W = edges[values[1:][edges] > 0], edges[values[:-1][edges] > 0]
        is_letter_W = values[1:][starts_W] >= _SINGLE_LETTER
    else:
        starts_W, stops_W = edges[::2], edges[1::2]
    ends_D = np.searchsorted(starts_W, np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)) + 1))
    return Units(data, starts_W, stops_W - starts_W, is_letter_W, ends_D)


def _eights(data: bytes) -> npt.NDArray[np.uint64]:
    return np.ndarray(len(data) + 1, np.dtype("<u8"), data + bytes(8), strides=(1,))


@dataclass(frozen=True)
class _WideCharacters:
    """The characters beyond ASCII of a batch: N of them, of which some kinds occur."""

    firsts_N: Indices
    """Byte at which each begins."""
    lengths_N: npt.NDArray[np.uint8]
    """Number of bytes of each."""
    kinds_N: npt.NDArray[np.uint8]
    kinds: frozenset[int]

    def mark(self, values: npt.NDArray[np.uint8]) -> None:
        """Set the values of these characters' bytes, which are all 1 before.

        They are 0 between words, 1 in words, 2 and 3 in turn for letters that are units. A combining mark has the value
        of what it stands on, which another mark may separate from it.
        """
        for kind in (CharacterKind.SEPARATOR, CharacterKind.SPACELESS):
            if kind in self.kinds:
                rows = np.flatnonzero(self.kinds_N == kind)
                turns = np.zeros(len(rows), np.uint8)
                if kind == CharacterKind.SPACELESS:
                    turns += _SINGLE_LETTER
                    turns[1::2] += 1
                _fill(values, self.firsts_N[rows], self.lengths_N[rows], turns)
        if CharacterKind.MARK in self.kinds:
            rows = np.flatnonzero(self.kinds_N == CharacterKind.MARK)
            firsts, lengths = self.firsts_N[rows], self.lengths_N[rows]
            is_first = np.ones(len(rows), bool)
            is_first[1:] = firsts[1:] != firsts[:-1] + lengths[:-1]
            befores = firsts[is_first] - 1
            carried = np.where(befores >= 0, values[befores], 0)
            _fill(values, firsts, lengths, carried[np.cumsum(is_first) - 1])


def _fill(
    values: npt.NDArray[np.uint8],
    firsts_N: Indices,
    lengths_N: npt.NDArray[np.uint8],
    fillings_N: npt.NDArray[np.uint8],
) -> None:
    """Set all bytes of each character to its filling."""
    for offset in range(4):
        rows = lengths_N > offset
        values[firsts_N[rows] + offset] = fillings_N[rows]


def _wide_characters(data: bytes) -> _WideCharacters | None:
    """Find the characters beyond ASCII, and the kind of each; None without any."""
    values = np.frombuffer(data, np.uint8)
    firsts_N = np.flatnonzero(values >= 0xC0)
    if not len(firsts_N):
        return None
    lengths_N = 2 + (values[firsts_N] >= 0xE0).astype(np.uint8) + (values[firsts_N] >= 0xF0)
    distinct, inverse_N = np.unique(_eights(data)[firsts_N] << SPARE_BITS[lengths_N], return_inverse=True)
    characters = (value.tobytes().lstrip(b"\0").decode() for value in distinct.astype("<u8"))
    kinds = np.array([character_kind(character) for character in characters], np.uint8)
    return _WideCharacters(firsts_N, lengths_N, kinds[inverse_N], frozenset(kinds.tolist()))
