"""Test that an image's bytes depend on its content alone, and that only the pinned image is accepted."""

import argparse
import hashlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
from collections import namedtuple

import pytest
import yaml
from containers import image, images, pack, pull, sif
from containers.debian import Failed
from envs import build as environments
from tests.containers.small import served

ROOT = pathlib.Path(__file__).parents[2]
CONTENT = b"an image" * 1000


def test_the_pinned_images_were_made_of_the_locks_that_are_there() -> None:
    pins = yaml.safe_load(images.LOCK.read_text())
    assert "study" in pins
    for name, pinned in pins.items():
        assert pinned["inputs"] == images.inputs(name), f"the locks have changed: `make image ARGS='{name} --update'`"
        assert pinned["requirements"] == environments.requirements_digest(f"{name}.lock")
        assert set(pinned["inputs"]) == {"containers/debian.lock", *images.LOCKS[name]}


def test_a_comment_in_a_lock_asks_for_no_new_image_and_a_pin_does(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("containers/debian.lock", "envs/torch-cpu.lock", "envs/study.lock"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / path, tmp_path / path)
    before = images.inputs("study")
    monkeypatch.setattr(images, "ROOT", tmp_path)
    monkeypatch.setattr(images, "DEBIAN", tmp_path / "containers/debian.lock")
    lock, debian_lock = tmp_path / "envs/study.lock", tmp_path / "containers/debian.lock"
    lock.write_text("# a remark\n" + lock.read_text().replace("    # via", "    # through"))
    debian_lock.write_text(debian_lock.read_text().replace("time 2026", "time 2027"))
    assert images.inputs("study") == before
    lock.write_text(lock.read_text().replace("scipy==1.17.1", "scipy==1.17.2"))
    now = images.inputs("study")
    assert [path for path in now if now[path] != before[path]] == ["envs/study.lock"]


class Sink:
    """Take bytes."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def tree_of(folder: pathlib.Path, files: list[str], mode: int, time: int) -> pathlib.Path:
    """Write files in the given order, with these permissions and times."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
        (folder / name).chmod(mode)
        os.utime(folder / name, (time, time))
    (folder / "link").symlink_to("a/one")
    return folder


def tar_of(tree: pathlib.Path) -> str:
    stream = pack.Digested(Sink())  # type: ignore[arg-type]
    pack.write_tar(tree, stream)
    return stream.sha256.hexdigest()


def test_the_same_files_pack_alike_whatever_their_order_times_and_umask(tmp_path: pathlib.Path) -> None:
    files = ["a/one", "a/two", "b/three"]
    first = tree_of(tmp_path / "first", files, 0o644, 10**9)
    second = tree_of(tmp_path / "second", files[::-1], 0o600, 10**9 + 1)
    (second / "a").chmod(0o700)
    assert tar_of(first) == tar_of(second)
    (second / "a/one").chmod(0o700)
    assert tar_of(first) != tar_of(second)


def test_a_sif_file_holds_one_system_partition_and_nothing_that_varies(tmp_path: pathlib.Path) -> None:
    """Offsets are those of github.com/apptainer/sif: a header of 128 bytes, descriptors of 585."""
    (tmp_path / "image.sqfs").write_bytes(CONTENT)
    for name in ("one.sif", "two.sif"):
        sif.wrap(tmp_path / "image.sqfs", tmp_path / name)
    made = (tmp_path / "one.sif").read_bytes()
    assert made == (tmp_path / "two.sif").read_bytes()
    assert made[32:47] == b"SIF_MAGIC\x0001\x0002"[:15]
    free, total, table, _, data, size = struct.unpack_from("<6q", made, 80)
    assert (free, total, size) == (total - 1, total, len(CONTENT))
    kind, used = struct.unpack_from("<i?", made, table)
    offset, length = struct.unpack_from("<2q", made, table + 17)
    assert (kind, used, offset, length) == (0x4004, True, data, len(CONTENT)) and offset % 4096 == 0
    assert struct.unpack_from("<ii", made, table + 201) == (1, 2)
    assert made[offset:] == CONTENT
    if shutil.which("apptainer"):
        listed = subprocess.run(["apptainer", "sif", "list", tmp_path / "one.sif"], capture_output=True, text=True)
        assert "FS (Squashfs/*System/amd64)" in listed.stdout


@pytest.fixture
def pinned(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> images.Image:
    """Pin a small file as the image `study`, in a folder of its own."""
    monkeypatch.setattr(images, "ROOT", tmp_path)
    monkeypatch.setattr(images, "LOCK", tmp_path / "images.lock.yaml")
    monkeypatch.setattr(images, "inputs", lambda name: {"some.lock": "00"})
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    facts = {"file": ".envs/images/study-x.sif", "sha256": sha256, "bytes": len(CONTENT), "tar_sha256": ""}
    images.write("study", facts | {"inputs": {"some.lock": "00"}})
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "right.sif").write_bytes(CONTENT)
    (tmp_path / "served" / "other.sif").write_bytes(CONTENT[::-1])
    (tmp_path / "served" / "short.sif").write_bytes(CONTENT[:-1])
    (tmp_path / "served" / "long.sif").write_bytes(CONTENT + bytes(3 << 20))
    return images.read("study")


def asked(**options: object) -> argparse.Namespace:
    """Return a command line of the image's builder."""
    defaults = {"name": "study", "update": False, "upgrade": False, "pull": None, "mirror": None, "tree": None}
    return argparse.Namespace(**{**defaults, **options})


def left(root: pathlib.Path) -> list[str]:
    """Return what lies in the folder of images."""
    return sorted(path.name for path in (root / images.FOLDER).iterdir() if path.name != ".lock")


def test_a_pulled_image_is_kept_only_if_it_is_the_pinned_one(pinned: images.Image, tmp_path: pathlib.Path) -> None:
    with served(tmp_path / "served") as url:
        for name in ("other.sif", "short.sif"):
            with pytest.raises(Failed) as raised:
                image.make(asked(pull=f"{url}/{name}"))
            found = hashlib.sha256((tmp_path / "served" / name).read_bytes()).hexdigest()
            assert found in str(raised.value) and pinned.pinned["sha256"] in str(raised.value)
            assert left(tmp_path) == []
        with pytest.raises(Failed, match=r"long\.sif: is longer"):
            image.make(asked(pull=f"{url}/long.sif"))
        with pytest.raises(Failed, match=r"absent\.sif: .*File not found|absent\.sif: Not Found"):
            image.make(asked(pull=f"{url}/absent.sif"))
        assert left(tmp_path) == []
        image.make(asked(pull=f"{url}/right.sif"))
    assert left(tmp_path) == ["study-x.sif"]
    assert pinned.file.read_bytes() == CONTENT and pinned.file.stat().st_mode & 0o777 == 0o444


def test_an_image_that_is_there_is_checked_and_not_made_again(pinned: images.Image, tmp_path: pathlib.Path) -> None:
    pinned.file.parent.mkdir(parents=True)
    pinned.file.write_bytes(CONTENT)
    image.make(asked())
    assert left(tmp_path) == ["study-x.sif"]
    pinned.file.write_bytes(CONTENT[::-1])
    with pytest.raises(Failed) as raised:
        image.make(asked())
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in str(raised.value)
    assert pinned.pinned["sha256"] in str(raised.value)


def building(content: bytes) -> object:
    """Return a build that makes these bytes."""

    def build(name: str, work: pathlib.Path, mirrors: list[str]) -> tuple[pathlib.Path, dict[str, object]]:
        (work / "image.sif").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        facts = {"file": f".envs/images/study-{sha256[:4]}.sif", "sha256": sha256, "tar_sha256": "1"}
        return work / "image.sif", facts | {"inputs": {"some.lock": "00"}}

    return build


def test_other_bytes_than_the_pinned_are_refused_and_pinned_only_when_asked(
    pinned: images.Image, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "build", building(b"other"))
    monkeypatch.setitem(images.SPACE, "study", 0.0)
    before = images.LOCK.read_bytes()
    with pytest.raises(Failed) as raised:
        image.make(asked())
    assert hashlib.sha256(b"other").hexdigest() in str(raised.value)
    assert pinned.pinned["sha256"] in str(raised.value) and left(tmp_path) == []
    assert images.LOCK.read_bytes() == before
    image.make(asked(update=True))
    assert images.read("study").pinned["sha256"] == hashlib.sha256(b"other").hexdigest()
    assert images.read("study").file.read_bytes() == b"other"


def test_changed_locks_are_refused_before_anything_is_fetched(
    pinned: images.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "inputs", lambda name: {"some.lock": "11"})
    with pytest.raises(Failed, match=r"some\.lock: changed since"):
        image.make(asked())
    with pytest.raises(Failed, match="pins no image study-cuda"):
        image.make(asked(name="study-cuda"))


def test_a_machine_that_cannot_build_is_refused_at_once(
    pinned: images.Image, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "build", lambda *_: pytest.fail("it began to build"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**9))
    with pytest.raises(Failed, match=r"1\.0 GB are free, and building the image takes 3\.5 GB"):
        image.make(asked())
    monkeypatch.setattr(image.platform, "machine", lambda: "aarch64")
    with pytest.raises(Failed, match="Linux on aarch64"):
        image.make(asked())
    assert left(tmp_path) == []


def test_no_network_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    from containers import debian

    monkeypatch.setattr(debian, "SNAPSHOT", "http://127.0.0.1:9/snapshot")
    with pytest.raises(Failed, match=r"no archive of Debian is in reach\n  http://127.0.0.1:9/debian/\S+: .*refused"):
        image.check_network(debian.read_lock(ROOT / "containers/debian.lock"), ["http://127.0.0.1:9"])


def test_a_stopped_build_leaves_nothing(tmp_path: pathlib.Path) -> None:
    lines = (
        "import pathlib, time\nfrom containers import image\n"
        f"with image.workplace(pathlib.Path({str(tmp_path)!r})) as work:\n"
        "    (work / 'half').write_text('x')\n    print(work, flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", lines], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout and pathlib.Path(process.stdout.readline().strip(), "half").exists()
    second = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "another `make image` works" in second.stderr
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    process.stdout.close()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".building-killed").mkdir()
    (tmp_path / ".building-killed" / "half").write_text("x")
    with image.workplace(tmp_path) as work:
        assert [path.name for path in tmp_path.glob(".building-*")] == [work.name]
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_registry_needs_apptainer(
    pinned: images.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="oras://x/y:1: needs Apptainer"):
        pull.fetch("oras://x/y:1", tmp_path, pinned.pinned)
