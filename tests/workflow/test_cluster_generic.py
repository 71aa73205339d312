"""Run the profile cluster-generic for real, with a stand-in for Slurm that runs a job when it is submitted.

A small workflow takes the place of the study. Its stages fail as stages on a cluster do.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from tests.workflow.conftest import ROOT

SNAKEFILE = """
import os, sys
sys.path[:0] = [{workflow!r}, {src!r}]
from types import SimpleNamespace
import failures, retries, shares
from snakemake.logging import logger

SHARES = shares.Shares(workflow, SimpleNamespace(study=SimpleNamespace(domains=dict())))
shares.ask_for_the_largest(workflow, SHARES.minutes)
shares.keep_within(workflow, os.environ)

onstart:
    retries.decide(workflow, failures.watch(workflow, logger))

rule all:
    input: expand("out/{{n}}", n=range(3)), "all"
    localrule: True

rule part:
    output: "out/{{n}}"
    log: "logs/part/{{n}}.log"
    group: lambda wildcards: SHARES.named("parts")
    threads: 1
    resources: mem_mb=100, runtime=30
    shell: "python3 stage.py part {{wildcards.n}} {{output}} 2>&1 | tee -a {{log}} >&2"

rule gather:
    input: expand("out/{{n}}", n=range(3))
    output: "all"
    log: "logs/gather.log"
    threads: 2
    resources: mem_mb=100, runtime=30
    shell: "python3 stage.py gather '' {{output}} 2>&1 | tee -a {{log}} >&2"
"""
STAGE = """
import os, pathlib, signal, sys
rule, name, output = sys.argv[1:]
runs = pathlib.Path("runs"); runs.mkdir(exist_ok=True)
runs = runs / (rule + name)
number = len(runs.read_text().split()) if runs.exists() else 0
with runs.open("a") as file:
    file.write(os.environ.get("SPECIATE_CORES", "?") + " ")
faults = pathlib.Path("faults" , rule + name)
fault = faults.read_text().split() if faults.exists() else []
end = fault[number] if number < len(fault) else "well"
if end == "memory":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "error":
    print("speciate " + rule + ": error: there is no such file")
    sys.exit(65)
if end.startswith("time"):
    print("step " + end[4:] + "/9, loss 1.0, 5 tokens/s, 0:05 left", flush=True)
    said = "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT now DUE TO TIME LIMIT ***"
    pathlib.Path("scheduler", "says").write_text(said)
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path(output).write_text(rule)
print("speciate " + rule + ": took 1.0 CPU s")
"""
SBATCH = """#!{python}
import os, pathlib, subprocess, sys
home = pathlib.Path("scheduler"); home.mkdir(exist_ok=True)
number = str(len(list(home.glob("*.state"))) + 1)
options = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
with open(options["output"].replace("%j", number), "w") as log:
    environment = os.environ | {{"SLURM_JOB_ID": number}}
    done = subprocess.run(["sh", "-c", options["wrap"]], env=environment, stdout=log, stderr=log)
    said = home / "says"
    if said.exists():
        log.write(said.read_text())
        said.unlink()
failed = done.returncode or pathlib.Path("late").exists()
(home / (number + ".state")).write_text("FAILED" if failed else "COMPLETED")
with (home / "asked").open("a") as asked:
    asked.write(" ".join(sys.argv[1:-1]) + chr(10))
print(number)
"""
SQUEUE = """#!{python}
import pathlib, sys
number = next(word.partition("=")[2] for word in sys.argv if word.startswith("--jobs="))
state = pathlib.Path("scheduler", number + ".state")
print(state.read_text() if state.exists() else "RUNNING")
"""


class Cluster:
    """A folder with the workflow, the profile, and the stand-in for the scheduler's commands in PATH."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        source = {"workflow": str(ROOT / "workflow"), "src": str(ROOT / "src")}
        (folder / "Snakefile").write_text(SNAKEFILE.format(**source))
        (folder / "stage.py").write_text(STAGE)
        shutil.copytree(ROOT / "profiles/cluster-generic", folder / "profiles/cluster-generic")
        file = folder / "profiles/cluster-generic/config.yaml"
        profile = yaml.safe_load(file.read_text())
        profile |= {"seconds-between-status-checks": 1, "max-status-checks-per-second": 10, "latency-wait": 2}
        profile["resources"]["mem_mb"] = 300
        file.write_text(yaml.dump(profile))
        (folder / "bin").mkdir()
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", "#!/bin/sh\n")):
            (folder / "bin" / name).write_text(text.format(python=sys.executable))
            (folder / "bin" / name).chmod(0o755)

    def fail(self, **faults: str) -> None:
        """Let attempts of jobs end otherwise than well: job -> the ends of its attempts."""
        (self.folder / "faults").mkdir(exist_ok=True)
        for job, ends in faults.items():
            (self.folder / "faults" / job).write_text(ends)

    def run(self, *options: str, profile: str = "profiles/cluster-generic") -> tuple[int, str]:
        """Run Snakemake; return its exit status and what it said."""
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(
            [ROOT / ".envs/host/bin/snakemake", "--workflow-profile", profile, *options],
            cwd=self.folder,
            env=environment | {"PATH": f"{self.folder / 'bin'}:{environment['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def asked(self, option: str) -> list[str]:
        """Return what each submission asked for, in order."""
        lines = (self.folder / "scheduler/asked").read_text().splitlines()
        return [found[1] for line in lines for found in re.finditer(rf"--{option}=(\S+)", line)]

    def runs(self, job: str) -> int:
        """Return how often a job was run."""
        file = self.folder / "runs" / job
        return len(file.read_text().split()) if file.exists() else 0


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Cluster:
    return Cluster(tmp_path)


def test_jobs_that_share_a_submission_ask_for_the_largest_and_run_once(cluster: Cluster) -> None:
    status, said = cluster.run()
    assert status == 0, said
    assert cluster.asked("job-name") == ["parts", "gather"]
    assert cluster.asked("mem") == ["100M", "100M"]
    assert cluster.asked("cpus-per-task") == ["1", "2"]
    assert cluster.asked("time") == ["40", "30"]  # 30 minutes, and the 10 that a share takes
    assert (cluster.folder / "runs/part0").read_text() == "1 "  # SPECIATE_CORES
    assert [cluster.runs(job) for job in ("part0", "part1", "part2", "gather")] == [1, 1, 1, 1]


@pytest.mark.slow
def test_each_job_has_its_own_submission_where_the_profile_says_so(cluster: Cluster) -> None:
    status, said = cluster.run("--resources", "share_minutes=0")
    assert status == 0, said
    assert sorted(cluster.asked("job-name")) == ["gather", "part.0", "part.1", "part.2"]


def test_limits_are_those_of_one_job_and_not_of_all_that_run_at_a_time(cluster: Cluster) -> None:
    status, said = cluster.run("--resources", "share_minutes=0", "runtime=40", "mem_mb=100")
    assert status == 0, said
    assert "Execute 3 jobs..." in said


def test_only_a_kill_for_lack_of_memory_asks_for_more_and_no_more_than_a_node_has(cluster: Cluster) -> None:
    cluster.fail(gather="memory time0 memory memory")
    status, said = cluster.run("--retries", "3")
    # 100, doubled, the same after a time limit, and 400 is more than the largest node has
    assert cluster.asked("mem")[1:] == ["100M", "200M", "200M", "300M"]
    assert status == 1
    assert "gather (log: logs/gather.log)" in said
    assert "it was killed for lack of memory; it had 300 MB, and no job may ask for more" in said


def test_a_training_goes_on_as_long_as_it_gets_further(cluster: Cluster) -> None:
    cluster.fail(gather="time1 time3 time5 time6")
    status, said = cluster.run("--retries", "1")
    assert status == 0, said
    assert cluster.runs("gather") == 5
    assert set(cluster.asked("mem")) == {"100M"} and set(cluster.asked("time")[1:]) == {"30"}


@pytest.mark.slow
def test_one_that_does_not_get_further_ends(cluster: Cluster) -> None:
    cluster.fail(gather="time3 time3 time3 time3 time3")
    status, said = cluster.run("--retries", "1")
    assert status == 1
    assert cluster.runs("gather") == 3  # the first got as far as step 3, two others no further
    assert "it reached its time limit" in said


def test_a_kill_on_this_machine_is_told_by_its_exit_status(cluster: Cluster) -> None:
    cluster.fail(part0="memory")
    status, said = cluster.run("--cores", "1", "--", "out/0", profile="none")
    assert status == 1
    assert said.splitlines()[-2:] == ["part 0 (log: logs/part/0.log)", "it was killed for lack of memory"]


def test_a_stage_that_has_ended_well_is_not_run_again_for_the_sake_of_what_started_it(cluster: Cluster) -> None:
    (cluster.folder / "late").touch()  # every job ends with an error after its stages
    status, said = cluster.run()
    assert status == 0, said
    assert [cluster.runs(job) for job in ("part0", "part1", "part2", "gather")] == [1, 1, 1, 1]
    assert "failed:" not in said


def test_what_ended_well_in_a_share_that_failed_stays(cluster: Cluster) -> None:
    cluster.fail(part1="memory")
    status, said = cluster.run()
    assert status == 0, said
    assert [cluster.runs(job) for job in ("part0", "part1", "part2", "gather")] == [1, 2, 1, 1]
    assert cluster.asked("mem") == ["100M", "200M", "100M"]


def test_what_ended_well_in_a_share_that_is_given_up_stays_too(cluster: Cluster) -> None:
    cluster.fail(part1="error")
    status, said = cluster.run()
    assert status == 1
    last = ["part 1 (log: logs/part/1.log)", "speciate part: error: there is no such file"]
    assert said.splitlines()[-4:] == ["1 job failed:", "", *last] and "Traceback" not in said
    assert cluster.asked("job-name") == ["parts"]  # an error that would only come again is not tried again
    assert [(cluster.folder / "out" / name).exists() for name in "012"] == [True, False, True]
    status, said = cluster.run()
    assert status == 0, said
    assert [cluster.runs(job) for job in ("part0", "part1", "part2", "gather")] == [1, 2, 1, 1]


def test_the_properties_that_name_a_job_are_those_of_snakemake(cluster: Cluster) -> None:
    submit = ROOT / "profiles/cluster-generic/submit.py"
    properties = {"type": "single", "rule": "train", "wildcards": {"ablation": "dense", "seed": "0"}, "threads": 4}
    script = cluster.folder / "job.sh"
    script.write_text(
        f"#!/bin/sh\n# properties = {json.dumps(properties | {'resources': {'mem_mb': 7, 'gpu': 2}})}\nexit 3\n"
    )
    environment = {**os.environ, "PATH": f"{cluster.folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([submit, script], cwd=cluster.folder, env=environment, capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
    assert cluster.asked("job-name") == ["train.dense.0"]
    asked = (cluster.asked(option) for option in ("cpus-per-task", "mem", "time", "gpus"))
    assert [each[0] for each in asked] == ["4", "7M", "60", "2"]
    status = [ROOT / "profiles/cluster-generic/status.py", "1"]
    (cluster.folder / "bin/squeue").write_text(
        "#!/bin/sh\necho slurm_load_jobs error: Invalid job id specified >&2; exit 1\n"
    )
    for end, word in (("3", "failed"), ("0", "success")):
        (cluster.folder / ".snakemake/cluster_logs/1.end").write_text(f"{end}\n")
        done = subprocess.run(status, cwd=cluster.folder, env=environment, capture_output=True, text=True)
        assert done.stdout == f"{word}\n"
