"""Options that texts of associative recall share, whether a source writes them or a task asks them."""

from typing import Literal

from pydantic import Field

from speciate.config.components import Strict

MAX_KEYS, MAX_VALUES = 57, 36


class RecallOptions(Strict):
    """Symbols of the texts, and where queries stand."""

    num_keys: int = Field(26, ge=1, le=MAX_KEYS)
    """Number of symbols that are keys: small letters, then punctuation."""
    num_values: int = Field(16, ge=2, le=MAX_VALUES)
    """Number of symbols that are values: capital letters, then digits."""
    gaps: Literal["power_law", "uniform"] = "power_law"
    """How the distance from the pairs to a query is drawn: by a power law, as in the paper, or evenly."""
    power: float = Field(0.01, gt=0)
    """Exponent a of the power law: place g, from 1, has a probability proportional to g^(a - 1)."""


def check_sizes(options: RecallOptions, num_pairs: int, length: int) -> None:
    """Raise ValueError if a text of `length` symbols cannot hold `num_pairs` pairs and their queries."""
    if num_pairs > options.num_keys:
        raise ValueError(
            f"num_pairs: {num_pairs} pairs need as many different keys, and num_keys is {options.num_keys}"
        )
    if length < 4 * num_pairs:
        raise ValueError(
            f"length: {num_pairs} pairs and their queries need {4 * num_pairs} symbols, and a text has {length}"
        )
