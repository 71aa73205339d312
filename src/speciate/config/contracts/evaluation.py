"""Contracts of the samplers of masked text, and of the tasks on which finished runs are evaluated."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

from speciate.config.components import ComponentOptions, component_module

if TYPE_CHECKING:
    import pandas as pd

    from speciate.evaluation.subject import Subject
    from speciate.evaluation.unmasking import Sampler


class SamplerModule(Protocol):
    """A kind of sampler: `evaluation/sampler/<kind>.py`."""

    def Sampler(self, options: Any, /) -> "Sampler":
        """Build the sampler."""


class SamplerOptions(ComponentOptions):
    """Options of a sampler of masked text."""

    def component(self) -> SamplerModule:
        return cast(SamplerModule, component_module(self))


SCORES = {
    "metric": "str",
    "part": "str",
    "item": "str",
    "group": "str",
    "length": "int64",
    "depth": "float64",
    "value": "float64",
    "weight": "float64",
    "chance": "float64",
}
"""Columns of a task's scores, a row for each question and metric, and their types.

    metric  what is scored: `accuracy`, `nats_per_token`, `bits_per_byte`, ...
    part    a part of the task that has a row of its own in tables: a domain, a subtask, a text; "" if there is one part
    item    the question
    group   questions of one group are not independent (one document); resampling draws groups
    length  tokens of the question's context; -1 where the task does not vary it
    depth   place of the answer in the context, 0 (first) to 1 (last); NaN where the task does not vary it
    value   the question's score
    weight  its weight in the mean of a part: 1, or a number of tokens or bytes
    chance  expected score of guessing; NaN where there is none
"""


class TaskModule(Protocol):
    """A kind of task: `evaluation/task/<kind>.py`."""

    def evaluate(self, options: Any, subject: "Subject", /) -> "pd.DataFrame":
        """Return a row for each question and metric, with the columns of `SCORES`.

        Where some questions are left out, such as those that are longer than the model's context, the table's
        `attrs["reason"]` says why.

        Raises:
            ValueError: the task cannot be put to this model, or a file of its own is missing or damaged; the message
                names the field or the file. The study goes on, and its table says why there is no score.
        """


class TaskOptions(ComponentOptions):
    """Options of a task on which finished runs are evaluated."""

    environment: ClassVar[Literal["study", "evaluation"]] = "study"
    """The environment that the task's job runs in: the one that trains, or the one with what evaluation alone needs."""

    def component(self) -> TaskModule:
        return cast(TaskModule, component_module(self))

    def texts(self) -> tuple[str, ...]:
        """Return the names in the study's `evaluation.texts` that the task reads."""
        return ()

    def files(self) -> tuple[str, ...]:
        """Return the user's own files that the task reads; what they hold decides whether its scores are stale."""
        return ()
