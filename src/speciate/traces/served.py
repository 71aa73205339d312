"""Join the tokens of a server's steps to its requests, which the record does not name: by their positions."""

from dataclasses import dataclass, field

MOST_ACTIVE = 4096
"""Sequences that may go on; those that began before have ended."""


@dataclass(eq=False)
class ServedSequence:
    """A request whose tokens come in several steps."""

    document: str
    next_position: int


@dataclass(eq=False)
class ServedSequences:
    """The requests of a server, in the order of its batch."""

    active: list[ServedSequence] = field(default_factory=list)
    _at: int = 0

    def begin_step(self) -> None:
        """Begin a step, whose sequences come in the order of the batch."""
        self._at = 0

    def find(self, position: int) -> ServedSequence | None:
        """Return the next sequence that goes on at a position, if there is one."""
        for place in [*range(self._at, len(self.active)), *range(self._at)]:
            sequence: ServedSequence = self.active[place]
            if sequence.next_position == position:
                self._at = place + 1
                return sequence
        return None

    def begin(self, document: str) -> ServedSequence:
        """Return a new sequence, at the end of the batch."""
        sequence = ServedSequence(document, 0)
        self.active = [*self.active[-MOST_ACTIVE:], sequence]
        return sequence
