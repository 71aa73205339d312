"""Test that tables of counts, long and wide, come back, and that what they cannot tell is said."""

import pathlib

import numpy as np
import pytest
from tests.traces.expected import kinds

from speciate.traces.contract import ReadOptions
from speciate.traces.read import read_trace

RNG = np.random.default_rng(0)
COUNTS = RNG.integers(1, 1000, (2, 3, 5)) * 2 + 1  # label, layer, expert; odd, so not all multiples of a number
COUNTS[0, 0, 0] += 1
LABELS = ("code", "prose")


def long(path: pathlib.Path, head: str = "", tail: str = "", **columns: str) -> pathlib.Path:
    names = ",".join(columns) + "," if columns else ""
    values = ",".join(columns.values()) + "," if columns else ""
    lines = [f"{names}layer,label,expert,count"]
    for (label, layer, expert), count in np.ndenumerate(COUNTS):
        lines.append(f"{values}{layer},{LABELS[label]},{expert},{count}")
    path.write_text(head + "\n".join(lines) + "\n" + tail)
    return path


def wide(path: pathlib.Path, name: str) -> pathlib.Path:
    lines = ["label,layer," + ",".join(name.format(expert) for expert in range(5))]
    for label in range(2):
        lines += [f"{LABELS[label]},{layer}," + ",".join(map(str, COUNTS[label, layer])) for layer in range(3)]
    path.write_text("\n".join(lines) + "\n")
    return path


def assert_counts(path: pathlib.Path, options: ReadOptions, k: int) -> None:
    record = read_trace(path, options=options)
    assert not record.has_documents
    assert record.documents["label"].tolist() == list(LABELS)
    for layer, selector in enumerate(record.selectors):
        assert selector.num_chosen == k
        for label in range(2):
            share = COUNTS[label, layer] / COUNTS[label, layer].sum()
            decisions = COUNTS[label, layer].sum() // k
            assert selector.tally.decisions_G[label] == decisions
            np.testing.assert_allclose(selector.tally.chosen_GS[label], share * decisions)


@pytest.mark.parametrize("name", ["{}", "expert_{}", "e{}"])
def test_wide_and_long_tables_hold_the_same(tmp_path: pathlib.Path, name: str) -> None:
    assert_counts(wide(tmp_path / "wide.csv", name), ReadOptions(num_chosen=2), 2)
    assert_counts(long(tmp_path / "long.csv"), ReadOptions(num_chosen=2), 2)


def test_the_number_of_choices_may_be_in_the_table(tmp_path: pathlib.Path) -> None:
    assert_counts(long(tmp_path / "long.csv", choices="3", model="m"), ReadOptions(), 3)


def test_one_of_several_records_is_selected(tmp_path: pathlib.Path) -> None:
    path = long(tmp_path / "both.csv", model="a")
    other = long(tmp_path / "other.csv", model="b").read_text().split("\n", 1)[1]
    path.write_text(path.read_text() + other)
    assert_counts(path, ReadOptions(select={"model": "a"}, num_chosen=1), 1)
    with pytest.raises(ValueError, match=r"both\.csv: column model has several values.*select one of a, b"):
        read_trace(path)
    with pytest.raises(ValueError, match=r"both\.csv: column model has no 'c'; it has a, b"):
        read_trace(path, options=ReadOptions(select={"model": "c"}))


def test_counts_of_ranks_that_saw_the_same_are_divided(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(
        "layer,label,expert,count\n"
        + "".join(
            f"{layer},{LABELS[label]},{expert},{4 * count}\n"
            for (label, layer, expert), count in np.ndenumerate(COUNTS)
        )
    )
    (found,) = [note for note in read_trace(path).notes if note.kind == "counts_multiplied"]
    assert "All counts are multiples of 4:" in found.text
    assert_counts(path, ReadOptions(data_parallel=4, num_chosen=1), 1)
    with pytest.raises(ValueError, match="not all counts are multiples of --data-parallel 3"):
        read_trace(path, options=ReadOptions(data_parallel=3))


def test_what_was_guessed_is_noted(tmp_path: pathlib.Path) -> None:
    path = long(tmp_path / "counts.csv")
    assert kinds(read_trace(path)) == {"counts_only", "num_chosen_guessed"}
    path.write_text("layer,expert,count\n0,0,5\n0,2,7\n")  # expert 1 is not there
    record = read_trace(path)
    assert kinds(record) == {"counts_only", "num_chosen_guessed", "num_experts_guessed"}
    np.testing.assert_allclose(record.selectors[0].tally.chosen_GS, [[5, 0, 7]])
    record = read_trace(path, options=ReadOptions(num_experts=5, num_chosen=1))
    assert kinds(record) == {"counts_only"}
    np.testing.assert_allclose(record.selectors[0].tally.chosen_GS, [[5, 0, 7, 0, 0]])


def test_published_counts_give_the_published_load(tmp_path: pathlib.Path) -> None:
    # moe-emergence's layer 9 at collapse, as it was published: effective experts 2.77, MaxVio 4.96; shares of 3 digits
    shares = (34, 745, 45, 21, 18, 52, 76, 10)
    path = tmp_path / "counts.csv"
    path.write_text("layer,expert,count\n" + "".join(f"9,{expert},{count}\n" for expert, count in enumerate(shares)))
    tally = read_trace(path).selectors[0].tally
    share = tally.chosen_GS[0] / tally.chosen_GS[0].sum()
    assert 8 * share.max() - 1 == pytest.approx(4.96, abs=0.015)
    assert np.exp(-(share * np.log(share)).sum()) == pytest.approx(2.77, abs=0.015)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer,expert,count\n", "counts.csv: has no rows"),
        ("layer,expert,count\n0,0,5\n0,0,6\n", "layer 0, label '', expert 0 is there twice"),
        ("layer,expert,count\n0,0,5\n0,x,6\n", "counts.csv, line 3: expert is 'x', not a whole number"),
        ("layer,expert,count\n0,0,5\n0,1,-6\n", "counts.csv, line 3: count is '-6', not a whole number"),
        ("layer,expert,count\n0,0,5\n0,1,6.5\n", "counts.csv, line 3: count is '6.5', not a whole number"),
        ("layer,expert,count\n0,0,5\n0,1\n", "counts.csv, line 3: count is '', not a whole number"),
        ("layer,expert,count\n0,0,5\n0,1,6,7\n", "counts.csv: is not a csv"),
    ],
)
def test_a_table_that_is_wrong_is_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "counts.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_trace(tmp_path / "counts.csv")
