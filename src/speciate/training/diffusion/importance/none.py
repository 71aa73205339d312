"""No importance: every token has the same mask probability, which is MDLM."""

from typing import ClassVar

from speciate.config.contracts.training import ImportanceOptions


class Options(ImportanceOptions):
    """Options of no importance: none."""

    has_selector: ClassVar[bool] = False
    """Whether there is an importance at all, so that masking can act by it."""
