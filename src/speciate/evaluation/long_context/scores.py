"""Scores of questions by the length of their context, in the form that every task returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from speciate.cli import log
from speciate.evaluation.long_context.answering import Question, score, why_too_long
from speciate.evaluation.subject import SCORES, Subject


@dataclass(frozen=True)
class Asked:
    """A question with its place in the table of scores."""

    question: Question
    part: str
    item: str
    depth: float


def scores_by_length(
    subject: Subject, lengths: Sequence[int], ask: Callable[[int], list[Asked]], num_choices: int
) -> pd.DataFrame:
    """Return two rows for each question: metrics `accuracy` and `choice_accuracy`.

    A length that the model or the questions do not fit is left out. `attrs["reason"]` of the table says why.

    Args:
        subject: the run.
        lengths: numbers of tokens.
        ask: makes the questions of a length; raises ValueError if they do not fit.
        num_choices: number of candidates of each answer.

    Raises:
        ValueError: no length fits; the message says why for each.
    """
    rows, reasons = [], []
    for length in lengths:
        reason = why_too_long(length, subject.model.context)
        try:
            asked = [] if reason else ask(length)
        except ValueError as error:
            reason = str(error)
        if reason:
            reasons.append(reason)
            continue
        scored = score(subject.model, [each.question for each in asked], subject.device)
        for each, result in zip(asked, scored, strict=True):
            facts = {"part": each.part, "item": each.item, "group": each.item, "length": length, "depth": each.depth}
            rows.append({**facts, "metric": "accuracy", "value": result.exact, "weight": 1.0, "chance": 0.0})
            rows.append(
                {**facts, "metric": "choice_accuracy", "value": result.chosen, "weight": 1.0, "chance": 1 / num_choices}
            )
    return with_reasons(rows, reasons)


def with_reasons(rows: Sequence[dict[str, object]], reasons: Sequence[str]) -> pd.DataFrame:
    """Return the rows as a table of scores that carries the reasons why others are missing.

    Raises:
        ValueError: there are no rows.
    """
    reason = "; ".join(dict.fromkeys(reasons))
    if not rows:
        raise ValueError(reason)
    table = pd.DataFrame(list(rows))[list(SCORES)].astype(SCORES)
    if reason:
        log(f"left out: {reason}")
        table.attrs["reason"] = reason
    return table
