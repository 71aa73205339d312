import pytest

from speciate.config.components import config_errors
from speciate.config.extends import keep_only
from speciate.config.hypothesis import Hypothesis

FIRST = {"statement": "s", "statistic": "max_share", "arm": "a", "direction": "greater"}


def errors(**fields: object) -> list[str]:
    import pydantic

    try:
        Hypothesis.model_validate({**FIRST, **fields})
    except pydantic.ValidationError as error:
        return [why for _, why in config_errors(error)]
    return []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "test difference needs reference"),
        ({"reference": "b", "value": 0.5}, "value: has no meaning for test difference"),
        ({"test": "value"}, "test value needs value"),
        ({"test": "value", "value": 0.5, "reference": "b"}, "reference: has no meaning for test value"),
        ({"test": "proportion", "value": 0.5}, "test proportion needs either above or below"),
        ({"test": "proportion", "above": 0.5, "below": 0.7, "value": 0.5}, "test proportion needs either above or"),
        ({"test": "proportion", "above": 0.5}, "test proportion needs either value or reference"),
        ({"test": "proportion", "above": 0.5, "value": 50.0}, "value: a share of runs is between 0 and 1, not 50"),
        ({"test": "trend"}, "test trend needs over"),
        ({"test": "trend", "over": {"b": 1.0, "c": 2.0}}, "arm: a is not in over"),
        ({"test": "trend", "over": {"a": 1.0, "c": 1.0}}, "over: a trend needs arms of at least two different numbers"),
        ({"test": "trend", "over": {"a": 0.0, "c": 1.0}, "per": "tenfold"}, "per: tenfold needs numbers above 0"),
        (
            {"test": "trend", "over": {"a": 0.0, "c": 1.0}, "minus": {"a": "b"}},
            "minus: needs exactly the arms of over, and differs in c",
        ),
        (
            {"test": "trend", "over": {"a": 0.0, "c": 1.0}, "minus": {"a": "b", "c": "c"}},
            "minus: subtracts c from itself",
        ),
        ({"reference": "b", "minus": {"a": "b"}}, "minus: has no meaning for test difference"),
        (
            {"statistic": "measured.a_correlation", "test": "value", "value": 1.0, "scale": "fisher_z"},
            "value: a correlation is between -1 and 1, not 1",
        ),
        ({"reference": "b", "scale": "fisher_z"}, "scale: fisher_z is for correlations, and max_share is none"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    (why,) = errors(**fields)
    assert why.startswith(message)


def test_each_kind_with_what_it_needs_is_valid() -> None:
    correlation = {"statistic": "measured.importance_loss_correlation", "reference": "b", "scale": "fisher_z"}
    for fields in (
        {"reference": "b"},
        {"test": "value", "value": 0.0},
        {"test": "proportion", "above": 0.0, "value": 0.0},
        {"test": "proportion", "below": 0.5, "reference": "b"},
        {"test": "trend", "over": {"a": 1, "b": 2}, "per": "tenfold"},
        {"test": "trend", "over": {"a": 1, "b": 2}, "minus": {"a": "c", "b": "d"}},
        correlation,
        {"statistic": "fired.alarm", "test": "proportion", "above": 0.5, "reference": "b"},
    ):
        assert errors(**fields) == []


def test_a_hypothesis_names_all_of_its_arms_and_goes_with_each_of_them() -> None:
    trend = {**FIRST, "test": "trend", "over": {"a": 1, "b": 2, "c": 3}}
    assert Hypothesis.model_validate(trend).arms == ["a", "b", "c"]
    value = {**FIRST, "test": "value", "value": 0.5}
    settings = {"ablations": {"a": 0, "b": 0, "c": 0}, "hypotheses": {"trend": trend, "value": value}}
    assert list(keep_only(settings, {"ablations": ["a", "b", "c"]})["hypotheses"]) == ["trend", "value"]
    assert list(keep_only(settings, {"ablations": ["a", "c"]})["hypotheses"]) == ["value"]
    of_differences = {**FIRST, "test": "trend", "over": {"a": 1, "b": 2}, "minus": {"a": "c", "b": "d"}}
    assert Hypothesis.model_validate(of_differences).arms == ["a", "b", "c", "d"]
    settings = {"ablations": dict.fromkeys("abcd", 0), "hypotheses": {"differences": of_differences}}
    assert list(keep_only(settings, {"ablations": ["a", "b", "c", "d"]})["hypotheses"]) == ["differences"]
    assert list(keep_only(settings, {"ablations": ["a", "b", "c"]})["hypotheses"]) == []


@pytest.mark.parametrize(
    ("statistic", "part"),
    [
        ("loss", (None, None, False)),
        ("loss.code", ("code", None, False)),
        ("bits_per_byte.layer9", ("layer9", None, False)),  # a domain may have any name
        ("max_share.layer9", (None, 9, False)),
        ("information_bits.layer0", (None, 0, False)),
        ("type_share.keyword", (None, None, True)),
        ("type_share.keyword.layer8", (None, 8, True)),
    ],
)
def test_a_statistic_may_be_about_a_part_of_a_run(statistic: str, part: tuple[object, ...]) -> None:
    hypothesis = Hypothesis.model_validate({**FIRST, "statistic": statistic, "reference": "b"})
    assert (hypothesis.domain, hypothesis.layer, hypothesis.is_about_types) == part


@pytest.mark.parametrize("statistic", ["loss.layer 9", "max_share.code", "type_share", "type_share.verb", "gini.layer"])
def test_a_part_that_a_statistic_cannot_have_is_refused(statistic: str) -> None:
    assert errors(statistic=statistic, reference="b")
