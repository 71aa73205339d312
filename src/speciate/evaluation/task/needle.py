"""Needle in a haystack (Kamradt 2023): a sentence hidden in real text at each depth and length, asked for at the end.

Metric `accuracy`: whether greedy decoding writes the number, by its tokens (evaluation/long_context/answering.py); its
chance is 0, since a number of four digits is hardly ever guessed. Metric `choice_accuracy`: whether the number is
likelier than the other candidates, of which only it stands in the text; its chance is 1 / choices. A model that can
copy nothing is at chance in both.

A question has the same needle and candidates at every depth and length.
"""

from typing import Annotated

import numpy as np
import pandas as pd
import pydantic
from pydantic import Field

from speciate.config.contracts.evaluation import TaskOptions
from speciate.config.run import Name
from speciate.evaluation.long_context.needles import hide, single
from speciate.evaluation.long_context.scores import Asked, scores_by_length
from speciate.evaluation.long_context.subject import material_of
from speciate.evaluation.subject import Subject


class Options(TaskOptions):
    """Lengths, depths and the haystack."""

    lengths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], pydantic.Strict(False)] = Field(
        (512, 1024, 2048), min_length=1
    )
    """Numbers of tokens of the context, with question and answer. A length beyond the model's context is left out."""
    depths: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], pydantic.Strict(False)] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0), min_length=1
    )
    """Places of the needle: 0 before the haystack's first token, 1 behind its last."""
    questions: int = Field(16, ge=1)
    """Number of questions at each length and depth."""
    choices: int = Field(8, ge=2)
    """Number of candidates of an answer, the right one included."""
    text: Name | None = None
    """Name in `evaluation.texts` of the haystack; null: the study's own test set."""
    seed: int = Field(0, ge=0)
    """Seed of needles, candidates and places of the haystack."""

    def texts(self) -> tuple[str, ...]:
        """Return the haystack's name in `evaluation.texts`, if it is one of them."""
        return () if self.text is None else (self.text,)


def evaluate(options: Options, subject: Subject) -> pd.DataFrame:
    """Return the scores of each question at each length and depth.

    Raises:
        ValueError: the model cannot answer after a context, there is no haystack, or no length fits.
    """
    material = material_of(subject, options.text, options.choices)

    def ask(length: int) -> list[Asked]:
        asked = []
        for depth in options.depths:
            for number in range(options.questions):
                draw = np.random.Generator(np.random.Philox([options.seed, number]))
                question = hide(single(material, draw), length, material, draw, depths=[depth])
                asked.append(Asked(question, part="", item=f"needle{number}", depth=depth))
        return asked

    return scores_by_length(subject, options.lengths, ask, options.choices)
