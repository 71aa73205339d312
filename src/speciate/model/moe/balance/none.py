"""No balancing: the load goes where the router sends it."""

from typing import ClassVar

from speciate.config.contracts.model import BalanceOptions
from speciate.model.moe.top_k_router import Balancer


class Options(BalanceOptions):
    """None."""

    acts_by: ClassVar[str | None] = None
    """How it moves a router's choices."""


class Balance(Balancer):
    """Leaves the load alone."""

    def __init__(self, options: Options, num_slots: int) -> None:
        super().__init__()
