"""The documents of a record that is being built: which row each has, which share one, and which are sampled.

A document is sampled if the hash of its name is small enough, so the same ones are in every layer, whatever the order
in which they come. Where there are more documents than rows, those outside the sample share rows by the same hash.

Shape suffixes: R documents in the order in which they came, G rows of the record.
"""

import zlib
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from speciate.selection.routing_record import Integers

OWN_ROWS = 4
"""One row in so many is kept for the sample's documents, which never share theirs."""
HASHES = 1 << 32
Entry = tuple[str, str, str, str]
"""Document, label, group, phase."""


@dataclass(eq=False)
class _Stratum:
    """The documents of one label and phase, which may share rows among each other."""

    documents: list[int] = field(default_factory=list)
    buckets: int = 0
    """Rows that documents outside the sample share, a power of two; 0: each has its own."""
    place_of: dict[int, int] = field(default_factory=dict)


class DocumentRows:
    """Numbers documents, and gives each a row."""

    def __init__(self, most: int) -> None:
        self.rows: list[Entry] = []
        self.threshold = HASHES
        """Documents whose hash is below it are sampled."""
        self._most = most
        self._number_of: dict[Hashable, int] = {}
        self._hash_R: list[int] = []
        self._place_R: list[int] = []
        self._strata: dict[tuple[str, str], _Stratum] = {}
        self._arrays: tuple[Integers, npt.NDArray[np.bool_], bool] | None = None

    def __len__(self) -> int:
        return len(self._hash_R)

    @property
    def is_full(self) -> bool:
        return len(self.rows) > self._most

    def number(self, document: str, label: str, group: str, phase: str) -> int:
        """Return the number of a document, which is new unless it was asked for before."""
        key = (document, label, phase)
        if key in self._number_of:
            return self._number_of[key]
        # documents of one group share a hash, so that they share a row before others do
        hashed = zlib.crc32((group or document).encode("utf-8", "surrogatepass"))
        stratum = self._strata.setdefault((label, phase), _Stratum())
        number = self._number_of[key] = len(self._hash_R)
        self._hash_R.append(hashed)
        self._place_R.append(self._place(stratum, hashed, (document, label, group or document, phase)))
        stratum.documents.append(number)
        self._arrays = None
        return number

    def place(self, number: int) -> int:
        """Return the row of a document."""
        return self._place_R[number]

    def places(self) -> tuple[Integers, npt.NDArray[np.bool_], bool]:
        """Return each document's row, whether it is sampled, and whether any has another row than its number."""
        if self._arrays is None:
            place_R, hash_R = np.array(self._place_R, dtype=np.int64), np.array(self._hash_R, dtype=np.int64)
            differ = bool((place_R != np.arange(len(place_R))).any())
            self._arrays = place_R, hash_R < self.threshold, differ
        return self._arrays

    def sample_fewer(self) -> npt.NDArray[np.bool_]:
        """Sample half as many documents; return which are sampled still."""
        self.threshold //= 2
        self._arrays = None
        return self.places()[1]

    def share_rows(self) -> Integers:
        """Let documents outside the sample share rows, until a part of the rows is free again.

        A label that has few documents keeps a row for each; one that has many gets as many rows as others that do.

        Returns:
            The new row of each old row, whose sums are to be added there.
        """
        hash_R = np.array(self._hash_R, dtype=np.int64)
        own = self._most // OWN_ROWS
        while int((hash_R < self.threshold).sum()) > own:
            self.threshold //= 2
        counts = [int((hash_R[stratum.documents] >= self.threshold).sum()) for stratum in self._strata.values()]
        room, cap = (self._most - own) * 3 // 4, 1
        while 2 * cap <= room and sum(min(count, 2 * cap) for count in counts) <= room:
            cap *= 2
        for stratum, count in zip(self._strata.values(), counts, strict=True):
            if stratum.buckets or count > cap:
                stratum.buckets = min(cap, stratum.buckets or cap)
        return self._place_anew()

    def _place(self, stratum: _Stratum, hashed: int, entry: Entry) -> int:
        shares = hashed >= self.threshold and stratum.buckets > 0
        bucket = hashed % stratum.buckets if shares else -1
        if shares and bucket in stratum.place_of:
            return stratum.place_of[bucket]
        self.rows.append(entry)
        if shares:
            stratum.place_of[bucket] = len(self.rows) - 1
        return len(self.rows) - 1

    def _place_anew(self) -> Integers:
        old_rows, old_R, self.rows = self.rows, self._place_R, []
        new_G = np.full(len(old_rows), -1, dtype=np.int64)
        self._place_R = [-1] * len(old_R)
        for stratum in self._strata.values():
            stratum.place_of = {}
            for number in stratum.documents:
                old = old_R[number]
                self._place_R[number] = new_G[old] = self._place(stratum, self._hash_R[number], old_rows[old])
        self._place_R = [int(place) for place in self._place_R]
        self._arrays = None
        return new_G
