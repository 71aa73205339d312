"""Checks that the options of every mixture of experts share: whether router, number of slots and balancing agree."""

from speciate.config.contracts.model import BalanceOptions, RouterOptions


def check_slots(router: RouterOptions, num_experts: int, top_k: int) -> None:
    """Refuse more experts a token than there are, or than the router can name, by a ValueError."""
    if top_k > num_experts:
        raise ValueError(f"top_k: cannot choose {top_k} of {num_experts} experts")
    if top_k > 1 and not router.scores_all_slots:
        raise ValueError(f"top_k: router {router.kind} names one expert for each token, so top_k must be 1")
    router.check_slots(num_experts)


def check_balance(router: RouterOptions, balance: BalanceOptions) -> None:
    """Refuse a balancing that cannot move the router's choices, by a ValueError."""
    if balance.acts_by not in (None, *router.balanced_by):
        raise ValueError(
            f"balance: {balance.kind} acts by the {balance.acts_by}, which cannot move router {router.kind}; "
            f"balance: none goes with it"
        )
