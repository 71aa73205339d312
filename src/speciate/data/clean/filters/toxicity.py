"""Drops documents with insulting or obscene sentences, scored sentence by sentence.

alt-profanity-check's model: a linear classifier over words, trained on some 200,000 texts that people labelled.
Decision: by sentence, because a whole document's score sinks with its length, and so flags nothing. It catches slurs,
insults and obscenity in English; it misses hatred in civil words, threats, spellings made to evade, and every other
language; and it scores some harmless short sentences high ("die"), so by default a share decides, not one sentence.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from profanity_check.profanity_check import model, vectorizer
from pydantic import Field

from speciate.config.contracts.data import FilterOptions
from speciate.data.clean.pipeline import Drop, drop_if_too_large
from speciate.data.clean.words import sentence_spans
from speciate.data.documents import Document

MAX_SENTENCE_CHARACTERS = 200
"""Characters of one piece: what has no sentences is scored in pieces, or length would hide everything."""
BATCH_SENTENCES = 4096
"""Pieces scored at a time."""


class Options(FilterOptions):
    """Keeps documents whose sentences are mostly civil."""

    threshold: float = Field(0.9, gt=0, lt=1)
    """Score, from 0 to 1, from which a sentence is toxic."""
    max_share: float = Field(0.1, ge=0, le=1)
    """Greatest share of a document's sentences that may be."""
    max_sentences: int | None = Field(None, ge=0)
    """Most sentences that may be; none: any number."""


class Filter:
    """Looks at one document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        self._scorer = ToxicityScorer()

    def apply(self, document: Document) -> Document | Drop:
        """`document`, or why it is dropped (toxic); the note shows its worst sentence."""
        if drop := drop_if_too_large(document):
            return drop
        pieces = split_sentences(document.text)
        scores = np.concatenate(
            [self._scorer.score(pieces[start : start + BATCH_SENTENCES]) for start in range(0, len(pieces), BATCH_SENTENCES)]
        )
        number = int((scores >= self.options.threshold).sum())
        limit = self.options.max_sentences
        if number <= self.options.max_share * len(pieces) and (limit is None or number <= limit):
            return document
        worst = int(scores.argmax())
        return Drop("toxic", f"{number} of {len(pieces)} sentences; {scores[worst]:.2f}: {pieces[worst]}")


class ToxicityScorer:
    """The model's probabilities, from its numbers: one matrix product instead of its five predictors one by one.

    predict_prob of the package gives the same, at a quarter of the speed.
    """

    def __init__(self) -> None:
        members = [(each.estimator, each.calibrators[0]) for each in model.calibrated_classifiers_]
        self._weights_VM = np.stack([estimator.coef_[0] for estimator, _ in members], axis=1)
        self._bias_M = np.array([estimator.intercept_[0] for estimator, _ in members])
        self._slope_M = np.array([calibrator.a_ for _, calibrator in members])
        self._offset_M = np.array([calibrator.b_ for _, calibrator in members])

    def score(self, texts: list[str]) -> npt.NDArray[np.float64]:
        """How likely each of `texts` (N of them) is toxic, float64 (N,): the mean over M members, Platt-scaled."""
        words_NV: Any = vectorizer.transform(texts)
        margins_NM = words_NV @ self._weights_VM + self._bias_M
        scores_N: npt.NDArray[np.float64] = (1 / (1 + np.exp(self._slope_M * margins_NM + self._offset_M))).mean(axis=1)
        return scores_N


def split_sentences(text: str) -> list[str]:
    """The sentences of `text` that hold a letter, long ones in pieces; the beginning of `text` where none does."""
    pieces: list[str] = []
    for start, stop in sentence_spans(text):
        while stop - start > MAX_SENTENCE_CHARACTERS:
            space = text.rfind(" ", start + MAX_SENTENCE_CHARACTERS // 2, start + MAX_SENTENCE_CHARACTERS)
            cut = space if space >= 0 else start + MAX_SENTENCE_CHARACTERS
            pieces.append(text[start:cut])
            start = cut
        pieces.append(text[start:stop])
    spoken = [piece.strip() for piece in pieces if any(map(str.isalpha, piece))]
    return spoken or [text[:MAX_SENTENCE_CHARACTERS]]
