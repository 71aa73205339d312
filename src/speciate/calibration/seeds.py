"""Size and power of the tests of hypotheses, and coverage of their intervals, where a seed is one observation."""

from collections.abc import Callable

import numpy as np
from scipy import stats

from speciate.analysis import statistics
from speciate.calibration.topic import LEVEL, NOMINAL_COVERAGE, Cell, Coverage, Rate, Size, Table, Topic, num_draws
from speciate.selection.tally import Array

Law = Callable[[np.random.Generator, int], Array]


def two_modes(draw: np.random.Generator, count: int) -> Array:
    """Draw differences of which a fifth lie far off, as where one seed of five collapses; mean 0, variance about 1."""
    far = draw.random(count) < 0.2
    result: Array = 0.3 * draw.standard_normal(count) + np.where(far, 2.0, -0.5)
    return result


LAWS: dict[str, Law] = {
    "normal": lambda draw, count: draw.standard_normal(count),
    "long tails (t, 3 degrees)": lambda draw, count: draw.standard_t(3, count) / np.sqrt(3),
    "skewed (exponential)": lambda draw, count: draw.exponential(size=count) - 1,
    "one in five far off": two_modes,
}
SEEDS = (2, 3, 5, 10)
SHARES = (0.5, 0.9)
"""True shares of runs; at .5 and .9 the size of a test against that share is looked at."""


def t_row(name: str, law: Law, seeds: int, num: int) -> tuple[Cell, ...]:
    """Return size, coverage and power of the paired t test, and the size of the equivalence test at its margin."""
    draw = np.random.default_rng(seeds)
    size, inside, found, equal = 0, 0, 0, 0
    for _ in range(num):
        value_P = law(draw, seeds)
        interval = statistics.paired_t(value_P, NOMINAL_COVERAGE)
        inside += interval.low <= 0 <= interval.high
        size += interval.p_value <= LEVEL
        found += statistics.decide(value_P + 1, "greater", 0.0, NOMINAL_COVERAGE)[0] == "supported"
        # the true difference lies at the margin, so that "equivalent" would be wrong
        equal += statistics.decide(0.1 * value_P + 0.3, "equivalent", 0.3, NOMINAL_COVERAGE)[0] == "supported"
    return f"{name}, {seeds} seeds", Size(size, num), Coverage(inside, num), Size(equal, num), Rate(found, num)


def slope_row(seeds: int, num: int) -> tuple[Cell, ...]:
    """Return size and power of a trend over rates of 1, 3, 10 and 30, whose arms spread more and more."""
    draw = np.random.default_rng(100 + seeds)
    number_A = np.log10([1.0, 3.0, 10.0, 30.0])
    size, found = 0, 0
    for _ in range(num):
        value_PA = draw.standard_normal((seeds, 1)) + draw.standard_normal((seeds, 4)) * np.array([0.5, 1.0, 1.5, 2.0])
        size += statistics.paired_t(statistics.slopes(value_PA, number_A), NOMINAL_COVERAGE).p_value <= LEVEL
        rising = statistics.slopes(value_PA + 2 * number_A, number_A)
        found += statistics.decide(rising, "greater", 0.0, NOMINAL_COVERAGE)[0] == "supported"
    return f"{seeds} seeds", Size(size, num), Rate(found, num)


def share_row(seeds: int, num: int) -> tuple[Cell, ...]:
    """Return size and power of the tests of shares of runs."""
    draw = np.random.default_rng(200 + seeds)
    against: list[Cell] = []
    for share in SHARES:
        wrong = 0
        for successes in draw.binomial(seeds, share, num).tolist():
            low, high = statistics.proportion_interval(successes, seeds, NOMINAL_COVERAGE)
            wrong += low > share or high < share
        against.append(Size(wrong, num))

    def rejected(arm: float, reference: float) -> int:
        count = 0
        for _ in range(num):
            # collapse depends on the seed in both arms alike, in half of the seeds
            common = draw.random(seeds) < 0.5
            uniform_P, own_P = draw.random(seeds), draw.random(seeds)
            arm_P = uniform_P < arm
            reference_P = np.where(common, uniform_P, own_P) < reference
            more, less = int((arm_P & ~reference_P).sum()), int((~arm_P & reference_P).sum())
            low, high = statistics.mcnemar_interval(more, less, seeds, NOMINAL_COVERAGE)
            count += low > 0 or high < 0
        return count

    return (f"{seeds} seeds", *against, Size(rejected(0.5, 0.5), num), Rate(rejected(0.95, 0.05), num))


def correlation_row(seeds: int, num: int) -> tuple[Cell, ...]:
    """Return the size of the comparison of two correlations of .9, plain and on Fisher's z, of 60 tokens each."""
    draw = np.random.default_rng(300 + seeds)
    error = 1 / np.sqrt(57)
    plain, on_z = 0, 0
    for _ in range(num):
        z_PA = np.arctanh(0.9) + error * draw.standard_normal((seeds, 2))
        on_z += statistics.paired_t(z_PA[:, 0] - z_PA[:, 1], NOMINAL_COVERAGE).p_value <= LEVEL
        plain += statistics.paired_t(np.tanh(z_PA[:, 0]) - np.tanh(z_PA[:, 1]), NOMINAL_COVERAGE).p_value <= LEVEL
    return f"{seeds} seeds", Size(plain, num), Size(on_z, num)


def wilson_row(runs: int, share: float, num: int) -> tuple[Cell, ...]:
    """Return how often Wilson's interval, of table `collapse`, and the exact one hold the share of collapsed runs."""
    wilson, exact = 0.0, 0.0
    for successes in range(runs + 1):
        probability = float(stats.binom.pmf(successes, runs, share))
        low, high = statistics.wilson_interval(successes, runs, NOMINAL_COVERAGE)
        wilson += probability * (low <= share <= high)
        low, high = statistics.proportion_interval(successes, runs, NOMINAL_COVERAGE)
        exact += probability * (low <= share <= high)
    return f"{runs} runs, {share:.0%} collapse", wilson, exact


def tables(effort: float) -> list[Table]:
    """Return how often each test over seeds decides, where the prediction is true and where it is not."""
    num, few = num_draws(4000, effort), num_draws(2000, effort)
    return [
        Table(
            f"Paired t: {num} draws. Power: a true difference of one standard deviation is found to be greater than 0. "
            f"Equivalence: the true difference lies at the margin, three standard deviations from 0.",
            ("differences", "size", "coverage", "size of equivalence", "power"),
            tuple(t_row(name, law, seeds, num) for name, law in LAWS.items() for seeds in SEEDS),
        ),
        Table(
            f"Trend over rates of 1, 3, 10, 30, whose runs spread more and more: {num} draws.",
            ("trend", "size", "power"),
            tuple(slope_row(seeds, num) for seeds in (3, 5, 10)),
        ),
        Table(
            f"Shares of runs: {few} draws. Against the true share of 50 % and 90 %; two paired arms with 50 % each; "
            "power where 95 % and 5 % collapse.",
            ("shares", "against 50 %", "against 90 %", "paired", "power, paired"),
            tuple(share_row(seeds, few) for seeds in (5, 10, 20)),
        ),
        Table(
            "Share of collapsed runs, exact coverage of both intervals.",
            ("collapsed", "Wilson", "Clopper-Pearson"),
            tuple(wilson_row(runs, share, few) for runs in (2, 5, 10) for share in (0.02, 0.1, 0.5)),
        ),
        Table(
            f"Two correlations of .9, compared: {num} draws.",
            ("correlations", "size, plain", "size, Fisher's z"),
            tuple(correlation_row(seeds, num) for seeds in (3, 5, 10)),
        ),
    ]


TOPIC = Topic(
    name="seeds",
    title="Hypotheses, with seeds as observations",
    text="""
The tests of `analysis/statistics.py`. Differences between two arms may be far from normal: where one seed in five
collapses, its difference lies far off. Where the arms' difference is skewed, the t test of few seeds rejects too often.
The exact tests of shares never do. They need seeds: of five paired seeds, none can decide a share (the smallest p-value
is 1/16).
""",
    tables=tables,
)
