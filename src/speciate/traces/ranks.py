"""Find the ranks that recorded the same tokens, so that none is counted twice."""

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

ENOUGH_TOKENS = 16
"""Tokens that two ranks must have recorded alike; of fewer it might be an accident."""


@dataclass(eq=False)
class RankDigests:
    """Digests of what ranks recorded, by what each record is about (its step, its layer, ...)."""

    digests: dict[str, dict[Hashable, bytes]] = field(default_factory=dict)
    tokens: dict[str, dict[Hashable, int]] = field(default_factory=dict)

    def add(self, rank: str, about: Hashable, content: bytes, num_tokens: int) -> None:
        """Add a record of a rank; further ones about the same are told apart by their order."""
        of_rank = self.digests.setdefault(rank, {})
        number = 0
        while (about, number) in of_rank:
            number += 1
        of_rank[about, number] = hashlib.blake2b(content, digest_size=16).digest()
        self.tokens.setdefault(rank, {})[about, number] = num_tokens

    def repeats(self) -> Mapping[str, str]:
        """Return each rank that recorded what another did, with the first that did."""
        found: dict[str, str] = {}
        ranks = list(self.digests)
        for place, rank in enumerate(ranks):
            for other in ranks[:place]:
                if other not in found and self._are_alike(rank, other):
                    found[rank] = other
                    break
        return found

    def _are_alike(self, rank: str, other: str) -> bool:
        common = self.digests[rank].keys() & self.digests[other].keys()
        alike = all(self.digests[rank][about] == self.digests[other][about] for about in common)
        return alike and sum(self.tokens[rank][about] for about in common) >= ENOUGH_TOKENS


def repeats_in_words(repeats: Mapping[str, str]) -> str:
    """Return the sentence for the note `duplicated_ranks`."""
    pairs = [f"{rank} repeats {other}" for rank, other in list(repeats.items())[:4]]
    more = f" and {len(repeats) - 4} more" if len(repeats) > 4 else ""
    return (
        f"Ranks that share their tokens recorded each ({', '.join(pairs)}{more}); what is there more than once was"
        " counted once."
    )
