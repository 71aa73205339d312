"""Test statistics of a domain, a layer and a lexical type against numbers that are written out here."""

import pandas as pd
import pytest

from speciate.analysis.parts_of_runs import statistics_of_parts
from speciate.data.tokens import lexical

LOSSES = pd.DataFrame(
    [("moe", 0, "code", 1.5, 0.6), ("moe", 0, "math", 1.75, 0.7), ("dense", 0, "code", 1.6, 0.65)],
    columns=["ablation", "seed", "domain", "nats", "bits_per_byte"],
)
SELECTORS = pd.DataFrame(
    [
        ("moe", 0, 8, "full", 0.2, 7.0, 0.5, 0.1),
        ("moe", 0, 9, "full", 0.74, 2.5, 0.4, 0.1),
        ("moe", 0, 9, "full", 0.3, 2.0, 0.2, 0.1),
        ("moe", 0, 9, "telemetry", 0.99, 1.0, 0.9, 0.1),
    ],
    columns=[
        *("ablation", "seed", "layer", "probe", "max_share", "effective_experts", "information_bits"),
        "null_mean_bits",
    ],
)
TYPES = pd.DataFrame(
    [
        ("moe", 0, 8, "keyword", 0.788),
        ("moe", 0, 8, "keyword", 0.212),
        ("moe", 0, 8, "number", 0.9),
        ("moe", 0, 9, "keyword", 0.8),
    ],
    columns=["ablation", "seed", "layer", "type", "share"],
)


def values(*names: str) -> dict[str, list[float]]:
    rows = statistics_of_parts(names, LOSSES, SELECTORS, TYPES).set_index(["ablation", "seed"])
    return {name: [rows.loc[(arm, 0), name] for arm in ("moe", "dense")] for name in rows}


def test_each_part_has_its_own_number_and_a_run_without_it_has_none() -> None:
    nan = pytest.approx(float("nan"), nan_ok=True)
    actual = values(
        *("loss", "loss.code", "loss.math", "bits_per_byte.code", "max_share.layer9", "effective_experts.layer9"),
        *("information_bits.layer9", "type_share.keyword", "type_share.keyword.layer8", "measured.recall"),
    )
    # statistics of whole runs are not computed here
    assert actual == {
        "loss.code": [1.5, 1.6],
        "loss.math": [1.75, nan],
        "bits_per_byte.code": [0.6, 0.65],
        "max_share.layer9": [0.74, nan],  # the worse of two selectors, on the whole probe set
        "effective_experts.layer9": [2.0, nan],
        "information_bits.layer9": [pytest.approx(0.2), nan],  # (0.4 - 0.1 + 0.2 - 0.1) / 2
        "type_share.keyword": [0.8, nan],
        "type_share.keyword.layer8": [0.788, nan],
    }


def test_a_part_that_no_run_has_is_an_error_and_none_if_every_run_failed() -> None:
    with pytest.raises(ValueError, match=r"statistic max_share\.layer3: no run of the study has such a part"):
        values("max_share.layer3")
    failed = statistics_of_parts(["max_share.layer3"], LOSSES[:0], SELECTORS[:0], TYPES[:0])
    assert len(failed) == 0
    assert list(failed) == ["ablation", "seed", "max_share.layer3"]


def test_the_types_are_those_that_tokens_are_labelled_with() -> None:
    assert lexical.TYPES[lexical.KEYWORD] == "keyword"
    assert lexical.TYPES[lexical.COMMENT] == "comment"
