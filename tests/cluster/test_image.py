"""Test that the rules have the same results inside the pinned image, and run in no other."""

import hashlib
import json
import pathlib
from collections.abc import Mapping

import pytest
import yaml
from tests.cluster.clone import ROOT, Clone

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("apptainer")]
PIN = yaml.safe_load((ROOT / "containers/images.lock.yaml").read_text())["study"]


def test_every_rule_has_the_same_results_in_the_image(work: pathlib.Path, expected: Mapping[str, str]) -> None:
    clone = Clone.make(work / "image")
    clone.run("--workflow-profile", "profiles/container", "--cores", "2")
    assert clone.digests() == expected
    job = json.loads((clone.home / "runs/arm/seed0/run.json").read_text())["job"]
    assert pathlib.Path(job["image"]).resolve() == (ROOT / PIN["file"]).resolve()


@pytest.mark.parametrize("profile", ["container", "slurm-container"])
def test_another_image_under_the_pinned_name_is_refused(
    profile: str, work: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    if profile == "slurm-container":
        request.getfixturevalue("slurm")
    clone = Clone.make(work / f"refused-{profile}")
    (clone.folder / ".envs").unlink()
    image = clone.folder / PIN["file"]
    image.parent.mkdir(parents=True)
    for name in ("host", "study"):
        (clone.folder / ".envs" / name).symlink_to(ROOT / ".envs" / name)
    with (ROOT / PIN["file"]).open("rb") as pinned:
        image.write_bytes(pinned.read(10**6))
    found = hashlib.sha256(image.read_bytes()).hexdigest()
    said = clone.refused("--workflow-profile", f"profiles/{profile}", "--cores", "2")
    assert f"has sha256 {found}, but containers/images.lock.yaml pins {PIN['sha256']}; no job was run" in said
    assert not (clone.folder / "results/data").exists()
