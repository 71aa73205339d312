"""Test the file of one run's scores: what a task may return, and the reason that is kept where there is none."""

import math
import pathlib

import pandas as pd
import pytest

from speciate.analysis.tasks.scores import check_scores, read_scores, write_scores
from speciate.config.contracts.evaluation import SCORES


def rows(**changes: object) -> pd.DataFrame:
    """Return two questions, with some columns changed."""
    columns = {
        "metric": "accuracy",
        "part": "",
        "item": ["a", "b"],
        "group": ["a", "b"],
        "length": 16,
        "depth": math.nan,
        "value": [1.0, 0.0],
        "weight": 1,
        "chance": 0.5,
    }
    return pd.DataFrame({**columns, **changes}).drop(columns=[name for name in changes if changes[name] is None])


def test_what_fits_has_the_types_of_the_contract() -> None:
    checked = check_scores(rows()[[*reversed(SCORES)]], "kind")
    assert list(checked.columns) == list(SCORES)
    assert {name: str(kind) for name, kind in checked.dtypes.items()} == {**SCORES}
    assert check_scores(rows().iloc[:0], "kind").empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chance": None}, "kind: its table lacks column chance"),
        ({"score": 1.0}, "kind: its table has unknown column score"),
        ({"value": ["1", "0"]}, "kind: its column value is "),
        ({"value": [True, False]}, "kind: its column value is bool, not float64"),
        ({"length": [16.0, 16.0]}, "kind: its column length is float64, not int64"),
        ({"item": [1, 2]}, "kind: its column item is int64, not str"),
        ({"value": [1.0, math.nan]}, "kind: question 'b' has the value nan"),
        ({"weight": [1.0, 0.0]}, "kind: question 'b' has the weight 0.0"),
        ({"depth": [0.0, 1.5]}, "kind: question 'b' has the depth 1.5"),
        ({"length": [16, -2]}, "kind: question 'b' has the length -2"),
        ({"metric": ["accuracy", ""]}, "kind: question 'b' has the metric "),
        ({"item": ["a", "a"]}, "kind: question 'a' occurs twice"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_column(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        check_scores(rows(**changes), "kind")
    assert str(error.value).startswith(message)


def test_a_file_holds_the_scores_or_the_reason_in_the_same_bytes_each_time(tmp_path: pathlib.Path) -> None:
    scores, nothing = check_scores(rows(), "kind"), check_scores(rows().iloc[:0], "kind")
    for name, frame, reason in (("some", scores, ""), ("none", nothing, "lengths: 64 is too long, “64”")):
        for again in ("", "_again"):
            write_scores(frame, reason, tmp_path / f"{name}{again}.parquet")
        found, said = read_scores(tmp_path / f"{name}.parquet")
        pd.testing.assert_frame_equal(found, frame)
        assert said == reason
        assert (tmp_path / f"{name}.parquet").read_bytes() == (tmp_path / f"{name}_again.parquet").read_bytes()


def test_another_file_is_refused_by_its_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "damaged.parquet").write_text("no parquet")
    pd.DataFrame({"metric": ["accuracy"]}).to_parquet(tmp_path / "other.parquet", index=False)
    with pytest.raises(ValueError, match=r"damaged.parquet: cannot be read as a table"):
        read_scores(tmp_path / "damaged.parquet")
    with pytest.raises(ValueError, match=r"missing.parquet: cannot be read as a table"):
        read_scores(tmp_path / "missing.parquet")
    with pytest.raises(ValueError, match=r"other.parquet: is not table scores: lacks part, item"):
        read_scores(tmp_path / "other.parquet")
