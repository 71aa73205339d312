"""What readers of counts share: counts that were multiplied, and the number k that counts do not tell."""

import math
from functools import reduce

import numpy as np

from speciate.selection.record_builder import RecordBuilder
from speciate.selection.routing_record import Integers
from speciate.traces.contract import ReadOptions

ENOUGH = 8
"""Counts from which on it is no accident that all are multiples of one number."""


def note_counts_only(builder: RecordBuilder) -> None:
    """Note that there are no single tokens."""
    builder.add_note(
        "counts_only",
        "The record holds counts alone, without single tokens: what depends on them cannot be said.",
    )


def undo_multiples(count: Integers, builder: RecordBuilder, options: ReadOptions, where: str) -> Integers:
    """Return the counts without the ranks that saw the same tokens, whose number `data_parallel` says.

    Raises:
        ValueError: the counts are not multiples of it.
    """
    if options.data_parallel > 1:
        if (count % options.data_parallel).any():
            raise ValueError(
                f"{where}: not all counts are multiples of --data-parallel {options.data_parallel}, so they were not"
                " multiplied by it"
            )
        return count // options.data_parallel
    common = reduce(math.gcd, np.unique(count).tolist(), 0)
    if common > 1 and int((count > 0).sum()) > ENOUGH:
        builder.add_note(
            "counts_multiplied",
            f"All counts are multiples of {common}: they may be sums over {common} ranks that saw the same tokens, or"
            " padded. Then intervals are too narrow; give --data-parallel if ranks were added up.",
        )
    return count


def choices_of_counts(told: int | None, builder: RecordBuilder, options: ReadOptions, where: str) -> int:
    """Return k, as the user or the file says; else 1, which is noted.

    Raises:
        ValueError: they say different numbers.
    """
    if told is not None and options.num_chosen is not None and told != options.num_chosen:
        raise ValueError(f"{where}: each token chooses {told} experts, but --chosen says {options.num_chosen}")
    found = options.num_chosen or told
    if found is None:
        builder.add_note(
            "num_chosen_guessed",
            "Counts do not say how many experts a token chooses; each choice was taken as one decision, which makes"
            " intervals too narrow if there are more. Give --chosen.",
        )
    return found or 1
