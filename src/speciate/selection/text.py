"""A Text: what a model reads while its routing is recorded, with the label that its choices are judged by."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """One document."""

    document: str
    """Its name, unique among the texts."""
    text: str
    label: str = ""
    """What the user calls its kind: a domain, a topic, a language. Empty if unknown."""
    group: str = ""
    """Documents of one group (a template, an article) are near copies and count as one unit; empty: its own."""
