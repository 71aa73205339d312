"""Test what Slurm's jobs are called, and how the plugin looks after them."""

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from slurm_jobs import PATIENCE, Looks, comment_of, name_of, own_jobs
from tests.workflow.conftest import ROOT


def job(rule: str, **wildcards: str) -> Any:
    return SimpleNamespace(rule=SimpleNamespace(name=rule), wildcards=wildcards)


def share(groupid: str, *jobs: Any) -> Any:
    return SimpleNamespace(groupid=groupid, jobs=jobs)


RUNS = [
    job(rule, ablation=ablation, seed="0")
    for ablation in ("top1", "dense")
    for rule in ("measure", "train", "evaluate")
]


@pytest.mark.parametrize(
    ("submitted", "name"),
    [
        (job("train", ablation="dense", seed="0"), "train.dense.0"),
        (job("clean", name="code", key="0123456789", shard="1-of-4"), "clean.code.1-of-4"),
        (job("compare"), "compare"),
        (job("fetch", name="a b'c", key="0", shard="0-of-1"), "fetch.a_b_c.0-of-1"),
        (share("runs0_0", *RUNS), "train.dense.0+1"),
        (share("evaluations0_0", *RUNS[:3:2]), "evaluate.top1.0"),
        (share("data", job("fit"), job("pack", name="code", key="0")), "data.2-jobs"),
        (share("report", job("compare")), "compare"),
    ],
)
def test_a_jobs_name_says_what_it_does(submitted: Any, name: str) -> None:
    assert name_of(submitted) == name


def test_a_comment_names_every_member_of_a_share() -> None:
    assert comment_of(share("runs0_0", *RUNS[:3]), "smoke") == "smoke: evaluate top1 0, measure top1 0, train top1 0"
    assert len(comment_of(share("data", *(job("draw", figure=f"figure{n}") for n in range(50))), "smoke")) == 200


def test_a_job_of_which_slurm_tells_no_more_has_ended() -> None:
    looks = Looks()
    states = {"1": "RUNNING", "2": "PREEMPTED", "3": "COMPLETED"}
    for _ in range(PATIENCE - 1):
        assert looks.ended(states, ["1", "2", "3", "4"]) == states
    assert looks.ended(states, ["1", "2", "3", "4"]) == {**states, "2": "CANCELLED", "4": "UNKNOWN"}
    looks = Looks()
    for state in ("PREEMPTED", "PENDING", "PREEMPTED", "PREEMPTED"):  # preempted, requeued, and preempted again
        assert looks.ended({"2": state}, ["2"]) == {"2": state}


def test_the_installed_plugin_takes_names_accounts_and_pauses() -> None:
    # in the environment of Snakemake, which has the plugin
    code = """
import json, sys
from types import SimpleNamespace
sys.path[:0] = ["workflow", "src"]
import snakemake_executor_plugin_slurm as plugin
import slurm_jobs
slurm_jobs.name_jobs(plugin, "smoke")
slurm_jobs.look_often(plugin, 20)
def no_sacctmgr(account, logger):
    raise FileNotFoundError("sacctmgr")
plugin.validate_account = no_sacctmgr
slurm_jobs.charge_default_account(plugin)
class Resources(dict):
    __getattr__ = dict.get
job = SimpleNamespace(rule=SimpleNamespace(name="train"), wildcards={"ablation": "dense", "seed": "0"}, threads=1,
                      resources=Resources(mem_mb=3000, runtime=120))
params = {"run_uuid": "an-id", "slurm_logfile": "l", "comment_str": "c", "account": "", "partition": "",
          "workdir": None}
executor = plugin.Executor.__new__(plugin.Executor)
executor.logger = None
pauses = []
for pause in (5, 40, 180):
    executor.next_seconds_between_status_checks = pause
    pauses.append(executor.next_seconds_between_status_checks)
charged = SimpleNamespace(resources=Resources(slurm_account="mine"))
print(json.dumps({
    "submit": plugin.get_submit_command(job, params, settings=None, failed_nodes=None),
    "squeue": plugin.query_job_status_squeue("an-id"), "sacct": plugin.query_job_status_sacct("an-id"),
    "pauses": pauses,
    "accounts": [*executor.get_account_arg(job), *executor.get_account_arg(charged)],
}))
"""
    python = ROOT / ".envs/host/bin/python"
    done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "--job-name train.dense.0 " in said["submit"] and "--comment 'smoke: train dense 0'" in said["submit"]
    for query in ("squeue", "sacct"):
        assert "--name" not in said[query] and "an-id" not in said[query] and "--user " in said[query]
    assert said["pauses"] == [5, 20, 20]
    assert said["accounts"] == ["", " -A mine"]


def test_a_query_for_a_name_becomes_one_for_the_user() -> None:
    assert own_jobs("squeue --states=all --name abc").startswith("squeue --states=all --user ")
    assert own_jobs("squeue --name=abc --noheader").endswith(" --noheader")
