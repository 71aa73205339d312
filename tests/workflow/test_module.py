"""Test that another Snakefile in another folder can import the rules as modules, and run them beside its own."""

import http.server
import json
import os
import pathlib
import re
import subprocess
import threading
from typing import Any

import pytest
from tests.bad_input import small
from tests.workflow.conftest import ROOT

from speciate.config.study import parse_study, read_study
from speciate.graph.study_graph import StudyGraph

USER = """
configfile: "config/mine.yaml"


rule mine:
    input:
        "{prose}",
        "sub/{other_prose}",
    output:
        "mine.txt",
    log:
        "mine.log",
    shell:
        "(cat {{input}} | wc -c; command -v python; echo path ${{{{PYTHONPATH:-none}}}}) > {{output}} 2> {{log}}"


module plain:
    snakefile:
        config["rules"]
    config:
        config["plain"]


use rule * from plain as plain_*


module other:
    snakefile:
        config["inner_rules"]
    config:
        config["other"]
    prefix:
        "sub"


use rule * from other as other_*


use rule sort from other as other_sort with:
    threads: 2


onstart:
    print("the importing Snakefile starts")
"""
SUBMIT = '#!/bin/bash\nbash "$1" >> steps.log 2>&1 &\necho $!\n'
"""A scheduler that runs each job at once."""


def snakemake(folder: pathlib.Path, *arguments: str) -> str:
    """Run Snakemake in a folder as a user would; return all that it says."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    program = str(ROOT / ".envs/host/bin/snakemake")
    done = subprocess.run([program, *arguments], cwd=folder, env=environment, check=False, **streams)
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


def settings(name: str, **changes: Any) -> dict[str, Any]:
    return {**small.settings(), "study": name, **changes}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Provide a folder with texts, two studies in one config, and a Snakefile that imports the rules for each."""
    small.corpus(tmp_path)
    (tmp_path / "config").mkdir()
    # what a study extends lies beside the config
    (tmp_path / "config/common.json").write_text(json.dumps(settings("common")))
    config: dict[str, Any] = {
        "plain": {"extends": "common.json", "study": "plain"},
        "other": settings("other", block_length=16),
    }
    config |= {"rules": str(ROOT / "Snakefile"), "inner_rules": str(ROOT / "workflow/Snakefile")}
    (tmp_path / "config/mine.yaml").write_text(json.dumps(config))
    graph = StudyGraph(parse_study(settings("plain"), "plain"), pathlib.Path("results"))
    (prose,) = graph.files("sort", "prose", "documents.parquet")
    text = USER.format(prose=prose, other_prose=prose)
    (tmp_path / "Snakefile").write_text(text)
    (tmp_path / "submit.sh").write_text(SUBMIT)
    (tmp_path / "submit.sh").chmod(0o755)
    return tmp_path


def test_jobs_of_two_modules_run_on_a_cluster_beside_other_rules(folder: pathlib.Path) -> None:
    cluster = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "./submit.sh", "--jobs", "4")
    output = snakemake(folder, *cluster, "--seconds-between-status-checks", "1", "--latency-wait", "30")
    assert "the importing Snakefile starts" in output
    size, python, path = (folder / "mine.txt").read_text().splitlines()
    first, second = (
        pathlib.Path(file) for file in re.findall(r'"((?:sub/)?results\S+)"', (folder / "Snakefile").read_text())
    )
    # the two studies sort their texts alike
    assert int(size) == 2 * (folder / first).stat().st_size
    assert (folder / first).read_bytes() == (folder / second).read_bytes()
    # the other rules keep their own environment
    assert path == "path none" and not python.startswith(str(ROOT))
    # each module has its own frozen tree, and its jobs planned with it
    steps = (folder / "steps.log").read_text()
    for top, name in (("results", "plain"), ("sub/results", "other")):
        (tree,) = (folder / top / "source").iterdir()
        assert json.loads((tree / "study.json").read_text())["study"] == name
        assert f"frozen_tree_{name}={top}/source/{tree.name}" in steps
    assert not (folder / "results/other").exists() and not (folder / "sub/results/plain").exists()
    assert "Nothing to be done" in snakemake(folder, "--cores", "1")


def test_a_whole_study_is_planned_under_the_names_and_the_prefix_of_its_module(folder: pathlib.Path) -> None:
    output = snakemake(folder, "--dry-run", "--cores", "1", "--", "other_all", "plain_data")
    table = re.findall(r"Job stats:\n(.*?)\n\n", output, re.DOTALL)[-1]
    counts = {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)\s*$", table, re.MULTILINE)}
    runs = len(parse_study(settings("other"), "other").runs())
    assert counts["other_train"] == counts["other_measure"] == runs
    assert counts["plain_balance"] == counts["other_report"] == 1
    assert "plain_train" not in counts
    assert set(re.findall(r"(\S*results)/(?:data|other|plain)/", output)) <= {"results", "sub/results"}
    # the messages of the rules are there, and hold what they should
    assert "pack prose into blocks of 16 tokens" in output and "pack prose into blocks of 32 tokens" in output
    assert not (folder / "sub").exists()


def test_the_default_target_is_the_importing_snakefiles_or_else_the_study(folder: pathlib.Path) -> None:
    assert re.search(r"^mine +1$", snakemake(folder, "--dry-run", "--cores", "1"), re.MULTILINE)
    text = (folder / "Snakefile").read_text()
    (folder / "Snakefile").write_text(re.sub(r"rule mine:.*?(?=module plain)", "", text, flags=re.DOTALL))
    output = snakemake(folder, "--dry-run", "--cores", "1")
    assert re.search(r"^plain_all +1$", output, re.MULTILINE) and "other_" not in output


def test_snakemake_finds_nothing_to_say_of_the_imported_rules(folder: pathlib.Path) -> None:
    with pytest.raises(AssertionError) as raised:
        snakemake(folder, "--lint")
    # of the rule of the importing Snakefile it says that it names no environment
    assert set(re.findall(r"Lints for (\w+ \S+)", str(raised.value).splitlines()[0])) == {"rule mine"}
    assert "plain_" not in str(raised.value)


def test_a_wrong_study_of_a_module_is_told_in_one_line(folder: pathlib.Path) -> None:
    config = json.loads((folder / "config/mine.yaml").read_text())
    config["other"]["blok_length"] = 3
    (folder / "config/mine.yaml").write_text(json.dumps(config))
    with pytest.raises(AssertionError, match=r"config/mine\.yaml: blok_length: unknown key") as raised:
        snakemake(folder, "--dry-run")
    assert "Traceback" not in str(raised.value)


def test_the_page_about_modules_shows_what_works(tmp_path: pathlib.Path) -> None:
    page = (ROOT / "docs/modules.md").read_text()
    config, snakefile = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)[0] for kind in ("yml", "python"))
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(config.replace("/path/to/speciate", str(ROOT)))
    (tmp_path / "Snakefile").write_text(snakefile)
    output = snakemake(tmp_path, "--dry-run", "--cores", "1")
    assert re.search(r"^summary +1$", output, re.MULTILINE)
    runs = len(read_study(ROOT / "studies/smoke.yaml").ablations)
    assert re.search(rf"^routers_train +{runs}$", output, re.MULTILINE)
    assert "speciate/results/routers/tables/runs.csv" in output


def test_rules_without_their_package_say_how_to_import_them(tmp_path: pathlib.Path) -> None:
    """Serve the rules as a code host does."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(ROOT))

        def log_message(self, *given: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/workflow/Snakefile"
        (tmp_path / "Snakefile").write_text(
            f'module far:\n    snakefile: "{address}"\n    config: {{}}\n\nuse rule * from far as far_*\n'
        )
        with pytest.raises(AssertionError, match="import the Snakefile of a clone on this machine"):
            snakemake(tmp_path, "--dry-run")
        server.shutdown()
