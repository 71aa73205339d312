"""The auxiliary balancing loss (Shazeer et al. 2017; Fedus et al. 2021): weight x S sum_s f_s P_s.

Its gradient lowers the probability of slots that were chosen often. At k > 1 f is over assignments (the right 1/k).
Its statistics are those of one micro-batch of one process: among several processes it is the mean of theirs.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from speciate.kinds import Kind
from speciate.model.routing import Balancer, load_balancing_loss


class Options(Kind):
    """Strength."""

    weight: float = Field(0.01, gt=0)
    """Weight of the loss, whose value is about 1."""

    acts_by: ClassVar[str | None] = "gradient"
    """How it moves a router's choices."""


class Balance(Balancer):
    """Adds the loss."""

    def __init__(self, options: Options, num_slots: int) -> None:
        super().__init__()
        self.weight = options.weight

    def forward(self, probs_NS: Tensor, chosen_NS: Tensor) -> Tensor:
        """The weighted loss of one micro-batch, a scalar."""
        return self.weight * load_balancing_loss(probs_NS, chosen_NS)
