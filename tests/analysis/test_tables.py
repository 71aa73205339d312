import math
import pathlib

import numpy as np
import pandas as pd
import pytest

from speciate.analysis import tables
from speciate.config import stage_specs

CURVE = {"step": [1.0], "ablation": ["a"], "seed": [0], "series": ["train"], "nats": [2.5]}


def test_a_frame_has_the_tables_order_and_types() -> None:
    result = tables.conform("curves", pd.DataFrame(CURVE))
    assert list(result.columns) == ["ablation", "seed", "step", "series", "nats"]
    assert result["step"].dtype == np.int64
    assert result["nats"].tolist() == [2.5]


@pytest.mark.parametrize("forgotten", ["nats", "series", "step"])
def test_a_column_that_nothing_fills_is_refused_whatever_its_type(forgotten: str) -> None:
    rows = pd.DataFrame(CURVE).drop(columns=forgotten)
    with pytest.raises(ValueError, match=f"^curves.parquet: nothing fills its column {forgotten}$"):
        tables.conform("curves", rows)


def test_a_column_that_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^curves.parquet: its columns have no depth, for which there are values$"):
        tables.conform("curves", pd.DataFrame({**CURVE, "depth": [1]}))


def test_only_what_a_later_stage_fills_is_left_empty() -> None:
    later = tables.conform("curves", pd.DataFrame(CURVE).drop(columns=["nats", "series"]), later=["nats", "series"])
    assert math.isnan(later["nats"][0])
    assert later["series"].tolist() == [""]
    for name, columns in tables.LATER.items():
        assert {tables.COLUMNS[name][column] for column in columns} <= {"str", "float64"}


def test_rows_are_stacked_only_if_all_have_the_same_columns() -> None:
    one, other = pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"b": [4], "a": [3]})
    assert tables.stack([one, other]).to_dict("list") == {"a": [1, 3], "b": [2, 4]}
    assert len(tables.stack([]).columns) == 0
    with pytest.raises(ValueError, match=r"^only some of the rows have b, c$"):
        tables.stack([one, other.rename(columns={"b": "c"})])


@pytest.mark.parametrize("name", list(tables.COLUMNS))
def test_an_empty_table_has_its_columns_through_every_format(name: str, tmp_path: pathlib.Path) -> None:
    empty = tables.conform(name, pd.DataFrame())
    tables.write_parquet(empty, name, tmp_path / "t.parquet")
    tables.write_csv(empty, tmp_path / "t.csv")
    assert list(tables.read_table(tmp_path / "t.parquet", name).columns) == list(tables.COLUMNS[name])
    assert (tmp_path / "t.csv").read_text() == ",".join(tables.COLUMNS[name]) + "\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, ""),
        (0.1 + 0.2, "0.3"),
        (1 / 3, "0.333333333"),
        (-0.0, "0"),
        (123456789012.0, "1.23456789e+11"),
        (7, "7"),
        (True, "true"),
        (np.bool_(False), "false"),
        ("a, b", "a, b"),
    ],
)
def test_csv_fields(value: object, expected: str) -> None:
    assert tables.csv_field(value) == expected


def test_files_are_the_same_bytes_and_come_back(tmp_path: pathlib.Path) -> None:
    rows = tables.conform(
        "collapse",
        pd.DataFrame(
            {
                "ablation": ["a, b", "c"],
                "runs": [2, 0],
                "missing": [0, 2],
                "collapsed": [1, 0],
                "share": [0.5, math.nan],
                "low": [1 / 3, math.nan],
                "high": [1.0, math.nan],
            }
        ),
    )
    for name in ("one", "two"):
        tables.write_csv(rows, tmp_path / f"{name}.csv")
        tables.write_parquet(rows, "collapse", tmp_path / f"{name}.parquet")
    for kind in ("csv", "parquet"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    pd.testing.assert_frame_equal(tables.read_table(tmp_path / "one.parquet", "collapse"), rows)
    lines = (tmp_path / "one.csv").read_text().splitlines()
    assert lines[1:] == ['"a, b",2,0,1,0.5,0.333333333,1', "c,0,2,0,,,"]
    with pytest.raises(
        ValueError,
        match=r"one.parquet: is not table curves: lacks seed, step, series, nats; has besides runs, missing, ",
    ):
        tables.read_table(tmp_path / "one.parquet", "curves")


def test_every_table_that_a_stage_writes_has_columns() -> None:
    written = {*stage_specs.MEASURED, *stage_specs.COMPARED, "cost", stage_specs.AGREED, stage_specs.SWAPPED}
    assert written | {"scores", *stage_specs.SCORED_TASKS} == set(tables.COLUMNS)
