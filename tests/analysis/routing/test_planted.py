"""Test that planted truths are found, with the stated rates of error."""

from collections import Counter, defaultdict

import pytest
from scipy import stats
from tests.analysis.routing.planted import planted_record

from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.settings import JudgeSettings

RIGHT = {
    "collapsed": {"collapsed"},
    "label": {"specialised"},
    "token": {"token"},
    "geometry": {"untrained", "indifferent"},  # as much as untrained routers tell, which may be too little to matter
    "indifferent": {"indifferent"},
}
CLAIMS = {"specialised", "token", "untrained", "telling"}
"""States that say that choices tell labels apart."""


def judged(seeds: range, permutations: int, **size: int) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Return the states of each kind of layer, and how many lifts were found, in all and falsely."""
    states: dict[str, Counter[str]] = defaultdict(Counter)
    lifts: Counter[str] = Counter()
    for seed in seeds:
        settings = JudgeSettings(permutations=permutations, resamples=permutations, seed=seed)
        judgement = judge(planted_record(seed, **size), settings)
        for verdict in judgement.verdicts:
            states[verdict.path.split(".")[-1]][verdict.state] += 1
        table = judgement.tables["lifts"]
        found = table[table["q_value"] <= 0.05]
        lifts["found"] += len(found)
        # only these two have no dependence on the label; documents differ, and tokens cluster, in all
        lifts["false"] += int(found["path"].str.endswith(("collapsed", "indifferent")).sum())
    return states, lifts


def test_planted_truths_are_found() -> None:
    states, lifts = judged(range(6), permutations=99, documents=12)
    for kind, right in RIGHT.items():
        assert sum(states[kind][state] for state in right) >= 5, (kind, states[kind])
    assert lifts["false"] <= 0.1 * lifts["found"]


@pytest.mark.slow
def test_planted_truths_over_200_seeds() -> None:
    number = 200
    states, lifts = judged(range(number), permutations=399)
    most_errors = stats.binom.ppf(0.999, number, 0.05)
    for kind, right in RIGHT.items():
        print(kind, dict(states[kind]))
        assert number - sum(states[kind][state] for state in right) <= most_errors, (kind, states[kind])
    print(dict(lifts))
    # what is said of layers of which it is false
    assert sum(states["indifferent"][state] for state in CLAIMS) <= most_errors
    assert states["token"]["specialised"] <= most_errors
    assert states["geometry"]["specialised"] + states["geometry"]["token"] <= most_errors
    assert sum(states[kind]["collapsed"] for kind in RIGHT if kind != "collapsed") == 0
    assert lifts["false"] <= 0.05 * lifts["found"]
