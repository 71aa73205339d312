"""Test what the profiles say, and the manifests that Kubernetes gets."""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.workflow.conftest import ROOT

PROFILES = {file.parent.name: yaml.safe_load(file.read_text()) for file in (ROOT / "profiles").glob("*/config.yaml")}
CLUSTERS = sorted(name for name, profile in PROFILES.items() if "executor" in profile)
KUBERNETES = ROOT / "profiles/kubernetes"


def script(name: str) -> ModuleType:
    """Load a script of the profile for Kubernetes."""
    spec = importlib.util.spec_from_file_location(f"kubernetes_{name}", KUBERNETES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_profiles_are_those_that_their_page_lists() -> None:
    page = (ROOT / "profiles/README.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(PROFILES)
    assert set(PROFILES) == {
        *("default", "container", "slurm", "slurm-container", "slurm-gpu", "cluster-generic", "kubernetes")
    }


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_clusters_profile_limits_what_a_job_asks_for(name: str) -> None:
    profile = PROFILES[name]
    assert profile["cores"] > 1 and profile["jobs"] >= 1
    assert {"share_minutes", "runtime"} <= set(profile["resources"])
    assert profile["retries"] == 2 and profile["keep-going"] and profile["rerun-incomplete"]


@pytest.mark.parametrize("name", ["slurm", "slurm-container", "slurm-gpu"])
def test_the_profiles_for_slurm_differ_in_what_they_are_for(name: str) -> None:
    own = {
        "slurm": set(),
        "slurm-container": {"software-deployment-method", "apptainer-args"},
        "slurm-gpu": {"set-resources"},
    }[name]
    profile, slurm = PROFILES[name], PROFILES["slurm"]
    assert {key for key in profile if profile[key] != slurm.get(key)} == own
    assert set(slurm) <= set(profile)
    assert profile["slurm-status-command"] == "squeue"
    # the default MinJobAge of Slurm is 300 s
    pauses = profile["slurm-init-seconds-before-status-checks"], profile["seconds-between-status-checks"]
    assert 3 * max(pauses) <= 300
    assert "--signal=USR1@" in profile["default-resources"]["slurm_extra"]


def test_no_rule_asks_for_more_at_another_attempt() -> None:
    for file in (ROOT / "workflow").rglob("*.smk"):
        assert not re.search(r"lambda[^:]*\battempt\b", file.read_text()), file


def submitted(folder: pathlib.Path, **properties: Any) -> dict[str, Any]:
    """Return the manifest that the profile would send for a job script of Snakemake."""
    jobscript = folder / "snakejob.train.7.sh"
    jobscript.write_text(f"#!/bin/sh\n# properties = {json.dumps(properties)}\nsnakemake --target-jobs train:\n")
    words = PROFILES["kubernetes"]["cluster-generic-submit-cmd"].split()
    done = subprocess.run(
        [sys.executable, ROOT / words[0], *words[1:], "--dry-run", jobscript],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert isinstance(manifest, dict)
    return manifest


def test_the_manifest_asks_for_what_the_job_asks_for(tmp_path: pathlib.Path) -> None:
    job = submitted(
        tmp_path,
        rule="train",
        wildcards={"ablation": "unbalanced_fast", "seed": "0"},
        threads=4,
        resources={"mem_mb": 3000, "runtime": 120, "gpu": 2},
    )
    assert (job["apiVersion"], job["kind"], job["metadata"]["namespace"]) == ("batch/v1", "Job", "default")
    # what Kubernetes takes as a name (RFC 1123)
    assert re.fullmatch(r"train-unbalanced-fast-0-[0-9a-f]{10}", job["metadata"]["name"])
    assert job["spec"]["backoffLimit"] == 0 and job["spec"]["activeDeadlineSeconds"] == 7200
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 60
    (container,) = pod["containers"]
    needs = {"cpu": "4", "memory": "3000M", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"requests": needs, "limits": needs}
    assert container["workingDir"] == str(tmp_path)
    assert container["env"] == [{"name": "SPECIATE_CORES", "value": "4"}]
    (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
    assert volume["persistentVolumeClaim"] == {"claimName": "speciate"} and mount["mountPath"] == "/study"
    assert volume["name"] == mount["name"]
    assert container["image"].startswith("registry.example.org/speciate@sha256:")


def test_a_share_without_a_gpu_and_a_long_name(tmp_path: pathlib.Path) -> None:
    job = submitted(
        tmp_path, type="group", groupid="runs0_0", threads=1, resources={"mem_mb": 5, "runtime": 1, "gpu": 0}
    )
    assert job["metadata"]["name"].startswith("runs0-0-")
    assert set(job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}
    name = submitted(tmp_path, rule="draw", wildcards={"figure": "x" * 200})["metadata"]["name"]
    assert len(name) <= 63 and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)


def test_the_first_process_of_a_container_passes_the_signal_on(tmp_path: pathlib.Path) -> None:
    # `kill -1` reaches every process of the container; here, of this test's own job alone
    child = tmp_path / "child.sh"
    child.write_text('trap "echo saved; exit 75" TERM\necho ready\nwhile :; do sleep 0.1; done\n')
    command = script("submit").COMMAND.format(script=child).replace("kill -TERM -1", "kill -TERM $job")
    process = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    while process.poll() is None:  # the first may come before the shell waits
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    assert process.returncode == 75
    assert process.stdout.read().startswith("saved\n")
    process.stdout.close()


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (None, "running"),  # the API server does not answer
        ({"missing": True}, "failed"),
        ({"status": {"active": 1}}, "running"),
        ({"status": {}}, "running"),
        ({"status": {"succeeded": 1}}, "success"),
        ({"status": {"failed": 1}}, "failed"),
    ],
)
def test_the_status_of_a_job(job: dict[str, Any] | None, status: str) -> None:
    assert script("status").status_of(job) == status


def test_why_a_pod_ended_is_noted_where_the_workflow_reads_it(tmp_path: pathlib.Path) -> None:
    answers = {
        "job": {"status": {"failed": 1, "conditions": [{"reason": "BackoffLimitExceeded"}]}},
        "pods": {
            "items": [
                {"status": {"containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}}
            ]
        },
    }
    for kind, answer in answers.items():
        (tmp_path / f"{kind}.json").write_text(json.dumps(answer))
    (tmp_path / "kubectl").write_text('#!/bin/sh\necho "$@" >> asked\ncat $2.json\n')
    (tmp_path / "kubectl").chmod(0o755)
    done = subprocess.run(
        [sys.executable, KUBERNETES / "status.py", "default/train-dense-0-12ab"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "failed\n", done.stderr
    (log,) = (tmp_path / ".snakemake/cluster_logs").glob("*-train-dense-0-12ab.log")
    assert "OOMKilled, exit code 137" in log.read_text()
    assert (tmp_path / "asked").read_text().splitlines()[1].endswith("--selector job-name=train-dense-0-12ab -o json")


def test_the_options_are_required() -> None:
    options = argparse.Namespace(claim="study:/mnt", image="image@sha256:1", namespace="mine")
    job = script("submit").manifest({"rule": "compare"}, pathlib.Path("/mnt/job.sh"), options)
    assert job["metadata"]["namespace"] == "mine"
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "2000M"}
