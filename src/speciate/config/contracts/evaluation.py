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


class TaskModule(Protocol):
    """A kind of task: `evaluation/task/<kind>.py`."""

    def evaluate(self, options: Any, subject: "Subject", /) -> "pd.DataFrame":
        """Return a row for each question and metric, with the columns of `evaluation.subject.SCORES`.

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
