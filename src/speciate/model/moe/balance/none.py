"""No load balancing: the load goes where the router sends it."""

from speciate.config.contracts.model import BalanceOptions
from speciate.model.moe.top_k_router import Balancer


class Options(BalanceOptions):
    """No options."""


class Balance(Balancer):
    """Does nothing."""

    def __init__(self, options: Options, num_slots: int) -> None:
        super().__init__()
