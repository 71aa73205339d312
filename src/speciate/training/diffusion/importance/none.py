"""No importance: every token is masked alike, which is MDLM."""

from typing import ClassVar

from speciate.config.components import ComponentOptions


class Options(ComponentOptions):
    """None."""

    share: ClassVar[float] = 0.0
    """Of what is learned in the importance."""
    has_selector: ClassVar[bool] = False
    """Whether there is an importance at all."""
    published: ClassVar[bool] = False
    """Whether the original has it."""
