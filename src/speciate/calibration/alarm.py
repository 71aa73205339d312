"""How often the collapse rules cry wolf, how soon they tell a collapse, and how many documents that takes.

A document is a number of parts, each of which gives all its tokens to one slot. Documents of one part are the hardest:
they make the sample of documents as small as it can be. On the same documents at every check, a part keeps most of its
taste (a correlation of .8 of the normal scores); on fresh documents it keeps nothing.

Shape suffixes: K checks, G documents, M parts, S slots, R domains, L layers.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from speciate.analysis import alarm, collapse, load
from speciate.calibration.topic import LEVEL, Cell, Rate, Size, Table, Topic, num_draws
from speciate.config.contracts.statistics import RULES
from speciate.selection.tally import Array

CHECKS = (17, 100, 1000)
DRAWS = {17: 2000, 100: 1000, 1000: 200}
"""Number of runs for each number of checks."""
KEPT = 0.8
"""Correlation of a part's normal scores between two checks of the same document."""
RUN_CHECKS = 24
"""Number of armed checks of the runs whose collapse is to be told."""


@dataclass(frozen=True)
class Setting:
    """A selector, and the documents on which it is observed."""

    name: str
    share_RS: tuple[tuple[float, ...], ...]
    """Shares of the slots in each domain's texts."""
    documents: tuple[int, ...]
    """Number of documents of each domain."""
    parts: int = 4
    """Number of parts of a document."""
    layers: int = 1
    """Number of such selectors, independent of each other."""

    @property
    def num_slots(self) -> int:
        return len(self.share_RS[0])

    def observe(self, draw: np.random.Generator, num_checks: int, *, fresh: bool) -> alarm.Observations:
        """Draw what one selector does at every check."""
        domain_G = np.repeat(np.arange(len(self.documents)), self.documents)
        size = (num_checks, len(domain_G), self.parts)
        score_KGM = draw.standard_normal(size)
        if not fresh:
            own_GM = draw.standard_normal(size[1:])
            score_KGM = math.sqrt(KEPT) * own_GM + math.sqrt(1 - KEPT) * score_KGM
        border_RS = np.cumsum(self.share_RS, axis=1)
        border_RS[:, -1] = 1.0  # whatever the sum's last bits say
        uniform_KGM = ndtr(score_KGM)
        slot_KGM = np.concatenate(
            [
                np.searchsorted(border_RS[domain], uniform_KGM[:, domain_G == domain])
                for domain in range(len(self.documents))
            ],
            axis=1,
        )
        place_KG = np.arange(num_checks * len(domain_G)).reshape(num_checks, -1) * self.num_slots
        count = np.bincount((place_KG[..., None] + slot_KGM).ravel(), minlength=place_KG.size * self.num_slots)
        chosen_KGS = count.reshape(num_checks, len(domain_G), self.num_slots).astype(np.float64)
        return alarm.Observations(chosen_KGS, domain_G, np.full(self.num_slots, 1 / self.num_slots))


def mean_share(observed: alarm.Observations) -> Array:
    """Return the mean document's share, (K, S), with equal weights of the domains."""
    total_KG = observed.chosen_KGS.sum(axis=2)
    weight_KG = alarm.share_weights(total_KG > 0, observed.domain_G) / (total_KG > 0).sum(axis=1, keepdims=True)
    result: Array = ((weight_KG / total_KG)[..., None] * observed.chosen_KGS).sum(axis=1)
    return result


def first_checks(observed: list[alarm.Observations]) -> dict[str, float]:
    """Return the check at which each rule first fires on the run, from 1; NaN: never."""
    steps_K = np.arange(1, len(observed[0].chosen_KGS) + 1)
    histories = {f"layer {layer}": collapse.History(mean_share(one), one) for layer, one in enumerate(observed)}
    verdicts = collapse.apply_rules(histories, steps_K, 0, LEVEL)
    return {verdict.rule: verdict.first_step for verdict in verdicts if verdict.selector == "any"}


def with_top(top: float, num_slots: int) -> tuple[float, ...]:
    """Return shares of which the first slot has `top` and the others the rest, evenly."""
    return (top, *[(1 - top) / (num_slots - 1)] * (num_slots - 1))


def own_slots(num_domains: int, num_slots: int, own: float) -> tuple[tuple[float, ...], ...]:
    """Return shares by domain where each domain gives `own` to a slot of its own."""
    return tuple(tuple(np.roll(with_top(own, num_slots), domain).tolist()) for domain in range(num_domains))


AT_LIMIT = (0.5, 0.5, *[0.0] * 6)
"""Two slots of eight at the limit: a healthy run can be no worse."""
TWO_SLOTS = (load.max_share_limit(2), 1 - load.max_share_limit(2))
HEALTHY = (
    Setting("even, 8 slots", (with_top(1 / 8, 8),) * 3, (20, 20, 20)),
    Setting("at the limit, 8 slots", (AT_LIMIT,) * 3, (20, 20, 20)),
    Setting("at the limit, documents of one part", (AT_LIMIT,) * 3, (20, 20, 20), parts=1),
    Setting("at the limit, 2 slots, documents of one part", (TWO_SLOTS,) * 3, (20, 20, 20), parts=1),
    Setting("64 slots, the largest share 8.2/E", (with_top(8.2 / 64, 64),) * 3, (10, 10, 10)),
    Setting("domains with slots of their own, of which one has most documents", own_slots(3, 8, 0.9), (60, 7, 7)),
    Setting("at the limit in each of 4 layers", (AT_LIMIT,) * 3, (7, 7, 7), parts=1, layers=4),
)


def false_alarms(effort: float) -> Table:
    """Return how often each rule fires on runs that are within the limits."""
    rows: list[tuple[Cell, ...]] = []
    for setting in HEALTHY:
        for fresh in (False, True):
            for num_checks in CHECKS:
                draw, draws = np.random.default_rng([7, num_checks]), num_draws(DRAWS[num_checks], effort)
                fired = dict.fromkeys(RULES, 0)
                for _ in range(draws):
                    run = [setting.observe(draw, num_checks, fresh=fresh) for _ in range(setting.layers)]
                    for rule, first in first_checks(run).items():
                        fired[rule] += not math.isnan(first)
                place = f"{setting.name}; {num_checks} checks on {'fresh' if fresh else 'the same'} documents"
                others = (Rate(fired[rule], draws) for rule in ("rule_60_percent", "rule_3_over_e"))
                rows.append((place, Size(fired["alarm"], draws), *others))
    drawn = ", ".join(f"{num_draws(DRAWS[checks], effort):,} runs of {checks} checks" for checks in CHECKS)
    caption = (
        f"How often a rule fires in a run whose population stays within the limits of collapse ({drawn}). Only our"
        f" alarm promises at most {LEVEL:g}."
    )
    return Table(caption, ("setting", "our alarm", "moe-emergence’s rule", "Kolmogorov-MoE’s rule"), tuple(rows))


@dataclass(frozen=True)
class Collapse:
    """A run that collapses."""

    num_slots: int
    final: float
    """The largest share at the end."""
    width: float
    """Number of checks in which the share rises by half of the way; 0: at once."""
    documents: tuple[int, ...]

    @property
    def name(self) -> str:
        speed = "at once" if self.width == 0 else f"over {4 * self.width:g} checks"
        return f"{self.num_slots} slots, to {self.final:g} {speed}, {sum(self.documents)} documents"

    def tops(self) -> Array:
        """Return the largest share at each check: a logistic curve whose middle lies at the eighth check."""
        even, time_K = 1 / self.num_slots, np.arange(RUN_CHECKS) - 8.0
        rise_K = (time_K >= 0).astype(float) if self.width == 0 else 1 / (1 + np.exp(-time_K / self.width))
        result: Array = even + (self.final - even) * rise_K
        return result

    def observe(self, draw: np.random.Generator) -> alarm.Observations:
        """Draw the run, on the same documents at every check."""
        checks = [
            Setting("", (with_top(float(top), self.num_slots),) * len(self.documents), self.documents)
            for top in self.tops()
        ]
        seed = int(draw.integers(2**31))
        # the same generator at each check gives each part the same scores, so that only the shares move
        drawn = [check.observe(np.random.default_rng(seed), 1, fresh=True) for check in checks]
        chosen_KGS = np.concatenate([one.chosen_KGS for one in drawn])
        return alarm.Observations(chosen_KGS, drawn[0].domain_G, drawn[0].null_S)


COLLAPSES = tuple(
    Collapse(num_slots, final, width, (documents,) * 3)
    for num_slots, final in ((8, 0.95), (8, 0.75), (2, 1.0), (64, 0.9))
    for width in (0.0, 1.0, 3.0)
    for documents in (6, 20, 30)
)


def delays(effort: float) -> Table:
    """Return how many checks after the population passes the limit each rule fires."""
    draws = num_draws(200, effort)
    rows: list[tuple[Cell, ...]] = []
    for case in COLLAPSES:
        passed = int(np.argmax(case.tops() > load.max_share_limit(case.num_slots))) + 1
        draw = np.random.default_rng(11)
        found: dict[str, list[float]] = {rule: [] for rule in RULES}
        for _ in range(draws):
            for rule, first in first_checks([case.observe(draw)]).items():
                found[rule].append(first - passed)
        cells = {rule: format_delay(values) for rule, values in found.items()}
        rows.append((case.name, cells["alarm"], cells["rule_60_percent"], cells["rule_3_over_e"]))
    caption = (
        f"The median delay, in checks after the largest share in the population passes its limit, over {draws} runs of"
        f" {RUN_CHECKS} checks on the same documents; below 0: before. In brackets: the share of runs in which the rule"
        " fires, where that is not all."
    )
    return Table(caption, ("collapse", "our alarm", "moe-emergence’s rule", "Kolmogorov-MoE’s rule"), tuple(rows))


def format_delay(values: list[float]) -> str:
    """Return the median delay, where more than half of the runs have one, and the share of runs that have one."""
    share = Rate(sum(not math.isnan(value) for value in values), len(values)).share
    median = float(np.median([math.inf if math.isnan(value) else value for value in values]))
    words = "never" if share == 0 else "later" if math.isinf(median) else f"{median:g}"
    return words if share in (0, 1) else f"{words} ({share:.2f})"


SIZES = ((2, 1), (3, 1), (4, 1), (8, 1), (8, 2), (64, 1), (64, 8))
"""Slots, and choices of a decision."""


def fewest_documents(num_slots: int, num_chosen: int, num_selectors: int, most_checks: int) -> int:
    """Return with how many documents a total collapse raises the alarm of a run within `most_checks` checks."""
    share_S = np.zeros(num_slots)
    share_S[:num_chosen] = 1 / num_chosen
    null_S, documents = np.full(num_slots, 1 / num_slots), 1
    while True:
        chosen_KGS = np.tile(share_S, (RUN_CHECKS, documents, 1))
        domain_G = np.zeros(documents, dtype=np.int64)
        observed = alarm.Observations(chosen_KGS, domain_G, null_S, num_chosen)
        if alarm.checks_to_fire(observed, LEVEL, num_selectors) <= most_checks:
            return documents
        documents += 1


def needs(effort: float) -> Table:
    """Return the number of documents by number of slots; nothing is drawn."""
    rows: list[tuple[Cell, ...]] = []
    for num_slots, num_chosen in SIZES:
        limit = load.max_share_limit(num_slots, num_chosen)
        least = math.ceil(math.log(1 / LEVEL) / -math.log(num_chosen * limit))
        numbers = [fewest_documents(num_slots, num_chosen, layers, checks) for layers in (1, 4) for checks in (1, 2)]
        name = f"{num_slots}, of which a decision chooses {num_chosen}"
        rows.append((name, limit, *map(str, numbers), str(least)))
    caption = (
        f"How many documents of equal weight the probe needs for a run of {RUN_CHECKS} checks to tell a total collapse"
        " at the first check after it, or by the second (a tenth of the run). Last column: no test of one selector at"
        " one check could do with fewer."
    )
    columns = (
        *("slots", "limit of the share", "one layer, 1 check", "one layer, 2 checks"),
        *("4 layers, 1 check", "4 layers, 2 checks", "any test"),
    )
    return Table(caption, columns, tuple(rows))


TOPIC = Topic(
    name="alarm",
    title="The collapse alarm",
    text="""
Three rules watch a run's load: our alarm, and the rules of moe-emergence (more than 60 % in some layer at three checks
in a row, one counter over all layers) and of Kolmogorov-MoE (above 3/E, or by Gini or entropy, at one check), as
released. The alarm's guarantee is about the texts from which the probe's documents were drawn, so it must hold on the
same documents at every check as well as on fresh ones. A healthy run lies within the limits of collapse
(`load.max_share_limit`); at the limit is the worst that is still healthy. The rules of the two systems have no
guarantee, and other limits: what they call a collapse at 3/E is healthy by ours, and so is what OLMoE's routers do.
""",
    tables=lambda effort: [false_alarms(effort), delays(effort), needs(effort)],
)
