"""Settings by which a RoutingRecord is judged."""

from dataclasses import dataclass


@dataclass(frozen=True)
class JudgeSettings:
    """Settings by which a RoutingRecord is judged."""

    permutations: int = 999
    """Number of draws of every null."""
    resamples: int = 999
    """Number of draws of every document bootstrap."""
    confidence: float = 0.95
    """Level of the intervals; 1 - confidence is the largest p- or q-value that counts."""
    seed: int = 0
    """Seed of all draws."""
    min_occurrences: int = 5
    """How often a token must occur with every label to count in I(expert; label | token)."""
    most_tokens: int = 200_000
    """Sampled tokens for what needs single tokens; whole documents are left out beyond that."""

    @property
    def level(self) -> float:
        """Return the largest p- or q-value that counts as significant."""
        return 1 - self.confidence
