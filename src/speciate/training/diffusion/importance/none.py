"""No importance: every token is masked alike, which is MDLM."""

from typing import ClassVar

from speciate.config.contracts.training import ImportanceOptions


class Options(ImportanceOptions):
    """None."""

    has_selector: ClassVar[bool] = False
    """Whether there is an importance at all."""
    published: ClassVar[bool] = False
    """Whether the original has it."""
