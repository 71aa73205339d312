"""`Passage`: one text as its source yields it, before cleaning assigns it to a domain."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Passage:
    """One record of a source."""

    id: str
    """The record's name, unique within the source."""
    group: str | None
    """Records of one group (an article, a template) stay in one split; None where nothing groups records."""
    text: str | None
    """The text; None where the record has none."""
    fault: str | None = None
    """The reason under which a record without text is dropped; None: its text is null."""
    place: str = field(default="", compare=False)
    """Where it was read, such as its file and row, for messages; it does not outlive the stage that reads."""
