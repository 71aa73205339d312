"""Test the comparison of a study's verdicts with those of the same study run elsewhere."""

import argparse
import json
import pathlib

import pandas as pd
import pytest

from speciate.tools import replication


def study(
    folder: pathlib.Path, verdicts: dict[str, str], margin: float = 0.1, instructions: str = "AVX512"
) -> pathlib.Path:
    """Write what the comparison reads of a finished study."""
    (folder / "tables").mkdir(parents=True)
    environment = {"processor": "AMD EPYC", "instructions": instructions, "threads": 1, "runs": 4}
    (folder / "manifest.json").write_text(json.dumps({"environments": [environment]}))
    rows = [
        {
            "name": name,
            "statement": f"what {name} says",
            **dict.fromkeys(("statistic", "test", "arm", "reference", "direction"), "x"),
            "margin": margin,
            "value": None,
            "confidence": 0.95,
            "verdict": verdict,
            "difference": 0.25,
            "low": -0.125,
            "high": 0.5,
        }
        for name, verdict in verdicts.items()
    ]
    pd.DataFrame(rows).to_parquet(folder / "tables" / "hypotheses.parquet")
    return folder


def test_a_verdict_that_flips_is_unstable(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = study(tmp_path / "here", {"b": "supported", "a": "undecided"})
    there = study(tmp_path / "there", {"b": "supported", "a": "refuted"}, instructions="AVX2")
    table = replication.replication_table([here, there])
    assert table[["name", "verdict", "stable"]].to_numpy().tolist() == [
        ["b", "supported", True],
        ["b", "supported", True],
        ["a", "undecided", False],
        ["a", "refuted", False],
    ]
    arguments = ["--study", str(here), "--against", str(there), "--output", str(tmp_path / "out.csv")]
    parser = argparse.ArgumentParser()
    replication.add_arguments(parser)
    replication.main(parser.parse_args(arguments))
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    assert any("4 runs on AMD EPYC, AVX2, threads: 1" in line for line in lines)
    assert any("a: UNSTABLE: undecided +0.25 [-0.125, 0.5]; refuted" in line for line in lines)
    assert any("1 of 2 verdicts are the same in 2 folders" in line for line in lines)
    assert pd.read_csv(tmp_path / "out.csv")["stable"].tolist() == [True, True, False, False]


def test_other_studies_are_refused_by_name(tmp_path: pathlib.Path) -> None:
    here = study(tmp_path / "here", {"a": "supported"})
    with pytest.raises(ValueError, match="has other hypotheses"):
        replication.replication_table([here, study(tmp_path / "more", {"a": "supported", "b": "refuted"})])
    with pytest.raises(ValueError, match="hypothesis a has another margin"):
        replication.replication_table([here, study(tmp_path / "wide", {"a": "supported"}, margin=0.2)])
    with pytest.raises(ValueError, match="holds no finished study"):
        replication.replication_table([here, tmp_path])
