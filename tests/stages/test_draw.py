"""Test draw: the same bytes at any time and place, text that stays text, and messages that name what is wrong."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from tests.figures import planted, planted_data

from speciate.cli import execute
from speciate.config.components import kinds_in, options_of
from speciate.config.run import canonical_json
from speciate.config.stage_specs import DrawSpec

ROOT = pathlib.Path(__file__).parents[2]
ARMS = ("dense", "auxiliary", "unbalanced_fast", "frozen")


def spec_of(figure: str) -> DrawSpec:
    return DrawSpec(
        figure=options_of("figures", figure)(kind=figure),
        arms=ARMS,
        domains=("code", "math", "prose"),
        reference="auxiliary",
        controls=("frozen",),
        confidence=0.95,
        armed_after=0.1,
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tables")
    for name, frame in {**planted.tables(ARMS, num_layers=2, num_steps=60), **planted_data.tables()}.items():
        frame.to_parquet(folder / f"{name}.parquet")
    return folder


def run(spec: pathlib.Path, tables: pathlib.Path, out: pathlib.Path) -> None:
    execute(["draw", "--spec", str(spec), "--tables", str(tables), "--output-folder", str(out)])


def word_of(figure: str) -> str:
    """Return a word that the figure must contain: an arm's in one of runs, a domain's in one of data, a sampler's."""
    if figure in ("unmasking", "phase"):
        return {"unmasking": "semi autoregressive", "phase": "collapsed"}[figure]
    if figure.startswith("importance"):
        return "auxiliary"  # the importance of the arm unbalanced is constant, and has no panel
    return "math" if getattr(options_of("figures", figure), "page", "report") == "data" else "unbalanced"


@pytest.mark.parametrize("figure", kinds_in("figures"))
def test_a_figure_is_drawn_with_its_text_as_text(figure: str, tables: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "spec.json").write_text(canonical_json(spec_of(figure)))
    run(tmp_path / "spec.json", tables, tmp_path / "out")
    written = [file.relative_to(tmp_path / "out") for file in (tmp_path / "out").rglob("*.*")]
    names = (f"{figure}.json", f"{figure}.png", f"{figure}.svg", f"narrow/{figure}.svg")
    assert sorted(map(str, written)) == sorted(names)
    svg = (tmp_path / "out" / f"{figure}.svg").read_text()
    assert word_of(figure) in svg
    assert "<dc:date>" not in svg
    text = json.loads((tmp_path / "out" / f"{figure}.json").read_text())
    assert text["question"].endswith("?")
    assert len(text["caption"]) > 100 and text["finding"] and text["limits"].endswith(".")


def test_two_processes_write_the_same_bytes(tables: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "spec.json").write_text(canonical_json(spec_of("lift")))
    written = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        command = [sys.executable, "-m", "speciate", "draw", "--spec", tmp_path / "spec.json", "--tables", tables]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": seed, "TZ": f"UTC{seed}"}
        subprocess.run([*command, "--output-folder", out], check=True, env=environment)
        written.append({file.relative_to(out): file.read_bytes() for file in out.rglob("*.*")})
    assert written[0] == written[1]


def test_a_missing_table_is_named(tables: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "spec.json").write_text(canonical_json(spec_of("load")))
    with pytest.raises(ValueError, match=r"experts\.parquet: cannot be read"):
        run(tmp_path / "spec.json", tmp_path, tmp_path)


def test_a_missing_column_is_named(tables: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "spec.json").write_text(canonical_json(spec_of("curves")))
    planted.tables(ARMS, num_layers=2, num_steps=60)["curves"].drop(columns="series").to_parquet(
        tmp_path / "curves.parquet"
    )
    with pytest.raises(ValueError, match=r"curves\.parquet: has no column series"):
        run(tmp_path / "spec.json", tmp_path, tmp_path)


def test_a_figure_that_does_not_exist_is_refused(tables: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "spec.json").write_text(canonical_json(spec_of("load")).replace('"load"', '"lode"'))
    with pytest.raises(ValueError, match=r"figure: 'lode' is not a kind of figures; available: .*load"):
        run(tmp_path / "spec.json", tables, tmp_path)
