"""Test what the profile for Kubernetes would run, and the manifests that it sends."""

import os
import pathlib
import re
import signal
import subprocess
from collections.abc import Mapping

import pytest
import yaml
from tests.cluster.clone import ROOT, Clone, until
from tests.cluster.kubernetes import serve

pytestmark = pytest.mark.cluster
PLUGIN = ("snakemake-executor-plugin-kubernetes==0.5.1", "kubernetes<33")
PROFILE = ("--workflow-profile", "profiles/kubernetes")
FETCHES = 2
"""Jobs of the tiny study that can begin at once."""


@pytest.fixture(scope="module")
def plugin() -> Mapping[str, str]:
    """Return the environment in which Snakemake finds its plugin for Kubernetes, which only this profile needs."""
    host = [ROOT / ".envs/host/bin/python", "-c", "import snakemake_executor_plugin_kubernetes"]
    if subprocess.run(host, capture_output=True, check=False).returncode == 0:
        return {}
    folder = ROOT / ".cache/cluster/kubernetes"
    if not (folder / "kubernetes").is_dir():
        pip = [ROOT / ".envs/study/bin/python", "-m", "pip", "install", "-q", "--target", folder]
        for options in (("--no-deps", PLUGIN[0]), (PLUGIN[1],)):
            done = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"Snakemake's plugin for Kubernetes: {done.stderr}"
    return {"PYTHONPATH": str(folder)}


def test_a_dry_run_plans_every_job(plugin: Mapping[str, str], work: pathlib.Path) -> None:
    clone = Clone.make(work / "kubernetes-planned")
    clone.extra = dict(plugin)
    said = clone.run(*PROFILE, "--dry-run")
    assert re.search(r"^train +1$", said, re.MULTILINE) and re.search(r"^report +1$", said, re.MULTILINE)
    assert not (clone.folder / "results").exists()


def test_manifests_ask_for_what_the_rules_say(plugin: Mapping[str, str], work: pathlib.Path) -> None:
    clone = Clone.make(work / "kubernetes-sent")
    profile = yaml.safe_load((clone.folder / "profiles/kubernetes/config.yaml").read_text())
    with serve(clone.folder) as server:
        clone.extra = {**plugin, "KUBECONFIG": str(server.config)}
        process = clone.start(*PROFILE)

        def sent() -> bool:
            assert process.poll() is None, clone.said()
            return len(server.manifests["jobs"]) >= FETCHES

        until("the first manifests", sent)
        os.kill(process.pid, signal.SIGINT)
        process.wait(120)
    jobs = server.manifests["jobs"]
    assert {job["metadata"]["name"] for job in jobs} <= set(server.deleted)  # nothing is left behind
    for job in jobs:
        assert job["kind"] == "Job" if "kind" in job else True
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert job["spec"]["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"  # retries are Snakemake's
        assert container["image"] == profile["container-image"]
        assert container["resources"]["requests"]["cpu"] == "950m"
        assert container["resources"]["requests"]["memory"] == "1000M"
        (command,) = container["args"][1:]
        assert re.search(r"--target-jobs '?fetch:name=", command)
        assert "frozen_tree=results/source/" in command
        volumes = {name for name in (each["name"] for each in container["volumeMounts"]) if name != "workdir"}
        assert volumes == {each.split(":")[0] for each in profile["kubernetes-persistent-volumes"]}
