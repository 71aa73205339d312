"""Declare what a reader of a trace is given and what its module must have.

A trace is a record of routing that somebody's program wrote. Each format is one file of `traces/format/`, and its name
is the file's name: there is no list of formats to extend.
"""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from speciate.selection.record_builder import RecordBuilder
from speciate.selection.routing_record import Integers
from speciate.selection.text import Text

DOCUMENT_LENGTH = 1024
"""Tokens of a window, where a trace does not say which tokens belong to one document."""


@dataclass(frozen=True)
class ReadOptions:
    """What the user knows of a trace that the trace itself may not say."""

    num_experts: int | None = None
    """Experts of each router, E. Without it, E is guessed from the largest id where the trace does not hold it."""
    num_chosen: int | None = None
    """Experts that a token chooses, k."""
    data_parallel: int = 1
    """How many times each token was counted, where ranks that saw the same tokens were added up. Counts are divided."""
    label: str | None = None
    """Column that holds the labels, where it is not called `label`; with `texts`, theirs, which were read by it."""
    select: Mapping[str, str] = field(default_factory=dict)
    """Column -> the value whose rows are read, where a file holds several models or kinds of choices."""
    texts: Sequence[Text] | None = None
    """The documents' labels and groups, joined by the documents' names."""
    token_ids: Mapping[str, Integers] = field(default_factory=dict)
    """Name of a document -> the ids of its tokens, where the trace does not hold them (`traces.token_ids`)."""
    document_length: int = DOCUMENT_LENGTH
    """Tokens of a window that stands for a document, where the trace knows no documents."""
    mixture: pathlib.Path | None = None
    """The folder that `balance` wrote for a run, where the run's folder stands apart from its study's results."""
    phase: str = ""
    """`prompt` or `generation`: the phase of all tokens, where the trace does not say."""

    @property
    def label_column(self) -> str | None:
        """Return the column that the trace must have for its labels, if the user named one of the trace's."""
        return None if self.texts else self.label


@dataclass(frozen=True)
class Contents:
    """What a format can hold at best; docs/traces.md shows it."""

    documents: bool = False
    """Whether tokens of one text can be told from those of another."""
    tokens: bool = False
    """Whether there are token ids."""
    order: bool = False
    """Whether the first of the k choices can be told from the last."""
    weights: bool = False
    """Whether there are weights of the chosen experts."""
    phases: bool = False
    """Whether prompt and generation are apart."""
    labels: bool = False
    """Whether the format itself names labels."""


class TraceFormat(Protocol):
    """What the module of a format has."""

    SUMMARY: str
    """What the format is, in one sentence that begins with the writer's name."""
    FILES: str
    """How its files are named, such as `router_trace_rank*.jsonl`."""
    CONTENTS: Contents
    LOOKS_FOR: str
    """What `matches` looks for in a file, in a few words; an error that no format matches names it."""

    def matches(self, path: pathlib.Path) -> bool:
        """Return whether a file, or a folder, holds this format, by its content. A damaged file may still match."""

    def read(self, paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
        """Add everything that the files hold to `builder`.

        Raises:
            ValueError: the files cannot be judged; the message names the file, and the line or record.
        """
