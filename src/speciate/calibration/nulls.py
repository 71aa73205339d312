"""Size and power of the tests of I(E;D) and I(E;D|token), and the bias of both."""

import numpy as np

from speciate.analysis import draws, information
from speciate.analysis.specialisation import nulls
from speciate.calibration.planted import (
    CODE,
    MATHS,
    PROSE,
    Setting,
    choices,
    choices_by_token,
    shares_by_domain,
    uneven,
)
from speciate.calibration.topic import LEVEL, Cell, Rate, Size, Table, Topic, num_draws

PERMUTATIONS = 199
"""Permutations in each draw. A study takes 999; the size is the same, the power a little higher."""
THIRTY = uneven(30, 270, 0.5)
SKEWED = (0.5, 0.2, 0.1, 0.08, 0.05, 0.04, 0.02, 0.01)
SETTINGS = (
    Setting("12 equal groups a domain", ([80] * 12, [80] * 12, [80] * 12)),
    Setting("7 equal groups a domain", ([1200] * 7, [1200] * 7, [1200] * 7)),
    Setting("110 files, 7 templates, 7 articles, mild tastes", (CODE, MATHS, PROSE), (1600.0, 1600.0, 1600.0)),
    Setting("110 files, 7 templates, 7 articles, strong tastes", (CODE, MATHS, PROSE)),
    Setting("110, 30, 30 groups", (CODE, THIRTY, THIRTY), (100.0, 100.0, 100.0)),
    Setting("110, 30, 30 groups, strong tastes", (CODE, THIRTY, THIRTY), (20.0, 20.0, 20.0)),
    Setting(
        "40 groups a domain, lengths from 5 to 1500", (uneven(40, 100, 1.2), uneven(40, 100, 1.2), uneven(40, 100, 1.2))
    ),
    Setting("200, 50, 10 decisions a group, no tastes", ([200] * 12, [50] * 12, [10] * 12), (4000.0, 4000.0, 4000.0)),
    Setting("200, 50, 10 decisions a group", ([200] * 12, [50] * 12, [10] * 12)),
    Setting("200, 50, 10 decisions, 30 groups a domain", ([200] * 30, [50] * 30, [10] * 30), (400.0, 400.0, 400.0)),
    Setting("2000, 400, 100 decisions, 7 groups", ([2000] * 7, [400] * 7, [100] * 7), (4000.0, 4000.0, 4000.0)),
    Setting(
        "behind a Mixture-of-Depths that runs 10, 30, 60 %",
        ([7] * 110, [round(0.3 * size) for size in MATHS], [round(0.6 * size) for size in PROSE]),
        (400.0, 400.0, 400.0),
    ),
    Setting("spread alone differs, 7 groups", ([500] * 7, [500] * 7, [500] * 7), (400.0, 40.0, 10.0)),
    Setting("spread alone differs, 12 groups", ([500] * 12, [500] * 12, [500] * 12), (400.0, 40.0, 10.0)),
    Setting("spread alone differs, 30 groups", ([500] * 30, [500] * 30, [500] * 30), (400.0, 40.0, 10.0)),
    Setting("spread and decisions differ", ([500] * 12, [100] * 12, [20] * 12), (400.0, 40.0, 10.0)),
    Setting("uneven load", (CODE, THIRTY, THIRTY), (40.0, 40.0, 40.0), SKEWED),
    Setting("collapsed load, unequal decisions", ([200] * 30, [50] * 30, [10] * 30), load=(0.95, *[0.05 / 7] * 7)),
    Setting("two slots, unequal decisions", ([200] * 12, [50] * 12, [10] * 12), load=(0.75, 0.25)),
    Setting("64 slots", (CODE, THIRTY, THIRTY), (400.0, 400.0, 400.0), (1 / 64,) * 64),
)
BY_TOKEN = (
    Setting("12 equal groups a domain", ([80] * 12, [80] * 12, [80] * 12), (1e4, 1e4, 1e4)),
    Setting("12 equal groups, strong tastes", ([80] * 12, [80] * 12, [80] * 12)),
    Setting("110, 7, 7 groups, strong tastes", (CODE, MATHS, PROSE)),
    Setting("400, 100, 50 decisions a group", ([400] * 12, [100] * 12, [50] * 12), (1e4, 1e4, 1e4)),
    Setting("200, 60, 30 decisions, 30 groups", ([200] * 30, [60] * 30, [30] * 30), (40.0, 40.0, 40.0)),
    Setting("spread alone differs", ([300] * 12, [300] * 12, [300] * 12), (400.0, 40.0, 10.0)),
)
EFFECT, EFFECT_BY_TOKEN = 0.15, 0.05


def plain_rates(setting: Setting, effect: float, num: int) -> tuple[int, float]:
    """Return how many of `num` draws reject at 5 %, and the mean excess in bits."""
    units = draws.gather_units(setting.sizes_G.astype(np.float64), setting.domain_G)
    drawn = draws.null_draws(units.domain_U, PERMUTATIONS, 0)
    rejected, excess = 0, 0.0
    for start in range(0, num, 250):
        counts_RGS = choices(setting, effect, min(250, num - start), seed=start)
        result = nulls.domain_null(units.sum(counts_RGS, axis=1), drawn)
        rejected += int((result.p_value <= LEVEL).sum())
        excess += float(result.excess.sum())
    return rejected, excess / num


def conditional_rates(setting: Setting, effect: float, num: int) -> tuple[int, float, float]:
    """Return how many of `num` draws reject at 5 %, and the means of the excess and of the estimate in bits."""
    units = draws.gather_units(setting.sizes_G.astype(np.float64), setting.domain_G)
    drawn = draws.null_draws(units.domain_U, PERMUTATIONS, 0)
    results = [nulls.conditional_null(units.sum(choices_by_token(setting, effect, seed)), drawn) for seed in range(num)]
    p_value, excess, observed = (
        np.array([values[0] for values in column])
        for column in (
            [result.p_value for result in results],
            [result.excess for result in results],
            [result.observed for result in results],
        )
    )
    return int((p_value <= LEVEL).sum()), float(excess.mean()), float(observed.mean())


def plain_row(setting: Setting, size_draws: int, power_draws: int) -> tuple[Cell, ...]:
    """Return a row of the first table."""
    rejected, excess = plain_rates(setting, 0.0, size_draws)
    found, found_excess = plain_rates(setting, EFFECT, power_draws)
    true = float(information.domain_information(shares_by_domain(setting.load, EFFECT)))
    return (
        *(setting.label, Size(rejected, size_draws), 1000 * excess),
        *(Rate(found, power_draws), 1000 * found_excess, 1000 * true),
    )


def conditional_row(setting: Setting, size_draws: int, power_draws: int) -> tuple[Cell, ...]:
    """Return a row of the second table."""
    rejected, excess, observed = conditional_rates(setting, 0.0, size_draws)
    found, _, _ = conditional_rates(setting, EFFECT_BY_TOKEN, power_draws)
    return setting.label, Size(rejected, size_draws), 1000 * observed, 1000 * excess, Rate(found, power_draws)


def tables(effort: float) -> list[Table]:
    """Return size and power of each test of the domain, a table for each test."""
    size, power = num_draws(2000, effort), num_draws(400, effort)
    return [
        Table(
            f"I(E;D): {size} draws without an effect, {power} with one. Bits are given in thousandths.",
            ("choices alike", "size", "excess", "power", "excess with an effect", "true"),
            tuple(plain_row(setting, size, power) for setting in SETTINGS),
        ),
        Table(
            f"I(E;D|token) of a router that looks at the token, where domains differ in their tokens: {size} draws "
            f"without an effect, {power} in which {EFFECT_BY_TOKEN:.0%} of the decisions go by the domain.",
            ("by token", "size", "estimate", "excess", "power"),
            tuple(conditional_row(setting, size, power) for setting in BY_TOKEN),
        ),
    ]


TOPIC = Topic(
    name="nulls",
    title="Do choices tell the domain?",
    text=f"""
The test of `analysis/specialisation/nulls.py`, with {PERMUTATIONS} permutations and as many patterns of signs.
Groups of documents have tastes of their own (clustering); where these are strong, a group's choices differ much from
its domain's. Domains may differ in the number of decisions, in the lengths of documents, in the spread of tastes, but
not in their shares: every rejection is false. The excess should be 0. With an effect, each domain prefers one slot of
eight by a factor of {1 + 2 * EFFECT:g}, and the excess should be the true information.
""",
    tables=tables,
)
