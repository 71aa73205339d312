"""Coverage of the intervals over documents: losses, their paired differences, the largest share, the excess."""

import numpy as np

from speciate.analysis import draws, information, statistics
from speciate.analysis.draws import Integers
from speciate.analysis.observation import Groups, Settings
from speciate.analysis.selectors import max_share_interval
from speciate.calibration.planted import Setting, choices, shares_by_domain, tastes, uneven
from speciate.calibration.topic import NOMINAL_COVERAGE, Cell, Coverage, Table, Topic, num_draws
from speciate.selection.tally import Array

RESAMPLES = 499
DOCUMENTS = {
    "7 documents alike in length": [900] * 7,
    "7 documents, lengths from 300 to 1900": [1721, 1710, 1515, 1213, 821, 700, 512],
    "30 documents, lengths from 90 to 800": uneven(30, 270, 0.5),
    "110 documents alike in length": [75] * 110,
    "110 documents, lengths from 5 to 2000": uneven(110, 100, 1.2),
}
SHARES = (
    Setting("7 groups a domain", ([500] * 7, [500] * 7, [500] * 7)),
    Setting("30 groups a domain", ([270] * 30, [270] * 30, [270] * 30)),
    Setting("30 groups, one expert has half", ([270] * 30, [270] * 30, [270] * 30), load=(0.5, *[0.5 / 7] * 7)),
    Setting("30 groups, 200, 50, 10 decisions", ([200] * 30, [50] * 30, [10] * 30)),
)
EXCESS = (
    Setting("7 groups a domain", ([500] * 7, [500] * 7, [500] * 7)),
    Setting("30 groups a domain", ([270] * 30, [270] * 30, [270] * 30)),
    Setting("110, 30, 30 groups", ([75] * 110, [270] * 30, [270] * 30)),
    Setting("30 groups, 200, 50, 10 decisions", ([200] * 30, [50] * 30, [10] * 30)),
)


def loss_row(label: str, lengths: list[int], num: int) -> tuple[Cell, ...]:
    """Return how often the interval of nats per token holds the truth, and that of a difference between two models.

    A document's loss per token is log-normal about 5 nats; two models share most of it. The truth is that of a text of
    infinitely many such documents of these lengths.
    """
    draw = np.random.default_rng([len(lengths), min(lengths)])
    length_G = np.array(lengths, dtype=np.float64)
    inside, inside_difference, domain_G = 0, 0, np.zeros(len(lengths), dtype=np.int64)
    mean = 5.0 * float(np.exp(0.5 * 0.15**2))
    for seed in range(num):
        # as in a corpus, the length of a document is itself a matter of chance
        tokens_G = draw.choice(length_G, len(length_G))
        times_BG = draws.resample_counts(domain_G, RESAMPLES, seed)
        groups = statistics.effective_number(tokens_G)
        nats_G = tokens_G * 5.0 * np.exp(0.15 * draw.standard_normal(len(length_G)))
        other_G = nats_G + tokens_G * (0.05 + 0.2 * draw.standard_normal(len(length_G)) ** 2)
        drawn_B, other_B = (statistics.ratio_draws(value_G, tokens_G, times_BG) for value_G in (nats_G, other_G))
        low, high = statistics.document_interval(drawn_B, NOMINAL_COVERAGE, groups)
        inside += low <= mean <= high
        low, high = statistics.document_interval(other_B - drawn_B, NOMINAL_COVERAGE, groups)
        inside_difference += low <= 0.25 <= high
    return label, Coverage(inside, num), Coverage(inside_difference, num)


def share_row(setting: Setting, num: int) -> tuple[Cell, ...]:
    """Return how often the bounds of the largest share hold it, and how often the lower one exceeds it."""
    domain_G = setting.domain_G
    groups = Groups(("a", "b", "c"), np.arange(len(domain_G)), domain_G)
    inside, above, largest = 0, 0, max(setting.load)
    for seed, chosen_GS in enumerate(choices(setting, 0.0, num, seed=7)):
        settings = Settings(100, seed, 19, RESAMPLES, NOMINAL_COVERAGE, 0.1, 5)
        low, high = max_share_interval(chosen_GS, np.ones_like(chosen_GS), groups, settings)
        inside += low <= largest <= high
        above += low > largest
    return setting.label, Coverage(inside, num), Coverage(num - above, num)


def excess_row(setting: Setting, num: int) -> tuple[Cell, ...]:
    """Return how often the interval of the excess over a control holds the true difference of I(E;D).

    Both selectors see the same documents, and half of a document's tastes are common to both.
    """
    domain_G, sizes_G = setting.domain_G, setting.sizes_G
    draw = np.random.default_rng(11)
    inside = 0
    learned, control = (_mixed(setting, effect) for effect in (0.3, 0.1))
    true = float(information.domain_information(learned) - information.domain_information(control))
    units = draws.gather_units(sizes_G.astype(np.float64), domain_G)
    for seed in range(num):
        common_GS = tastes(draw, np.full((len(domain_G), 8), 1 / 8), np.full(len(domain_G), 40.0), 1)[0]
        values, drawn = [], []
        times_BG = draws.resample_counts(domain_G, RESAMPLES, seed)
        for share_DS in (learned, control):
            taste_GS = tastes(draw, (2 * share_DS - 1 / 8)[domain_G], np.full(len(domain_G), 40.0), 1)[0]
            chosen_GS = draw.multinomial(sizes_G, (taste_GS + common_GS) / 2).astype(np.float64)
            values.append(_unbiased(units.sum(chosen_GS), units.domain_U))
            sums_BDS = draws.sums_by_resample(times_BG, domain_G, 3, chosen_GS)
            drawn.append(information.domain_information(sums_BDS))
        low, high = statistics.centred_interval(values[0] - values[1], drawn[0] - drawn[1], NOMINAL_COVERAGE)
        inside += low <= true <= high
    return setting.label, Coverage(inside, num)


def _mixed(setting: Setting, effect: float) -> Array:
    """Return a domain's shares where half of each document's tastes are even."""
    return (shares_by_domain(setting.load, effect) + 1 / 8) / 2


def _unbiased(counts_US: Array, domain_U: Integers) -> float:
    """Return I(E;D) without its bias; `nulls.domain_null` also allows for higher orders, which hardly matter here."""
    counts_DS = draws.sums_by_label(domain_U[None], 3, counts_US)[0]
    bias = information.information_bias(counts_US[:, None], domain_U)
    return float(information.domain_information(counts_DS)) - bias


def tables(effort: float) -> list[Table]:
    """Return how often each interval covers the truth, a table for each kind of interval."""
    num = num_draws(2000, effort)
    return [
        Table(
            f"Nats per token of a domain, and the difference between two models on the same documents: {num} draws.",
            ("losses", "nats", "difference"),
            tuple(loss_row(label, lengths, num) for label, lengths in DOCUMENTS.items()),
        ),
        Table(
            f"The largest share, between its bounds, and at least its lower bound (97.5 % are due): {num} draws.",
            ("largest share", "between", "at least"),
            tuple(share_row(setting, num) for setting in SHARES),
        ),
        Table(
            f"The excess of I(E;D) over a control: {num} draws.",
            ("excess", "coverage"),
            tuple(excess_row(setting, num) for setting in EXCESS),
        ),
    ]


TOPIC = Topic(
    name="intervals",
    title="Intervals over documents",
    text=f"""
Bootstraps of documents, with {RESAMPLES} resamples (a study takes 999). Losses take expanded percentiles, which have
Student's width for few documents. A model's loss varies by 15 % from document to document; the difference between two
models is large in few documents, with a chi-squared law, and seven such documents say too little of it. The lower bound
of the largest share is too high where there are few groups with strong tastes. Verdicts on hypotheses rest on seeds,
and not on these.
""",
    tables=tables,
)
