"""Test the chart of a training log: its title is the finding, and it names the worst layer and the limit."""

import json
import pathlib

import pytest
from matplotlib.figure import Figure
from tests.training_logs.written import EVEN, ONE, verl

from speciate import cli
from speciate.figures import style
from speciate.training_logs.chart import draw, figure
from speciate.training_logs.training_log import TrainingLog, read_training_log


def log_of(folder: pathlib.Path, **sizes: int) -> TrainingLog:
    loads = [(EVEN, EVEN, EVEN), (EVEN, (7.0, 3.0, 3.0, 3.0), EVEN), (EVEN, ONE, EVEN)]
    lines = [json.dumps({"step": 10 * place, **verl(load)}) for place, load in enumerate(loads)]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    return read_training_log([folder / "log.jsonl"], **sizes)


def drawn(log: TrainingLog) -> Figure:
    with style.figure_style():
        return figure(log)


def texts(chart: Figure) -> list[str]:
    return [text.get_text() for axes in chart.axes for text in axes.texts]


def test_the_title_is_the_finding(tmp_path: pathlib.Path) -> None:
    chart = drawn(log_of(tmp_path, experts=4, chosen=1))
    title = chart.get_suptitle().replace("\n", " ")
    assert title == "Layer 1: MaxVio of 3 at step 20 is above the limit of 1.52 (of 4 experts, 1 chosen), since step 20"
    assert [axes.get_title(loc="left") for axes in chart.axes] == ["MaxVio", "coefficient of variation"]
    assert texts(chart).count("limit of collapse") == 1
    assert "layer 1" in texts(chart) and "layer 0" not in texts(chart)
    assert "≥ layer 1" in texts(chart)  # verl's deviation bounds the coefficient of variation from below


def test_without_the_sizes_there_is_no_limit(tmp_path: pathlib.Path) -> None:
    chart = drawn(log_of(tmp_path))
    assert "limit of collapse" not in texts(chart)
    assert "give --experts and --chosen" in chart.get_suptitle().replace("\n", " ")


@pytest.mark.parametrize("width", [style.WIDTH, style.NARROW])
def test_it_is_an_svg_with_the_same_bytes_each_time(tmp_path: pathlib.Path, width: float) -> None:
    log = log_of(tmp_path, experts=4, chosen=1)
    for name in ("a.svg", "b.svg"):
        draw(log, tmp_path / name, width=width)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "prefers-color-scheme: dark" in (tmp_path / "a.svg").read_text()


def test_a_log_of_losses_alone_is_a_message(tmp_path: pathlib.Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "load_balancing_loss": 1.0}\n')
    chart = drawn(read_training_log([tmp_path / "log.jsonl"]))
    assert [text.get_text() for text in chart.texts] == ["No name of this log can be converted to a measure of load."]


def test_the_doctor_prints_the_verdicts_and_writes_table_and_page(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_of(tmp_path)
    words = ("--experts", "4", "--chosen", "1", "--output", str(tmp_path / "out"))
    cli.main(["doctor", "--logs", str(tmp_path / "log.jsonl"), *words])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Layer 1: MaxVio of 3 at step 20 is above the limit of 1.52")
    assert "  Layer 0: its load is within the limits of collapse at step 20, as far as it is logged." in printed
    table = (tmp_path / "out" / "tables" / "training.csv").read_text()
    assert table.startswith("framework,phase,step,layer,over,metric,relation,")
    assert "MaxVio of 3 at step 20" in (tmp_path / "out" / "doctor.html").read_text()
