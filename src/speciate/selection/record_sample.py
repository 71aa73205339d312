"""The single tokens that a record being built keeps in full, until they become its TokenSample.

Shape suffixes: N decisions of a part, K chosen slots, R documents, L selectors, P sampled tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.selection.routing_record import NOT_CHOSEN, Integers, TokenSample

Part = dict[str, npt.NDArray[Any]]
TYPES = {"row": np.int32, "position": np.int32, "token": np.int32, "weight": np.float32, "margin": np.float32}
ROW_BITS = 32
"""A token's key is its row shifted by so many bits, plus its position."""


class SampledTokens:
    """Holds parts of a trace by selector. Layers that saw the same tokens share the arrays that name them."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Part]] = {}
        self._count: dict[str, int] = {}
        self._choices: dict[str, int] = {}
        self._last: Part = {}

    @property
    def num_tokens(self) -> int:
        """Return how many tokens the selector that has most has."""
        return max(self._count.values(), default=0)

    @property
    def num_choices(self) -> int:
        return sum(self._choices.values())

    def add(self, path: str, sampled_N: npt.NDArray[np.bool_], part: Mapping[str, npt.NDArray[Any] | None]) -> None:
        """Add those decisions of a part that are sampled; `part` has row, position, choice and what else is known."""
        if not sampled_N.any():
            return
        every = bool(sampled_N.all())
        kept: Part = {}
        for name, value in part.items():
            if value is not None:
                small = name == "choice" and int(value.max()) < 128
                kind: npt.DTypeLike = TYPES.get(name, np.int8 if small else np.int16)
                kept[name] = (value if every else value[sampled_N]).astype(kind)
        for name in ("row", "position", "token"):
            last = self._last.get(name)
            if name in kept and last is not None and np.array_equal(last, kept[name]):
                kept[name] = last
        self._last = kept
        self._parts.setdefault(path, []).append(kept)
        self._count[path] = self._count.get(path, 0) + len(kept["row"])
        self._choices[path] = self._choices.get(path, 0) + kept["choice"].size

    def keep(self, sampled_R: npt.NDArray[np.bool_]) -> None:
        """Keep the tokens of some documents alone; arrays that parts share are shared afterwards, too."""
        arrays: dict[tuple[int, int], tuple[npt.NDArray[Any], ...]] = {}

        def kept(value: npt.NDArray[Any], row_N: npt.NDArray[Any]) -> npt.NDArray[Any]:
            which = id(value), id(row_N)
            if which not in arrays:
                arrays[which] = value, row_N, value[sampled_R[row_N]]  # their ids are theirs while they are held
            return arrays[which][2]

        for path, parts in self._parts.items():
            every = [bool(sampled_R[part["row"]].all()) for part in parts]
            self._parts[path] = [
                part if whole else {name: kept(value, part["row"]) for name, value in part.items()}
                for part, whole in zip(parts, every, strict=True)
            ]
            self._count[path] = sum(len(part["row"]) for part in self._parts[path])
            self._choices[path] = sum(part["choice"].size for part in self._parts[path])
        self._last = {}

    def repeated(self, place_R: Integers) -> dict[str, float]:
        """Return the share of each selector's tokens that are there more than once, if any are."""
        found: dict[str, float] = {}
        share_of: dict[tuple[tuple[int, int], ...], float] = {}
        for path, parts in self._parts.items():
            tokens = tuple(_tokens_of(part) for part in parts)
            if tokens not in share_of:
                num = sum(len(part["row"]) for part in parts)
                share_of[tokens] = 1 - len(_sorted_keys(parts, place_R)) / num if num else 0.0
            if share_of[tokens] > 0:
                found[path] = share_of[tokens]
        return found

    def build(self, paths: Sequence[str], place_R: Integers, pieces: Mapping[int, str]) -> TokenSample | None:
        """Return the sample of the selectors `paths`, in their order; None if there is nothing. Parts are let go."""
        parts = [part for path in paths for part in self._parts.get(path, []) if len(part["row"])]
        key_of = {_tokens_of(part): part for part in parts}
        if not parts:
            return None
        key_P = _sorted_keys(list(key_of.values()), place_R)
        shape = (len(paths), len(key_P), max(part["choice"].shape[1] for part in parts))
        names = {name for part in parts for name in part}
        choice_LPK = np.full(shape, NOT_CHOSEN, dtype=np.int16)
        token_P = np.full(len(key_P), -1, dtype=np.int64)
        weight_LPK = np.full(shape, np.nan, dtype=np.float32) if "weight" in names else None
        margin_LP = np.full(shape[:2], np.nan, dtype=np.float32) if "margin" in names else None
        at_of = {which: np.searchsorted(key_P, _keys(part, place_R)) for which, part in key_of.items()}
        for number, path in enumerate(paths):
            for part in self._parts.pop(path, []):
                if not len(part["row"]):
                    continue
                at, num_chosen = at_of[_tokens_of(part)], part["choice"].shape[1]
                choice_LPK[number, at, :num_chosen] = part["choice"]
                if "token" in part:
                    token_P[at] = part["token"]
                if weight_LPK is not None and "weight" in part:
                    weight_LPK[number, at, :num_chosen] = part["weight"]
                if margin_LP is not None and "margin" in part:
                    margin_LP[number, at] = part["margin"]
        return TokenSample(
            document_P=key_P >> ROW_BITS,
            position_P=key_P & ((1 << ROW_BITS) - 1),
            token_P=token_P,
            choice_LPK=choice_LPK,
            weight_LPK=weight_LPK,
            margin_LP=margin_LP,
            pieces=dict(pieces),
        )


def _tokens_of(part: Part) -> tuple[int, int]:
    """Return what is the same for parts about the same tokens, while both are held."""
    return id(part["row"]), id(part["position"])


def _keys(part: Part, place_R: Integers) -> npt.NDArray[np.int64]:
    keys: npt.NDArray[np.int64] = (place_R[part["row"]] << ROW_BITS) + part["position"]
    return keys


def _sorted_keys(parts: Sequence[Part], place_R: Integers) -> npt.NDArray[np.int64]:
    """Return the keys of all tokens of some parts, each once."""
    keys = np.sort(np.concatenate([_keys(part, place_R) for part in parts]), kind="stable")  # fast where mostly sorted
    return keys[np.r_[True, keys[1:] != keys[:-1]]]
