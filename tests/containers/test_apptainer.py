"""Test images with a real Apptainer: a small one, packed, served, pulled and run here, and the pinned one if there.

Apptainer is taken from PATH, or brought by get_apptainer.sh. What is missing is said in the reason of a skipped test.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping

import pytest
from containers import debian, image, images, pack, pull, sif
from tests.bad_input.case import Place
from tests.bad_input.workflow import workspace
from tests.containers.small import served

ROOT = pathlib.Path(__file__).parents[2]
HELD = ("dash", "libc6", "coreutils", "libselinux1", "libpcre2-8-0", "libacl1", "libattr1", "libgmp10")
"""Enough of Debian for a shell."""
pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return an environment in which Apptainer is found."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    if shutil.which("apptainer"):
        return keep
    folder = tmp_path_factory.mktemp("tools") / "apptainer"
    script = pathlib.Path(__file__).with_name("get_apptainer.sh")
    done = subprocess.run([script, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no Apptainer here, and none can be brought: {done.stderr.strip()}")
    return keep | {"PATH": f"{folder}/usr/bin:{keep['PATH']}"}


def apptainer(environment: Mapping[str, str], *arguments: object) -> str:
    done = subprocess.run(
        ["apptainer", *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Pack a small image of pinned packages, with the pinned mksquashfs."""
    folder = tmp_path_factory.mktemp("image")
    lock = debian.read_lock(images.DEBIAN)
    bases = image.check_network(lock, [debian.MIRROR])
    for name, packages in (("tree", [each for each in lock.image if each.name in HELD]), ("tools", lock.tools)):
        debian.skeleton(folder / name)
        for package in packages:
            debian.unpack(debian.download(package, bases), folder / name)
    for name in ("hosts", "localtime", "resolv.conf", "passwd", "group"):
        (folder / "tree/etc" / name).touch()
    pack.squash(folder / "tree", folder / "tools", folder / "image.sqfs")
    sif.wrap(folder / "image.sqfs", folder / "served.sif")
    return folder / "served.sif"


@pytest.fixture(scope="module")
def server(small: pathlib.Path) -> Iterator[str]:
    with served(small.parent) as url:
        yield f"{url}/{small.name}"


def test_apptainer_pulls_the_very_bytes_and_runs_them(
    small: pathlib.Path, server: str, environment: Mapping[str, str], tmp_path: pathlib.Path
) -> None:
    apptainer(environment, "pull", "--disable-cache", tmp_path / "pulled.sif", server)
    assert (tmp_path / "pulled.sif").read_bytes() == small.read_bytes()
    said = apptainer(
        environment, "exec", "--cleanenv", tmp_path / "pulled.sif", "sh", "-c", "echo $((6 * 7)); ls -d /usr"
    )
    assert said.split() == ["42", "/usr"]


def test_the_pinned_mksquashfs_packs_the_same_bytes_again(small: pathlib.Path) -> None:
    pack.squash(small.parent / "tree", small.parent / "tools", small.parent / "again.sqfs")
    assert (small.parent / "again.sqfs").read_bytes() == (small.parent / "image.sqfs").read_bytes()


def test_a_pulled_image_is_compared_with_its_pin(small: pathlib.Path, server: str, tmp_path: pathlib.Path) -> None:
    pinned = {"bytes": small.stat().st_size, "sha256": hashlib.sha256(small.read_bytes()).hexdigest()}
    pull.fetch(server, tmp_path, pinned)
    assert (tmp_path / "image.sif").read_bytes() == small.read_bytes()
    with pytest.raises(debian.Failed, match=pinned["sha256"]):
        pull.fetch(server, tmp_path, pinned | {"sha256": "0" * 64})


def test_a_registry_keeps_the_very_bytes(
    small: pathlib.Path, environment: Mapping[str, str], tmp_path: pathlib.Path
) -> None:
    if not shutil.which("docker-registry"):
        pytest.skip("no registry here (apt-get install docker-registry)")
    address = "127.0.0.1:5765"
    settings = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\nhttp: {{addr: {address}}}\n"
    (tmp_path / "registry.yml").write_text(settings)
    with (tmp_path / "registry.log").open("w") as log:
        registry = subprocess.Popen(["docker-registry", "serve", tmp_path / "registry.yml"], stdout=log, stderr=log)
    try:
        subprocess.run(
            ["curl", "-sf", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", f"http://{address}/v2/"],
            check=True,
            capture_output=True,
        )
        apptainer(environment, "push", "--no-https", "-U", small, f"oras://{address}/speciate/small:1")
        apptainer(
            environment,
            "pull",
            "--no-https",
            "--disable-cache",
            tmp_path / "x.sif",
            f"oras://{address}/speciate/small:1",
        )
    finally:
        registry.terminate()
        registry.wait()
    assert (tmp_path / "x.sif").read_bytes() == small.read_bytes()


def test_rules_run_in_the_pinned_image_as_on_this_machine(
    environment: Mapping[str, str], tmp_path: pathlib.Path
) -> None:
    """Run the first data stages of a study of local files in both ways, and compare all that they wrote."""
    pinned = images.read("study")
    if not pinned.file.exists():
        pytest.skip(f"no {pinned.pinned['file']} here: `make image`")
    wrote = {}
    for name, options in (("host", ()), ("image", ("--workflow-profile", "profiles/container"))):
        place = Place(tmp_path / name, tmp_path, tmp_path)
        place.folder.mkdir()
        place.study()
        workspace(place)
        done = subprocess.run(
            [ROOT / ".envs/host/bin/snakemake", "--configfile", "study.yaml", "--cores", "1", *options, "--", "data"],
            cwd=place.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("Activating singularity image" in done.stderr + done.stdout) == (name == "image")
        data = place.folder / "results/data"
        wrote[name] = {
            str(file.relative_to(data)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(data.rglob("*"))
            if file.is_file() and file.relative_to(data).parts[0] not in ("logs", "benchmarks")
        }
    assert len(wrote["host"]) > 20
    assert wrote["image"] == wrote["host"]
