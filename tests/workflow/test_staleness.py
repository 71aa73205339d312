"""Test which jobs rerun after which change: the trigger matrix. The study is the smoke study, finished.

A change of settings is a dry run. A change of code is one where it shows what follows a stale job. Elsewhere the
digests are compared that decide whether a job is stale, which a test first finds in Snakemake's record of every job.

The smoke study determines the numbers of runs and figures.
"""

import base64
import collections
import json
import os
import pathlib
from collections.abc import Iterator

import pytest
from tests.workflow.conftest import ROOT, Workspace
from tests.workflow.test_rules import RULES

from speciate.config.components import kinds_in
from speciate.config.stage_specs import CARDED, COMPARED
from speciate.config.study import read_study
from speciate.graph import provenance
from speciate.graph.study_graph import StudyGraph

STUDY = read_study(ROOT / "studies" / "smoke.yaml")
GRAPH = StudyGraph(STUDY, pathlib.Path("results"))
NUM_RUNS = len(STUDY.runs())
NUM_FIGURES, NUM_DATA_FIGURES = (len(GRAPH.figures(page)) for page in ("report", "data"))
TASK_FIGURES = sum(GRAPH.read_by(figure) == "tasks" for figure in GRAPH.figures("report"))
AFTER_TABLES = {"draw": NUM_FIGURES - TASK_FIGURES, "explore": 1, "manifest": 1, "report": 1}
AFTER_SCORES = {"compare_tasks": 1, "draw": TASK_FIGURES, "manifest": 1, "report": 1}
AFTER_MEASURES = {"compare": 1, **AFTER_TABLES}


def after_runs(count: int) -> dict[str, int]:
    """Return the jobs that follow `count` retrained runs."""
    each = dict.fromkeys(("train", "evaluate", "intervene", "measure"), count)
    scores = {"evaluate_tasks": count * len(GRAPH.tasks), **AFTER_SCORES}
    return {**each, "agree": 1, "swap": 1, **scores, **AFTER_MEASURES, "draw": NUM_FIGURES}


@pytest.fixture
def workspace(finished: Workspace) -> Iterator[Workspace]:
    """Provide the finished study; afterwards restore source and config files with their time stamps.

    If a case leaves something stale, the next one fails, because its counts are exact; the last test checks for itself.
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


NO_BYTE = [
    pytest.param("training/logs/progress.py", "tokens/s", "tokens a second", id="a progress message"),
    pytest.param("stages/train.py", "the study goes on without this run", "the rest goes on", id="a log line"),
    pytest.param("stages/train.py", 'help="', 'help="reworded: ', id="a help text"),
    pytest.param("model/moe/router/learned.py", '    """', '    """Reworded. ', id="the text of an option"),
    pytest.param("model/ffn/moe.py", '"""', '# a comment\n"""Reworded. ', id="a comment and a docstring"),
    pytest.param("training/checkpoint/lock.py", "import pathlib\n", "import pathlib\n\nEDITED = 1\n", id="a lock"),
    pytest.param("training/logs/run_metadata.py", '"platform"', '"system"', id="what is said of the environment"),
    pytest.param("training/logs/sinks.py", "import os\n", "import os\n\nEDITED = 1\n", id="a metric sink"),
    pytest.param("config/run.py", "import json\n", "import json\n\nEDITED = 1\n", id="the schema"),
    pytest.param("graph/run_paths.py", "import pathlib\n", "import pathlib\n\nEDITED = 1\n", id="the graph"),
    pytest.param("cli.py", "import os\n", "import os\n\nEDITED = 1\n", id="the command line"),
]
"""Edits that change no byte of any stage's output: a file of the package, a text in it, another text."""


def digests_of_jobs() -> dict[str, tuple[str, str]]:
    """Return, by one output of each job of the study, its rule and the digest of the code that the rule runs for it."""
    jobs: dict[str, tuple[str, str]] = {}
    for stage in GRAPH.stages:
        for name in GRAPH.names(stage):
            code = provenance.digest(stage, GRAPH.spec(stage, name))
            jobs |= {str(part / GRAPH.stages[stage].writes[0]): (stage, code) for part in GRAPH.parts(stage, name)}
    for run in STUDY.runs():
        folder, code = GRAPH.run_folder(run.ablation, run.seed), provenance.digest("train", run)
        jobs[f"{folder}/model.safetensors"] = ("train", code)
        jobs[f"{folder}/probe.safetensors"] = ("evaluate", provenance.digest("evaluate", run))
        folder = GRAPH.intervene_folder(run.ablation, run.seed)
        code = provenance.digest("intervene", GRAPH.intervene_spec(run.ablation, run.seed))
        jobs[f"{folder}/interventions.parquet"] = ("intervene", code)
        for task in GRAPH.tasks:
            code = provenance.digest("evaluate_tasks", GRAPH.task_spec(run.ablation, run.seed, task))
            jobs[f"{GRAPH.task_folder(run.ablation, run.seed)}/{task}.parquet"] = ("evaluate_tasks", code)
        folder = GRAPH.measure_folder(run.ablation, run.seed)
        jobs[f"{folder}/runs.parquet"] = ("measure", provenance.digest("measure"))
    for figure in (*GRAPH.figures("report"), *GRAPH.figures("data")):
        jobs[f"{GRAPH.home}/figures/{figure}.svg"] = ("draw", provenance.digest("draw", GRAPH.draw_spec(figure)))
    code = provenance.digest("explore", GRAPH.explore_spec())
    jobs[f"{GRAPH.home}/explorer.html"] = ("explore", code)
    jobs[f"{GRAPH.home}/tables/{CARDED[0]}.parquet"] = ("card", provenance.digest("card", GRAPH.card_spec()))
    jobs[f"{GRAPH.home}/data.html"] = ("present", provenance.digest("present", GRAPH.card_spec()))
    last = {
        "agree": "tables/agreement.parquet",
        "compare": f"tables/{COMPARED[0]}.parquet",
        "compare_tasks": "tables/tasks.parquet",
        "manifest": "manifest.json",
        "report": "report.html",
        "swap": "tables/swaps.parquet",
    }
    for rule, file in last.items():
        jobs[f"{GRAPH.home}/{file}"] = (rule, provenance.digest(rule))
    return jobs


@pytest.fixture(scope="module")
def digests() -> dict[str, tuple[str, str]]:
    """Provide the digests of the files as they are."""
    provenance._digest.cache_clear()
    return digests_of_jobs()


class EditedPackage:
    """Compute digests from the workspace's copy of the package."""

    def __init__(self, workspace: Workspace, before: dict[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch):
        self.workspace, self.before, self.monkeypatch = workspace, before, monkeypatch
        monkeypatch.setattr(provenance, "PACKAGE", workspace.folder / "src/speciate")

    def stale_by(self, file: str, old: str, new: str) -> dict[str, int]:
        """Edit a file and return how many jobs of each rule have another digest then, without the jobs that follow."""
        self.workspace.edit(f"src/speciate/{file}", old, new)
        edited, read = "speciate." + file.removesuffix(".py").replace("/", "."), provenance._read
        with self.monkeypatch.context() as patch:
            # only the edited file is read anew
            patch.setattr(provenance, "_read", lambda module: (read.__wrapped__ if module == edited else read)(module))
            provenance._digest.cache_clear()
            after = digests_of_jobs()
        provenance._digest.cache_clear()
        assert after.keys() == self.before.keys()
        return dict(collections.Counter(rule for job, (rule, code) in after.items() if code != self.before[job][1]))


@pytest.fixture
def package(
    workspace: Workspace, digests: dict[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> EditedPackage:
    return EditedPackage(workspace, digests, monkeypatch)


def test_every_job_was_made_with_its_spec(finished: Workspace) -> None:
    """Find the specs' paths in Snakemake's records, which leave out parameters that are no texts, lists or numbers."""
    recorded = [json.loads(file.read_text()) for file in (finished.folder / ".snakemake/metadata").iterdir()]
    params = {param for made in recorded for param in made["params"]}
    assert GRAPH.specs().keys() >= {GRAPH.spec_file(run) for run in STUDY.runs()}
    figures = {GRAPH.spec_file(GRAPH.draw_spec(figure)) for figure in kinds_in("figures")}
    drawn = {GRAPH.spec_file(GRAPH.draw_spec(name)) for page in ("report", "data") for name in GRAPH.figures(page)}
    for file in GRAPH.specs().keys() - (figures - drawn):
        assert repr(str(file)) in params, file


def test_every_job_was_made_with_the_digest_of_its_code(
    finished: Workspace, digests: dict[str, tuple[str, str]]
) -> None:
    """Find the digests of this file in Snakemake's records: the rules ask for the same ones."""
    for job, (rule, code) in digests.items():
        record = finished.folder / ".snakemake/metadata" / base64.b64encode(job.encode(), b"+-").decode()
        made = json.loads(record.read_text())
        assert made["rule"] == rule
        assert repr(code) in made["params"], job
    assert {rule for rule, _ in digests.values()} == RULES.keys() - {
        "cost",
        "calibrate",
    }  # neither is part of this study


def test_what_changes_no_byte_makes_nothing_stale(workspace: Workspace) -> None:
    """Touch every file, as a fresh checkout does, and make all edits that change no byte."""
    for top in ("src", "workflow", "studies"):
        for file in (workspace.folder / top).rglob("*"):
            file.touch()
    (workspace.folder / "config.yaml").touch()
    for edit in NO_BYTE:
        file, old, new = edit.values
        workspace.edit(f"src/speciate/{file}", old, new)
    assert workspace.stale() == {}


@pytest.mark.parametrize(("file", "old", "new"), NO_BYTE)
def test_an_edit_that_changes_no_byte_changes_no_digest(package: EditedPackage, file: str, old: str, new: str) -> None:
    assert package.stale_by(file, old, new) == {}


@pytest.mark.parametrize(
    ("file", "runs"),
    [
        ("model/moe/router/frozen.py", 2),
        ("model/moe/balance/auxiliary.py", 4),
        ("model/ffn/moe.py", 6),
        ("model/ffn/dense.py", 8),
        ("training/diffusion/importance/learned.py", 2),
    ],
)
def test_a_component_is_code_of_the_runs_that_use_it(package: EditedPackage, file: str, runs: int) -> None:
    each = dict.fromkeys(("train", "evaluate", "intervene"), runs) | {"evaluate_tasks": runs * len(GRAPH.tasks)}
    assert package.stale_by(file, "", "EDITED = 1\n") == each


@pytest.mark.parametrize("file", ["training/loop.py", "training/checkpoint/store.py"])
def test_the_training_loop_and_its_checkpoints_are_code_of_every_run_and_of_no_data_stage(
    package: EditedPackage, file: str
) -> None:
    assert package.stale_by(file, "", "EDITED = 1\n") == {"train": NUM_RUNS}


def test_the_parquet_writer_of_documents_reads_no_source_anew(package: EditedPackage) -> None:
    stale = package.stale_by("data/documents.py", "", "EDITED = 1\n")
    assert "fetch" not in stale
    assert stale["clean"] == len(STUDY.domains)


def test_a_kind_of_task_is_code_of_its_own_tasks(package: EditedPackage) -> None:
    stale = package.stale_by("evaluation/task/copying.py", "", "EDITED = 1\n")
    of_kind = [task for task in STUDY.evaluation.tasks.values() if task.kind == "copying"]
    assert stale == {"evaluate_tasks": NUM_RUNS * len(of_kind)}


def test_an_option_of_a_task_reruns_that_task_and_what_reads_scores(workspace: Workspace) -> None:
    workspace.edit("studies/smoke.yaml", "lengths: [16, 32, 64], questions: 16", "lengths: [16, 64], questions: 16")
    assert workspace.stale() == {"evaluate_tasks": NUM_RUNS, **AFTER_SCORES}


def test_an_added_task_runs_alone(workspace: Workspace) -> None:
    workspace.edit("studies/smoke.yaml", "  tasks:\n", "  tasks:\n    again: {kind: copying, lengths: [16], seed: 1}\n")
    assert workspace.stale() == {"evaluate_tasks": NUM_RUNS, **AFTER_SCORES}


def test_a_metric_reruns_the_analysis_on(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/analysis/load.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    after = {"measure": NUM_RUNS, "intervene": NUM_RUNS, "agree": 1, "swap": 1}
    assert workspace.stale() == {**after, **AFTER_MEASURES}


def test_a_figure_reruns_that_figure(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/figures/load.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    assert workspace.stale() == {"draw": 1, "report": 1}


def test_an_edited_ablation_reruns_its_runs_and_what_follows(workspace: Workspace) -> None:
    workspace.edit(
        "studies/three_selectors.yaml", '{lr_scales: {"*.router.*": 10.0}}', '{lr_scales: {"*.router.*": 20.0}}'
    )
    assert workspace.stale() == after_runs(2)


def test_an_added_ablation_runs_and_reruns_what_follows(workspace: Workspace) -> None:
    workspace.edit("studies/smoke.yaml", "unbalanced_fast, frozen]", "unbalanced_fast, auxiliary_fast, frozen]")
    assert workspace.stale() == after_runs(2)


def test_a_components_file_reruns_the_runs_that_use_it(workspace: Workspace) -> None:
    file = workspace.folder / "src/speciate/model/moe/router/frozen.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    assert workspace.stale() == after_runs(2)


def test_a_pin_reruns_everything_after_it(workspace: Workspace) -> None:
    workspace.edit("studies/parts/three_domains.yaml", "d47fbf302e7d", "d47fbf302e7e")  # networkx
    stale = workspace.stale()
    of_code = ("fetch", "clean", "sort", "sign", "bucket", "cluster", "assign_splits", "write_splits", "sketch")
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
    workspace.edit("studies/three_selectors.yaml", "    margin: 0.05\n", "    margin: 0.06\n")
    assert workspace.stale() == AFTER_MEASURES


def test_a_wrong_config_stops_before_the_graph_with_one_message(workspace: Workspace) -> None:
    workspace.edit("studies/three_selectors.yaml", "block_length:", "blok_length:")
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
