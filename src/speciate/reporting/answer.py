"""The first screen of the report: three answers, each with its interval, its control and its causal cost.

Does a selector specialise, does it collapse, does it matter? The verdict is a few words; the sentence after it gives
the measurements. The numbers are those of the tables: states of runs, differences paired by seed, and the cost of
load-matched random choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from speciate.analysis.statistics import Interval, proportion_interval
from speciate.config.stage_specs import ReportSpec, incomparable
from speciate.reporting.finding import Tables
from speciate.reporting.formats import (
    format_number,
    format_percent,
    format_percent_interval,
    join_names,
    plain_name,
    pluralise,
)
from speciate.reporting.over_seeds import (
    format_change,
    format_estimate,
    is_apart,
    is_known,
    mean_over_seeds,
    paired_difference,
)


@dataclass(frozen=True)
class Answer:
    """One of the three answers."""

    question: str
    verdict: str
    """A few words: 'No', 'In 3 of 10 runs'."""
    text: str
    """The sentence that gives the reasons."""


@dataclass(frozen=True)
class Arms:
    """The arms with selectors, by what they are for."""

    learned: Sequence[str]
    controls: Sequence[str]
    """Arms that the study names as controls; excess is over their mean."""
    fixed: Sequence[str]
    """Other arms whose routers cannot learn, such as a hash or an oracle."""
    subject: str
    """The learned arm that the sentences are about: the reference, or the first."""


def answers(tables: Tables, spec: ReportSpec) -> list[Answer]:
    """Return the three answers, or one that says why there are none."""
    arms = sort_arms(tables, spec)
    if arms is None:
        text = "No finished run has a selector that learns, so nothing could specialise or collapse."
        return [Answer("Does a selector specialise or collapse?", "This study cannot say", text)]
    return [
        _specialisation(tables, spec, arms),
        _collapse(tables, spec, arms),
        _matter(tables, spec, arms),
    ]


def sort_arms(tables: Tables, spec: ReportSpec) -> Arms | None:
    """Return the arms with selectors by what they are for; None where no finished run learned a selector."""
    runs = tables["runs"]
    routed = set(runs.loc[runs["num_selectors"] > 0, "ablation"])
    present = [arm for arm in spec.arms if arm.name in routed]
    controls = [arm.name for arm in present if arm.name in spec.controls]
    fixed = [arm.name for arm in present if arm.fixed and arm.name not in controls]
    learned = [arm.name for arm in present if arm.name not in (*controls, *fixed)]
    if not learned:
        return None
    return Arms(learned, controls, fixed, spec.reference if spec.reference in learned else learned[0])


def _runs_in_state(runs: pd.DataFrame, arm: str, state: str) -> tuple[int, int]:
    """Return how many of an arm's runs ended in a state, and how many runs have one."""
    states = runs.loc[runs["ablation"] == arm, "state"].replace("", pd.NA).dropna()
    return int((states == state).sum()), len(states)


def _count(runs: pd.DataFrame, arm: str, state: str, confidence: float) -> str:
    """Return 'fast in 10 of 10 runs [69%, 100%]'."""
    hits, total = _runs_in_state(runs, arm, state)
    bounds = format_percent_interval(*proportion_interval(hits, total, confidence), 0)
    return f"{plain_name(arm)} in {hits} of {pluralise(total, 'run')} {bounds}"


def _cost(tables: Tables, arm: str, confidence: float) -> str:
    """Return what load-matched random choice costs an arm, '0.050 [0.045, 0.055] nats per token'; or ''."""
    cost = mean_over_seeds(tables["runs"], "matched_nats", arm, confidence)
    return format_estimate(cost, "nats per token") if is_known(cost) else ""


def _specialisation(tables: Tables, spec: ReportSpec, arms: Arms) -> Answer:
    runs, subject = tables["runs"], arms.subject
    counts = {arm: _runs_in_state(runs, arm, "specialised") for arm in arms.learned}
    hits, total = sum(hit for hit, _ in counts.values()), sum(number for _, number in counts.values())
    unsure = sum(_runs_in_state(runs, arm, "undecided")[0] for arm in arms.learned)
    some = [arm for arm in arms.learned if counts[arm][0]]
    if hits:
        verdict = "Yes" if hits == total else f"In {hits} of {total} runs"
        which = f"specialised: {'; '.join(_count(runs, arm, 'specialised', spec.confidence) for arm in some)}. "
    elif unsure:
        verdict, which = (
            "Undecided",
            f"{unsure} of {pluralise(total, 'run')} of learned selectors can be judged neither way. ",
        )
    else:
        verdict = "No"
        which = f"none of the {pluralise(total, 'run')} with a selector that learns specialised. "
    # the positive controls: a routing by domain must be found specialised
    made = [arm for arm in arms.fixed if _runs_in_state(runs, arm, "specialised")[0]]
    if made:
        known = "; ".join(_count(runs, arm, "specialised", spec.confidence) for arm in made)
        which += f"Without learning, by construction: {known}. "
    bits = mean_over_seeds(runs, "information_bits", subject, spec.confidence)
    text = (
        f"The choices of {plain_name(subject)} tell {format_estimate(bits, 'bits')} of a text’s domain,"
        f" {_beyond_controls(tables, spec, arms)}. {_cost_sentence(tables, spec, arms)}"
    )
    return Answer("Does it specialise?", verdict, f"{which[0].upper()}{which[1:]}{text}")


def _beyond_controls(tables: Tables, spec: ReportSpec, arms: Arms) -> str:
    """Return what the subject's choices tell beyond those of the controls."""
    excess = mean_over_seeds(tables["runs"], "excess_information_bits", arms.subject, spec.confidence)
    if not arms.controls:
        return "but the study has no control that never learned, so how much of it is learned is unknown"
    if not is_known(excess):
        return "but no control has selectors at the same places, so how much of it is learned is unknown"
    change = format_change(excess, "bits", ("less", "more"))
    same = "" if is_apart(excess) else " (not told apart)"
    never = "which never learned" if len(arms.controls) == 1 else "which never learned (their mean)"
    return f"{change} than those of {join_names(arms.controls)}, {never}{same}"


def _cost_sentence(tables: Tables, spec: ReportSpec, arms: Arms) -> str:
    """Return what random choice of the same load costs the subject and the controls."""
    costs = [(arm, _cost(tables, arm, spec.confidence)) for arm in (arms.subject, *arms.controls)]
    known = [f"{cost} in {plain_name(arm)}" for arm, cost in costs if cost]
    if not costs[0][1]:
        return "What its choices are worth to the loss was not measured."
    return f"Random choice of the same load costs {' and '.join(known)}."


def _collapse(tables: Tables, spec: ReportSpec, arms: Arms) -> Answer:
    runs = tables["runs"]
    counts = {arm: _runs_in_state(runs, arm, "collapsed") for arm in arms.learned}
    hits, total = sum(hit for hit, _ in counts.values()), sum(number for _, number in counts.values())
    collapsed = [arm for arm in arms.learned if counts[arm][0]]
    never = [arm for arm in arms.learned if not counts[arm][0]]
    uneven = [arm for arm in (*arms.controls, *arms.fixed) if _runs_in_state(runs, arm, "uneven")[0]]
    beside = (
        f" Without learning, as uneven: {'; '.join(_count(runs, arm, 'uneven', spec.confidence) for arm in uneven)}."
        if uneven
        else f" No run of the controls ({join_names(arms.controls)}) is as uneven."
        if arms.controls
        else " The study has no control that never learned."
    )
    if not collapsed:
        most = max(arms.learned, key=lambda arm: counts[arm][1])
        high = proportion_interval(0, counts[most][1], spec.confidence)[1]
        text = (
            f"No selector ended beyond the limits in {pluralise(total, 'run')} that learned; with"
            f" {pluralise(counts[most][1], 'run')} an arm, P(collapse) may still be {format_percent(high, 0)}.{beside}"
        )
        return Answer("Does it collapse?", "No", text)
    if not never and hits == total:
        verdict = "Yes"
    else:
        verdict = (
            f"In {join_names(collapsed)}" if len(collapsed) <= 3 else f"In {len(collapsed)} of {len(arms.learned)} arms"
        )
    text = f"Collapsed: {'; '.join(_count(runs, arm, 'collapsed', spec.confidence) for arm in collapsed)}"
    text += f"; never: {_never(counts, never, spec.confidence)}.{beside}" if never else f".{beside}"
    return Answer("Does it collapse?", verdict, text + _price_of_collapse(tables, spec, arms, collapsed))


def _never(counts: dict[str, tuple[int, int]], never: Sequence[str], confidence: float) -> str:
    """Return the arms without a collapsed run, and how likely a collapse of each may still be."""
    fewest = min(counts[arm][1] for arm in never)
    bounds = format_percent_interval(*proportion_interval(0, fewest, confidence), 0)
    each = "each 0" if len(never) > 1 else "0"
    return f"{join_names(never)}, {each} of {pluralise(fewest, 'run')} {bounds}"


def _price_of_collapse(tables: Tables, spec: ReportSpec, arms: Arms, collapsed: Sequence[str]) -> str:
    """Return what the arm that collapsed most often loses against the subject, and what its choices are worth."""
    runs = tables["runs"]
    # the worst of those that collapsed most often
    rank = {arm: (_runs_in_state(runs, arm, "collapsed")[0], _mean(runs, arm, "unevenness")) for arm in collapsed}
    worst = max(collapsed, key=lambda arm: rank[arm])
    other = _rival_of(tables, worst, rank) or (arms.subject if arms.subject not in collapsed else "")
    parts = []
    if other and not {worst, other} & set(incomparable(spec.arms, spec.reference)):
        loss = paired_difference(runs, "loss", (worst, other), spec.confidence)
        if is_known(loss):
            change = format_change(loss, "nats per token", ("below", "above"))
            same = "" if is_apart(loss) else " (not told apart)"
            parts.append(f"ends {change} {plain_name(other)}{same}")
    cost = _cost(tables, worst, spec.confidence)
    parts += [f"loses {cost} to random choice of the same load"] if cost else []
    return f" {plain_name(worst).capitalize()} {' and '.join(parts)}." if parts else ""


def _rival_of(tables: Tables, worst: str, rank: dict[str, tuple[int, float]]) -> str:
    """Return the arm with which the study itself compares the loss of a collapsed arm; empty where it does not.

    It differs in less than the reference does: a router that is faster and collapses is compared with a fast one that
    does not, so that the rate is not taken for the collapse.
    """
    rows = tables["hypotheses"]
    rows = rows[(rows["statistic"] == "loss") & (rows["test"] == "difference")]
    pairs = rows.loc[rows["arm"] == worst, "reference"].tolist() + rows.loc[rows["reference"] == worst, "arm"].tolist()
    return next((str(arm) for arm in pairs if rank.get(str(arm), (0, 0.0))[0] < rank[worst][0]), "")


def _mean(runs: pd.DataFrame, arm: str, statistic: str) -> float:
    value = float(runs.loc[runs["ablation"] == arm, statistic].mean())
    return -math.inf if math.isnan(value) else value


def _matter(tables: Tables, spec: ReportSpec, arms: Arms) -> Answer:
    runs, subject = tables["runs"], arms.subject
    other_kind = set(incomparable(spec.arms, spec.reference))
    without = [arm.name for arm in spec.arms if not runs.loc[runs["ablation"] == arm.name, "num_selectors"].any()]
    present = set(runs["ablation"])
    rivals = [arm for arm in (*arms.controls, *arms.fixed, *without) if arm in present and arm not in other_kind]
    changes: list[str] = []
    better: list[str] = []
    worse: list[str] = []
    for rival in rivals if subject not in other_kind else ():
        loss = paired_difference(runs, "loss", (subject, rival), spec.confidence)
        if not is_known(loss):
            continue
        better += [rival] if loss.high < 0 else []
        worse += [rival] if loss.low > 0 else []
        same = "" if is_apart(loss) else " (not told apart)"
        changes.append(f"{plain_name(rival)} ({_kind(rival, arms)}): {_signed(loss)}{same}")
    against = (
        f"Paired by seed and in nats per token, the test loss of {plain_name(subject)} minus that of"
        f" {'; '.join(changes)}."
        if changes
        else "The study has no control and no arm without selectors whose loss could be compared."
    )
    verdict = _verdict_of_matter([arm for arm in (*arms.controls, *without) if arm in rivals], better, worse)
    return Answer("Does it matter to the loss?", verdict, f"{against} {_selectors_used(tables, spec, arms)}".rstrip())


def _signed(loss: Interval) -> str:
    """Return a difference with its sign and its interval, without the unit."""
    return format_estimate(loss, "", sign=True).replace("  ", " ").rstrip()


def _kind(rival: str, arms: Arms) -> str:
    """Return what an arm without learned selectors is."""
    return "control" if rival in arms.controls else "cannot learn" if rival in arms.fixed else "no selector"


def _verdict_of_matter(rivals: Sequence[str], better: Sequence[str], worse: Sequence[str]) -> str:
    """Return whether a learned selector beats controls and arms without a selector."""
    won, lost = [arm for arm in rivals if arm in better], [arm for arm in rivals if arm in worse]
    if not rivals or not (won or lost):
        return "Undecided"
    if len(won) == len(rivals):
        return "Yes"
    if not won:
        return "No"
    return f"Yes, against {join_names(won)}"


def _selectors_used(tables: Tables, spec: ReportSpec, arms: Arms) -> str:
    """Return in how many selectors of the learned arms and of the controls random choice costs more than the margin."""
    effects = tables["effects"]
    learned = effects[effects["ablation"].isin(list(arms.learned))]
    if learned.empty:
        return "What the choices are worth was not measured."
    used = int((learned["use"] == "used").sum())
    controls = effects[effects["ablation"].isin(list(arms.controls))]
    beside = (
        f", and {int((controls['use'] == 'used').sum())} of {len(controls)} in the controls" if len(controls) else ""
    )
    return (
        f"Random choice of the same load costs more than {format_number(spec.margin)} nats per token in {used} of"
        f" {pluralise(len(learned), 'learned selector')}{beside}."
    )
