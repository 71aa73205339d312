import numpy as np
import pandas as pd

from speciate.analysis import draws
from speciate.analysis.observation import group_documents
from speciate.analysis.specialisation import nulls
from speciate.config.components import ComponentOptions, options_of
from speciate.data.mixture import shuffled_labels, truncate

DOMAINS = ("a", "b")


def options(**settings: int) -> ComponentOptions:
    return options_of("data/mixture", "shuffled_labels")(kind="shuffled_labels", **settings)


def documents(groups_each: int) -> pd.DataFrame:
    """Return documents with two per group, and the same group names in both domains."""
    rows = [(domain, f"g{group}") for domain in DOMAINS for group in range(groups_each) for _ in range(2)]
    table = pd.DataFrame(rows, columns=["domain", "group"])
    return table.assign(document=range(len(table)), id=[f"i{row}" for row in range(len(table))])


def test_training_is_that_of_truncate() -> None:
    plain = options_of("data/mixture", "truncate")(kind="truncate", seed=3, warn_ratio=1.0)
    blocks = {"a": 9, "b": 7, "c": 8}
    mixture, warnings = shuffled_labels.mix(options(seed=3, warn_ratio=1.0), blocks)
    expected, expected_warnings = truncate.mix(plain, blocks)
    assert (mixture == expected).all()
    assert warnings == expected_warnings != []


def test_whole_groups_change_labels_and_each_label_keeps_its_number_of_groups() -> None:
    before = documents(40)
    after = shuffled_labels.relabel(options(), before, "test")
    assert options().labels(DOMAINS) == DOMAINS
    assert after["id"].equals(before["id"])
    assert (after["group"] == before["domain"] + ":" + before["group"]).all()
    by_group = after.groupby("group")["domain"]
    assert (by_group.nunique() == 1).all()
    assert by_group.first().value_counts().to_dict() == {"a": 40, "b": 40}
    moved = (after["domain"] != before["domain"]).mean()
    assert 0.3 < moved < 0.7
    assert len(set(zip(after["domain"], after["group"], strict=True))) == 80, "no two groups became one"
    assert not after.equals(shuffled_labels.relabel(options(), before, "probe"))
    assert not after.equals(shuffled_labels.relabel(options(seed=1), before, "test"))


def test_the_analysis_finds_nothing_no_more_often_than_its_level_says() -> None:
    """Test a selector that knows the true domain perfectly, under shuffled labels."""
    before, draw = documents(12), np.random.default_rng(0)
    rejected = 0
    for seed in range(400):
        after = shuffled_labels.relabel(options(seed=seed), before, "probe")
        groups = group_documents(after, DOMAINS)
        knows = (before["domain"] == "a").to_numpy() * 0.8 + 0.1
        tokens = 50.0
        chosen = draw.binomial(int(tokens), knows) / tokens
        counts_GS = groups.sum(tokens * np.stack((chosen, 1 - chosen), axis=1))
        units = draws.gather_units(np.full(24, 2 * tokens), groups.domain_G)
        drawn = draws.null_draws(units.domain_U, 99, seed)
        null = nulls.domain_null(units.sum(counts_GS)[None], drawn)
        rejected += int(null.p_value[0] <= 0.05)
    assert 6 <= rejected <= 36  # binomial(400, 0.05): 99.9 % of draws lie between


def test_the_true_labels_would_have_been_found() -> None:
    groups = group_documents(documents(12), DOMAINS)
    counts_GS = np.where(np.arange(24)[:, None] < 12, [90.0, 10.0], [10.0, 90.0])
    units = draws.gather_units(np.full(24, 100.0), groups.domain_G)
    drawn = draws.null_draws(units.domain_U, 99, 0)
    assert nulls.domain_null(units.sum(counts_GS)[None], drawn).p_value[0] == 0.01
