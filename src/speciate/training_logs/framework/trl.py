"""TRL: `SFTConfig(log_expert_usage=True)`, measured in `evaluate()` on every top-k choice without padding.

The test of the pull request fixes the definitions: counts of (1, 1, 1, 1) and (0, 0, 2, 2) give
normalized_entropy_mean = .75, max_share_max = .5 and active_fraction_mean = .75. With h = H / ln E the effective share
is E^(h - 1). That is convex in h, so of the mean of h it is at most the mean of the effective shares.
"""

from speciate.training_logs.log_names import LogName

TITLE = "TRL"
SOURCE = "huggingface/trl, pull request 6514 to issue 4611 (proposed, 2026): `log_expert_usage` of SFTTrainer"
PHASE = "eval"
NOTES = ("It logs in evaluations alone, and summaries over layers alone.",)


def max_violation(value: float, experts: int) -> float:
    """Return MaxVio of the largest share."""
    return experts * value - 1


def effective_share(value: float, experts: int) -> float:
    """Return effective experts over E of an entropy over ln E."""
    return float(experts ** (value - 1))


def one_minus(value: float, experts: int) -> float:
    """Return the dead experts' share of the active ones'."""
    return 1 - value


NAMES = (
    LogName(
        "eval_expert_usage/max_share_{mean,max}",
        "expert_usage/max_share_(?P<over>mean|max)",
        "max_vio",
        "E x - 1",
        max_violation,
        needs_experts=True,
    ),
    LogName(
        "eval_expert_usage/normalized_entropy_min",
        "expert_usage/normalized_entropy_(?P<over>min)",
        "effective_share",
        "E^(x - 1)",
        effective_share,
        needs_experts=True,
    ),
    LogName(
        "eval_expert_usage/normalized_entropy_mean",
        "expert_usage/normalized_entropy_(?P<over>mean)",
        "effective_share",
        "at least E^(x - 1)",
        effective_share,
        needs_experts=True,
        relation=">=",
    ),
    LogName(
        "eval_expert_usage/active_fraction_mean",
        "expert_usage/active_fraction_(?P<over>mean)",
        "dead_share",
        "1 - x",
        one_minus,
    ),
)
