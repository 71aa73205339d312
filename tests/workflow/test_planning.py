"""Test that a plan made in less time is the plan that Snakemake makes by itself."""

import itertools
import json
import os
import pathlib
import subprocess

import pytest
from planning import OBJECTS_BETWEEN_COLLECTIONS, Names, may_contain_another
from tests.workflow.conftest import ROOT, Workspace

ASKING = """
import atexit, gc, json
from snakemake.jobs import Job
TEXTS = ("{rule} {name} {wildcards} {wildcards.ablation} {input} {output:q} {params.code} {HOME} {threads} {log}",
         "{jobid} {rulename} {resources.mem_mb} {bench_iteration} {os.sep} {input[0]} {params} {EXPORTS[PATH]}",
         "{nothing}", "{params.nothing}", "{input.nothing}", "{wildcards.nothing}", "{", "{given} {rule}")
def said(function, job, text):
    try:
        return function(job, text, given="as asked")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
def write_texts():
    ours = Job.format_wildcards
    pairs = [[job.rule.name, text, said(ours, job, text), said(ours.__wrapped__, job, text)]
             for job in workflow.dag.jobs for text in (job.rule.message, job.rule.shellcmd, *TEXTS) if text]
    collections = {"between": gc.get_threshold()[0], "at_the_end_frozen": gc.get_freeze_count()}
    pathlib.Path("texts.json").write_text(json.dumps({"pairs": pairs, "collections": collections}))
atexit.register(write_texts)
"""
"""What a Snakefile runs to write each text of its jobs as it is made here, and as Snakemake makes it."""


def test_every_text_of_every_job_is_snakemakes_own(tmp_path: pathlib.Path) -> None:
    workspace = Workspace(tmp_path / "clone")
    here = "planning.in_less_time()\n"
    # what is registered first runs last
    workspace.edit("workflow/Snakefile", here, f"{ASKING}\n{here}")
    workspace.smoke("--dry-run", "--quiet", "all")
    written = json.loads((workspace.folder / "texts.json").read_text())
    assert {rule for rule, *_ in written["pairs"]} > {"fetch", "train", "evaluate", "measure", "draw", "report", "all"}
    for rule, text, ours, snakemakes in written["pairs"]:
        assert ours == snakemakes, (rule, text)
    texts = [ours for rule, text, ours, _ in written["pairs"] if rule == "train" and text.startswith("{rule} {name}")]
    assert all(text.startswith("train train ablation=") for text in texts) and texts
    assert written["collections"]["between"] == OBJECTS_BETWEEN_COLLECTIONS
    # at the end Python does not look at what was planned
    assert written["collections"]["at_the_end_frozen"] > 100_000


def test_a_name_is_looked_up_when_it_is_used() -> None:
    class Job:
        """Have a log alone, so that another name is an error."""

        log = "a log"

    assert f"{Names(Job(), {'given': 1})['log']} {Names(Job(), {'log': 'mine'})['log']}" == "a log mine"
    with pytest.raises(AttributeError):
        Names(Job(), {})["input"]


PATHS = ("a", "a/b", "a/b.txt", "ab/c", "b", "./a", "a//b", "c/../a/d", "/a", "/a/b", "x/y/z/w", "x/y")


@pytest.mark.parametrize("files", list(itertools.combinations(PATHS, 2)), ids=" and ".join)
def test_a_path_within_another_is_found(files: tuple[str, str]) -> None:
    """Compare with the parts of paths, as Snakemake does; it may look at more pairs than it has to, never at fewer."""
    first, second = (pathlib.Path(file).absolute() for file in files)
    within = first in second.parents or second in first.parents
    assert may_contain_another(files) or not within
    if all(file == os.path.normpath(file) for file in files) and files[0].startswith("/") == files[1].startswith("/"):
        assert may_contain_another(files) == within


SNAKEFILE = """
import sys
sys.path.insert(0, {workflow!r})
import planning
planning.in_less_time()
planning.in_less_time()  # as two modules do
rule all:
    input: "a", {file!r}
rule folder:
    output: directory("a")
    shell: "mkdir {{output}}"
rule file:
    output: {file!r}
    shell: "touch {{output}}"
"""


@pytest.mark.parametrize(("file", "refused"), [("a/b.txt", True), ("./a/b.txt", True), ("ab/c.txt", False)])
def test_a_file_within_another_rules_folder_is_refused(tmp_path: pathlib.Path, file: str, refused: bool) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(workflow=str(ROOT / "workflow"), file=file))
    done = subprocess.run(
        [str(ROOT / ".envs/host/bin/snakemake"), "--dry-run", "--cores", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("File/directory is a child to another output" in done.stdout + done.stderr) == refused
    assert (done.returncode != 0) == refused, done.stderr
