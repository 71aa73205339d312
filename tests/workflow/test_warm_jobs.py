"""Test that the workflow offers servers on its own machine alone, and that no file or benchmark tells of them."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.workflow.conftest import ROOT, Workspace

STUDY = """extends: smoke.yaml
keep: {ablations: [unbalanced_fast], hypotheses: []}
study: warm
question: Is a forked job like any other?
seeds: [0]
analysis: {reference: unbalanced_fast, controls: []}
base: {training: {num_steps: STEPS}}
"""
HOME = pathlib.Path("results/warm")
RUN = "unbalanced_fast/seed0"
STAGES = {"train", "evaluate", "evaluate_tasks", "measure", "intervene"}
TARGETS = [
    f"{HOME}/{path}"
    for path in (
        f"measures/{RUN}/runs.parquet",
        f"interventions/{RUN}/interventions.parquet",
        f"tasks/{RUN}/copying.parquet",
    )
]
OFFER = """
import os, sys
from types import SimpleNamespace
import warm
executor = type("Executor", (), {"__module__": sys.argv[1]})()
if sys.argv[3] == "old":
    def pidfd_open(pid):
        raise OSError(38, "not implemented")
    os.pidfd_open = pidfd_open
workflow = SimpleNamespace(is_main_process=sys.argv[2] == "main", scheduler=SimpleNamespace(_executor=executor))
print(*warm.offer(workflow))
"""
BENCHMARK = """
import subprocess, sys
from snakemake.benchmark import BenchmarkRecord, BenchmarkTimer
import warm
if sys.argv[1] == "counted":
    warm.count_workers()
work = "import time; held = bytearray(b'x') * (200 << 20)\\nwhile time.process_time() < 1.1: pass\\nprint(); input()"
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
worker = subprocess.Popen([sys.executable, "-c", work], **pipes)
worker.stdout.readline()
client = f"(printf 'warm {worker.pid}' > /proc/$BASHPID/comm; echo; read line); true"
shell = subprocess.Popen(["bash", "-c", client], **pipes)
shell.stdout.readline()
record = BenchmarkRecord()
BenchmarkTimer(shell.pid, record).work()
print(record.cpu_time, record.max_rss, record.max_uss)
for process in (worker, shell):
    process.communicate(b"\\n")
"""


def host(program: str, *words: str, **variables: str) -> str:
    """Return what a program prints that runs beside the workflow."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'workflow'}", **variables}
    python = ROOT / ".envs/host/bin/python"
    return subprocess.run(
        [python, "-c", program, *words], env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("words", "variables", "offered"),
    [
        (("snakemake.executors.local", "main", "new"), {}, True),
        (("snakemake.executors.local", "main", "new"), {"SPECIATE_WARM": "0"}, False),
        (("snakemake.executors.local", "main", "old"), {}, False),
        # inside a job of a cluster, which has its own limits
        (("snakemake.executors.local", "job", "new"), {}, False),
        (("snakemake_executor_plugin_slurm", "main", "new"), {}, False),
        (("snakemake_executor_plugin_cluster_generic", "main", "new"), {}, False),
    ],
)
def test_servers_are_offered_on_this_machine_alone(
    words: tuple[str, ...], variables: dict[str, str], offered: bool
) -> None:
    assert host(OFFER, *words, **variables) == ("SPECIATE_WARM_SOCKET\n" if offered else "\n")


def test_the_rules_offer_none_in_a_container() -> None:
    assert "EXPORTS.update({} if IN_CONTAINER else warm.offer(workflow))" in (ROOT / "workflow/Snakefile").read_text()


def test_a_benchmark_counts_the_fork_that_does_the_work() -> None:
    seconds, memory, own = map(float, host(BENCHMARK, "counted").split())
    assert 1 <= seconds < 3
    assert 200 < own <= memory < 300
    seconds, memory, own = map(float, host(BENCHMARK, "plain").split())
    assert seconds < 0.5 and memory < 100


def servers(folder: pathlib.Path) -> set[str]:
    """Return the stages whose servers run in a folder, without those that have just been forked."""
    found = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if words[1:3] == ["-m", "speciate.warm_server"] and (process / "cwd").resolve() == folder:
                found.add(words[3])
        except OSError:
            continue
    return found


class Study:
    """A study of one run."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.folder = workspace, workspace.folder
        self.file = self.folder / "studies/warm.yaml"
        self.log = self.folder / HOME / f"logs/train/{RUN}.log"

    def start(self, steps: int, *options: str, **variables: str) -> subprocess.Popen[str]:
        self.file.write_text(STUDY.replace("STEPS", str(steps)))
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        snakemake = [str(ROOT / ".envs/host/bin/snakemake"), "--configfile", "studies/warm.yaml", "--cores", "1"]
        with (self.folder / "said.txt").open("w") as said:
            return subprocess.Popen(
                [*snakemake, *options, "--", *TARGETS],
                cwd=self.folder,
                env={**environment, **variables},
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def run(self, *options: str, **variables: str) -> set[str]:
        """Run it to its end; return which servers there were."""
        self.wait_for_servers()
        process, found = self.start(20, *options, **variables), set()
        while process.poll() is None:
            found |= servers(self.folder)
            time.sleep(0.1)
        assert process.returncode == 0, self.said()
        return found

    def wait_for_servers(self) -> None:
        """Wait until the servers of an earlier Snakemake have noticed its end."""
        patience = time.monotonic() + 60
        while servers(self.folder):
            assert time.monotonic() < patience
            time.sleep(0.1)

    def content(self) -> dict[str, object]:
        """Return all files that do not tell of times; of records, what is the same in each job."""
        found: dict[str, object] = {}
        for folder in ("runs", "measures", "interventions", "tasks"):
            for file in sorted((self.folder / HOME / folder).rglob("*.*")):
                if "made_by" in (file.stem, file.parent.name):
                    for stage, record in json.loads(file.read_text()).items():
                        record["outputs"].pop("timing.json", None)
                        # which others had ended before it began is chance
                        record["inputs"] = sorted(key for key in record["inputs"] if not key.endswith(":evaluate"))
                        found[f"{file} {stage}"] = record
                elif file.is_file() and file.name != "timing.json":
                    found[str(file)] = file.read_bytes()
        return found


@pytest.fixture
def study(finished: Workspace) -> Iterator[Study]:
    shutil.rmtree(finished.folder / HOME, ignore_errors=True)
    made = Study(finished)
    yield made
    made.wait_for_servers()
    made.file.unlink()
    (made.folder / "said.txt").unlink()
    shutil.rmtree(made.folder / HOME, ignore_errors=True)


def test_forked_jobs_write_the_same_bytes(study: Study) -> None:
    assert study.run("--dry-run") == set()
    assert study.run(SPECIATE_WARM="0") == set()
    expected = study.content()
    assert {str(name).split()[-1] for name in expected if "made_by" in str(name)} == STAGES
    shutil.rmtree(study.folder / HOME)
    assert study.run() == STAGES
    assert study.content() == expected
    logs = "".join(file.read_text() for file in (study.folder / HOME / "logs").rglob("*.log"))
    assert len(re.findall(r"^speciate \w+: took .* CPU s", logs, re.MULTILINE)) == len(STAGES)
    assert "process of its own" not in logs


def test_an_interrupted_study_saves_its_training(study: Study) -> None:
    process = study.start(100000)
    while not (study.log.is_file() and "step " in study.log.read_text()):
        assert process.poll() is None, study.said()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=120)
    assert f"{RUN.partition('/')[0]} seed 0: SIGINT received; saved" in study.log.read_text()
    assert list((study.folder / HOME / "checkpoints").glob("*/*/step*/manifest.json"))
