"""Tasks in the manner of RULER (Hsieh et al. 2024, arXiv 2404.06654), generated at any length in our own words.

    single              one needle, one question
    multi_key           several needles with different keys, one of them asked for
    multi_value         several numbers of one key, all asked for
    multi_query         several needles with different keys, all asked for
    variable_tracking   names that get a number from each other, all asked for; a second chain distracts
    common_words        which words a list repeats ten times as often as the others
    frequent_words      which words are most frequent in a list whose frequencies fall as a power law

An answer of several parts is scored part by part, each after the correct ones before it. Metric `accuracy` is the share
of parts that greedy decoding writes; its chance is 0. Metric `choice_accuracy` is the share of parts that are likelier
than all wrong candidates; its chance is 1 / choices. Wrong candidates stand in the text where they can: the numbers of
other keys, the names of the other chain, other words of the list.
"""

from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
import pydantic
from pydantic import Field

from speciate.config.contracts.evaluation import TaskOptions
from speciate.config.run import Name
from speciate.evaluation.long_context.answering import Question
from speciate.evaluation.long_context.counting import common_words, frequent_words
from speciate.evaluation.long_context.needles import (
    Material,
    hide,
    multi_key,
    multi_query,
    multi_value,
    single,
    variable_tracking,
)
from speciate.evaluation.long_context.scores import Asked, scores_by_length
from speciate.evaluation.long_context.subject import material_of
from speciate.evaluation.subject import Subject


class Options(TaskOptions):
    """Variants, lengths and the haystack."""

    variants: Annotated[
        tuple[
            Literal[
                "single",
                "multi_key",
                "multi_value",
                "multi_query",
                "variable_tracking",
                "common_words",
                "frequent_words",
            ],
            ...,
        ],
        pydantic.Strict(False),
    ] = Field(
        (
            *("single", "multi_key", "multi_value", "multi_query"),
            *("variable_tracking", "common_words", "frequent_words"),
        ),
        min_length=1,
    )
    """Which tasks are put; each is a part of its own in the tables."""
    lengths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], pydantic.Strict(False)] = Field(
        (512, 1024, 2048), min_length=1
    )
    """Numbers of tokens of the context, with question and answer. A length beyond the model's context is left out."""
    questions: int = Field(16, ge=1)
    """Number of questions of each variant at each length."""
    choices: int = Field(8, ge=2)
    """Number of candidates of each part of an answer, the right one included."""
    needles: int = Field(4, ge=2)
    """Number of needles of multi_key, multi_value and multi_query."""
    hops: int = Field(3, ge=1)
    """Number of times that variable_tracking hands a number on."""
    words: int = Field(3, ge=1)
    """Number of words that common_words and frequent_words ask for."""
    text: Name | None = None
    """Name in `evaluation.texts` of the haystack; null: the study's own test set."""
    seed: int = Field(0, ge=0)
    """Seed of needles, candidates and places of the haystack."""

    @pydantic.model_validator(mode="after")
    def _check_variants(self) -> Self:
        if len(set(self.variants)) < len(self.variants):
            raise ValueError(f"variants: {', '.join(self.variants)} names a variant twice")
        return self

    def texts(self) -> tuple[str, ...]:
        """Return the haystack's name in `evaluation.texts`, if it is one of them."""
        return () if self.text is None else (self.text,)


def make(variant: str, length: int, options: Options, material: Material, *, draw: np.random.Generator) -> Question:
    """Return a question of a variant, at most `length` tokens with its answers.

    Raises:
        ValueError: the variant does not fit into so few tokens.
    """
    if variant == "common_words":
        return common_words(length, material, draw, num_words=options.words)
    if variant == "frequent_words":
        return frequent_words(length, material, draw, num_words=options.words)
    drafts = {
        "single": lambda: single(material, draw),
        "multi_key": lambda: multi_key(material, draw, num_needles=options.needles),
        "multi_value": lambda: multi_value(material, draw, num_needles=options.needles),
        "multi_query": lambda: multi_query(material, draw, num_needles=options.needles),
        "variable_tracking": lambda: variable_tracking(material, draw, num_hops=options.hops),
    }
    draft = drafts[variant]()
    depths = np.sort(draw.random(len(draft.needles))).tolist()
    return hide(draft, length, material, draw, depths=depths)


def evaluate(options: Options, subject: Subject) -> pd.DataFrame:
    """Return the scores of each question of each variant at each length.

    Raises:
        ValueError: the model cannot answer after a context, there is no haystack, or no length fits.
    """
    material = material_of(subject, options.text, options.choices)

    def ask(length: int) -> list[Asked]:
        asked = []
        for variant in options.variants:
            for number in range(options.questions):
                draw = np.random.Generator(np.random.Philox([options.seed, number]))
                question = make(variant, length, options, material, draw=draw)
                asked.append(Asked(question, part=variant, item=f"{variant}{number}", depth=float("nan")))
        return asked

    return scores_by_length(subject, options.lengths, ask, options.choices)
