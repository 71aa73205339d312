"""Test the profile for Kubernetes: what it plans, the manifests that it sends, and what their commands make."""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping

import pytest
import yaml
from tests.cluster.clone import Clone

pytestmark = pytest.mark.cluster
PROFILE = ("--workflow-profile", "profiles/kubernetes", "--seconds-between-status-checks", "2")
RUN = "results/tiny/runs/arm/seed0/"
UNNAMED = "registry.example.org/speciate@sha256:" + "0" * 64
THREADS, MEMORY, MINUTES = 1, 3000, 120
"""What the rule `train` asks for."""


def standing_in(clone: Clone) -> pathlib.Path:
    """Let the clone find a kubectl that runs Jobs here; return the folder with their manifests."""
    folder = clone.folder / "kubectl"
    folder.mkdir()
    shutil.copy(pathlib.Path(__file__).with_name("kubectl.py"), folder / "kubectl")
    (folder / "kubectl").chmod(0o755)
    # the profile names no image until a user writes one into it, and is refused
    profile = clone.folder / "profiles/kubernetes/config.yaml"
    text = profile.read_text()
    assert UNNAMED in text
    text = text.replace(UNNAMED, "registry.test/speciate@sha256:" + "1" * 64)
    profile.write_text(text.replace("speciate:/study", f"speciate:{clone.folder.parent}"))
    clone.extra = {"PATH": f"{folder}:{os.environ['PATH']}", "KUBECTL_FOLDER": str(folder)}
    return folder


def test_a_dry_run_plans_every_job_and_sends_none(work: pathlib.Path) -> None:
    clone = Clone.make(work / "kubernetes-planned")
    folder = standing_in(clone)
    said = clone.run(*PROFILE, "--dry-run")
    assert re.search(r"^train +1$", said, re.MULTILINE) and re.search(r"^report +1$", said, re.MULTILINE)
    assert not list(folder.glob("*.json")) and not (clone.folder / "results").exists()


def test_manifests_ask_for_what_the_rules_say_and_their_commands_make_the_run(
    tiny: Clone, work: pathlib.Path, expected: Mapping[str, str]
) -> None:
    clone = tiny.copy(work / "kubernetes")
    folder = standing_in(clone)
    clone.run(*PROFILE, targets=(f"{RUN}likelihood.parquet",))
    made = {file: digest for file, digest in clone.digests().items() if file.startswith(RUN)}
    assert made == {file: expected[file] for file in made} and len(made) >= 8

    jobs = {job["metadata"]["name"]: job for job in map(json.loads, (f.read_text() for f in folder.glob("*.json")))}
    (name,) = (name for name in jobs if name.startswith("train-arm-0-"))
    assert len(jobs) == 2 and all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", each) for each in jobs)
    profile = yaml.safe_load((clone.folder / "profiles/kubernetes/config.yaml").read_text())
    words = profile["cluster-generic-submit-cmd"].split()
    given = dict(zip(words[1::2], words[2::2], strict=True))
    claim, _, path = given["--claim"].partition(":")
    job = jobs[name]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["metadata"]["namespace"] == given["--namespace"]
    assert job["spec"]["backoffLimit"] == 0  # another attempt is Snakemake's
    assert job["spec"]["activeDeadlineSeconds"] == 60 * MINUTES
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert re.fullmatch(r"[^@]+@sha256:[0-9a-f]{64}", container["image"]) and container["image"] == given["--image"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim}
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": path}]
    asked = {"cpu": str(THREADS), "memory": f"{MEMORY}M"}
    assert container["resources"] == {"requests": asked, "limits": asked}
    assert container["workingDir"] == str(clone.folder)
