"""Test which jobs rerun after which change: the trigger matrix. Each case is a dry run on the finished smoke study.

The smoke study determines the numbers of runs and figures.
"""

import os
from collections.abc import Iterator

import pytest
from tests.workflow.conftest import ROOT, Workspace

from speciate.config.study import read_study
from speciate.graph.study_graph import StudyGraph

STUDY = read_study(ROOT / "studies" / "smoke.yaml")
NUM_RUNS = len(STUDY.runs())
NUM_FIGURES, NUM_DATA_FIGURES = (len(StudyGraph(STUDY, ROOT / "results").figures(page)) for page in ("report", "data"))
AFTER_TABLES = {"draw": NUM_FIGURES, "manifest": 1, "report": 1}
AFTER_MEASURES = {"compare": 1, **AFTER_TABLES}


def after_runs(count: int) -> dict[str, int]:
    """Return the jobs that follow `count` retrained runs."""
    return {"train": count, "evaluate": count, "measure": count, **AFTER_MEASURES}


@pytest.fixture
def workspace(finished: Workspace) -> Iterator[Workspace]:
    """The finished study; source and config files are put back afterwards with their time stamps.

    A case that left something stale fails the next one, whose counts are exact, and the last of this file looks itself.
    """
    kept = {
        file: (file.read_bytes(), file.stat())
        for top in ("src", "workflow", "studies", "config.yaml", "Snakefile")
        for file in ([finished.folder / top] if top.count(".") else (finished.folder / top).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    yield finished
    for file in finished.folder.rglob("*.py"):
        if file not in kept and "results" not in file.parts:
            file.unlink()
    for file, (content, stat) in kept.items():
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_touch_or_a_fresh_checkout_makes_nothing_stale(workspace: Workspace) -> None:
    for top in ("src", "workflow", "studies"):
        for file in (workspace.folder / top).rglob("*"):
            file.touch()
    (workspace.folder / "config.yaml").touch()
    assert workspace.stale() == {}


def test_comments_and_docstrings_make_nothing_stale(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/model/ffn/moe.py"
    file.write_text(file.read_text().replace('"""', '"""Reworded. ', 1) + "\n# a comment\n")
    assert workspace.stale() == {}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("training/logs/progress.py", "tokens/s", "tokens a second", id="a progress message"),
        pytest.param("stages/train.py", "the study goes on without this run", "the rest goes on", id="a log line"),
        pytest.param("stages/train.py", 'help="', 'help="reworded: ', id="a help text"),
        pytest.param("model/moe/router/learned.py", '    """', '    """Reworded. ', id="the text of an option"),
        pytest.param("training/checkpoint/lock.py", "import fcntl\n", "import fcntl\n\nEDITED = 1\n", id="a lock"),
        pytest.param("training/logs/run_metadata.py", '"platform"', '"system"', id="what is said of the environment"),
        pytest.param("training/logs/sinks.py", "import os\n", "import os\n\nEDITED = 1\n", id="a metric sink"),
        pytest.param("config/run.py", "import json\n", "import json\n\nEDITED = 1\n", id="the schema"),
        pytest.param("graph/run_paths.py", "import pathlib\n", "import pathlib\n\nEDITED = 1\n", id="the graph"),
        pytest.param("cli.py", "import os\n", "import os\n\nEDITED = 1\n", id="the command line"),
    ],
)
def test_what_changes_no_byte_makes_nothing_stale(workspace: Workspace, file: str, old: str, new: str) -> None:
    workspace.edit(f"src/speciate/{file}", old, new)
    assert workspace.stale() == {}


def test_the_parquet_writer_of_documents_reads_no_source_anew(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/data/documents.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    stale = workspace.stale()
    assert "fetch" not in stale
    assert stale["clean"] == len(STUDY.domains)


def test_saving_a_checkpoint_is_part_of_training(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/training/checkpoint/store.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    assert workspace.stale() == after_runs(NUM_RUNS)


def test_a_metric_reruns_the_analysis_on(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/analysis/load.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    assert workspace.stale() == {"measure": NUM_RUNS, **AFTER_MEASURES}


def test_a_figure_reruns_that_figure(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/figures/load.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    assert workspace.stale() == {"draw": 1, "report": 1}


def test_an_edited_ablation_reruns_its_runs_and_what_follows(workspace: Workspace) -> None:
    workspace.edit("config.yaml", '{lr_scales: {"*.router.*": 10.0}}', '{lr_scales: {"*.router.*": 20.0}}')
    assert workspace.stale() == after_runs(2)


def test_an_added_ablation_runs_and_reruns_what_follows(workspace: Workspace) -> None:
    workspace.edit("studies/smoke.yaml", "unbalanced_fast, frozen]", "unbalanced_fast, auxiliary_fast, frozen]")
    assert workspace.stale() == after_runs(2)


@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        ("model/moe/router/frozen.py", 2),
        ("model/moe/balance/auxiliary.py", 4),
        ("model/ffn/moe.py", 6),
        ("model/ffn/dense.py", 8),
        ("training/diffusion/importance/learned.py", 2),
    ],
)
def test_a_kinds_file_reruns_the_runs_that_use_it(workspace: Workspace, kind: str, runs: int) -> None:
    file = workspace.folder / "src/speciate" / kind
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    assert workspace.stale() == after_runs(runs)


def test_the_training_loop_reruns_every_run_and_no_data_stage(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/training/loop.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    stale = workspace.stale()
    assert stale["train"] == NUM_RUNS
    assert set(stale) == {"train", "evaluate", "measure", *AFTER_MEASURES}


def test_a_pin_reruns_everything_after_it(workspace: Workspace) -> None:
    workspace.edit("studies/parts/three_domains.yaml", "d47fbf302e7d", "d47fbf302e7e")  # networkx
    stale = workspace.stale()
    of_code = ("fetch", "clean", "sign", "bucket", "cluster", "assign_splits", "write_splits", "sketch")
    assert stale == {
        **dict.fromkeys((*of_code, "fit", "balance", "card", "present"), 1),
        # the tokenizer is fitted to all domains, so every domain is encoded again
        **dict.fromkeys(("encode", "pack"), len(STUDY.domains)),
        **after_runs(NUM_RUNS),
        "draw": NUM_FIGURES + NUM_DATA_FIGURES,
    }


def test_another_similarity_reads_nothing_anew(workspace: Workspace) -> None:
    workspace.edit("studies/smoke.yaml", "study: smoke\n", "study: smoke\nduplicates: {similarity: 0.7}\n")
    stale = workspace.stale()
    assert not {"fetch", "clean"} & set(stale)
    assert stale["sign"] == stale["bucket"] == stale["cluster"] == stale["write_splits"] == 1


def test_the_page_of_the_data_reruns_no_run(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/figures/data_drops.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    assert workspace.stale() == {"draw": 1, "present": 1}


def test_a_hypothesis_reruns_no_run(workspace: Workspace) -> None:
    workspace.edit("config.yaml", "    margin: 0.05\n", "    margin: 0.06\n")
    assert workspace.stale() == AFTER_MEASURES


def test_a_wrong_config_stops_before_the_graph_with_one_message(workspace: Workspace) -> None:
    workspace.edit("config.yaml", "block_length:", "blok_length:")
    done = workspace.snakemake("--configfile", "studies/smoke.yaml", "--dry-run")
    assert done.returncode != 0
    assert "blok_length: unknown key" in done.stdout
    assert "Traceback" not in done.stdout and "Building DAG" not in done.stdout


def test_a_lost_figure_is_drawn_again(workspace: Workspace) -> None:
    lost = workspace.results / "figures/load.png"
    content = lost.read_bytes()
    stat = lost.stat()
    lost.unlink()
    assert workspace.stale() == {"draw": 1, "report": 1}
    lost.write_bytes(content)
    os.utime(lost, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_what_was_put_back_is_not_stale(workspace: Workspace) -> None:
    assert workspace.stale() == {}
