"""Build filters as the stage builds them, and return their verdicts on a text."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from speciate.config.components import component_module, options_of
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document

Verdict = Callable[[str], str]
PROSE = (
    "The harbour had been dug in the year of the great flood, and for two centuries the town lived by it. "
    "Ships came from the north with timber, and they left with salt and with the cloth that the weavers made "
    "in winter.\n"
    "When the railway reached the coast, most of that trade went inland. The quays were left to the fishermen, "
    "who had never had much use for them, and to children. A few merchants stayed because their houses were "
    "too large to sell.\n"
    "Today the old customs house is a museum. It keeps the ledgers of four families, a model of the first "
    "lighthouse, and a room of instruments that nobody has been able to name. Visitors are asked to guess, and "
    "to be brief about it."
)
CODE = '''import math


def area(radius: float) -> float:
    """The area of a circle."""
    if radius < 0:
        raise ValueError(f"radius: {radius} is negative")
    return math.pi * radius**2


class Circle:
    def __init__(self, radius: float) -> None:
        self.radius = radius

    @property
    def area(self) -> float:
        return area(self.radius)
'''.strip()


@pytest.fixture
def prose() -> str:
    """Provide three paragraphs of ordinary English, written for these tests."""
    return PROSE


@pytest.fixture
def code() -> str:
    """Provide an ordinary small module, written for these tests."""
    return CODE


@pytest.fixture
def make() -> Callable[..., Any]:
    """Build a filter of a kind with some settings."""

    def made(kind: str, archives: Mapping[str, pathlib.Path] | None = None, **settings: Any) -> Any:
        options = options_of("data/clean/filters", kind).model_validate({"kind": kind, **settings})
        return component_module(options).Filter(options, archives or {})

    return made


@pytest.fixture
def verdict(make: Callable[..., Any]) -> Callable[..., Verdict]:
    """Return a filter's verdict on a text: `kept`, `edited`, or the reason for the drop."""

    def of(kind: str, **settings: Any) -> Verdict:
        judge = make(kind, **settings)

        def said(text: str) -> str:
            result = judge.apply(Document("s/1", "d", "s/1", text))
            if isinstance(result, Drop):
                assert result.reason.isidentifier() and result.reason == result.reason.lower()
                return result.reason
            assert (result.id, result.domain, result.group) == ("s/1", "d", "s/1")
            return "kept" if result.text == text else "edited"

        return said

    return of
