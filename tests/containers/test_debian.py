"""Test how Debian packages are chosen, fetched and unpacked."""

import hashlib
import pathlib
import shutil
import subprocess

import pytest
from containers import debian, debian_index, images
from containers.debian import Failed, Package
from tests.containers.small import deb, served

# from the Debian Policy Manual, 5.6.12, and from versions that Debian has published
ORDERED = [
    *(("~~", "~~a"), ("~~a", "~"), ("~", ""), ("", "a"), ("1.0~rc1", "1.0"), ("1.0", "1.0+b1"), ("1.9", "1.10")),
    *(("2.36-9+deb12u9", "2.36-9+deb12u14"), ("5.2.15-2+b9", "5.2.15-2+b13"), ("9.9", "1:0.1"), ("1.0-1", "1.0-1.1")),
    *(("1.0a", "1.0+"), ("3.0.15-1~deb12u1", "3.0.15-1"), ("1.2.13.dfsg-1", "1.2.13.dfsg-1+b1")),
]


@pytest.mark.parametrize(("older", "newer"), ORDERED)
def test_versions_are_ordered_as_debian_orders_them(older: str, newer: str) -> None:
    assert debian_index.compare_versions(older, newer) < 0 < debian_index.compare_versions(newer, older)
    assert debian_index.compare_versions(newer, newer) == 0
    if shutil.which("dpkg") and older and newer[:1].isdigit() and older[:1].isdigit():
        assert subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=False).returncode == 0


def test_the_lock_pins_every_package_once_and_survives_being_written(tmp_path: pathlib.Path) -> None:
    lock = debian.read_lock(images.DEBIAN)
    debian.write_lock(tmp_path / "again.lock", lock)
    assert (tmp_path / "again.lock").read_bytes() == images.DEBIAN.read_bytes()
    for packages in (lock.image, lock.tools):
        assert len({package.name for package in packages}) == len(packages)
        assert all(len(package.sha256) == 64 and package.size for package in packages)
    assert {"python3.11", "libc6", "bash", "git", "ca-certificates"} <= {package.name for package in lock.image}
    assert "squashfs-tools" in {package.name for package in lock.tools}


def test_a_damaged_lock_is_refused_by_its_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "debian.lock").write_text("time 20260101T000000Z\n[image]\na/b_1.deb 1 abc\n")
    with pytest.raises(Failed, match="line 3: is no package"):
        debian.read_lock(tmp_path / "debian.lock")


def test_needs_are_closed_over_and_a_provider_that_is_named_counts() -> None:
    def entry(name: str, depends: str = "", provides: str = "") -> dict[str, str]:
        facts = {"Package": name, "Version": "1", "Archive": "debian", "Filename": f"pool/{name}_1_all.deb"}
        return facts | {"SHA256": "0" * 64, "Size": "1", "Depends": depends, "Provides": provides}

    index = {
        entry["Package"]: entry
        for entry in (
            *(entry("a", "b (>= 1), c | d, awk"), entry("b", "e:any"), entry("c"), entry("d"), entry("e", "a")),
            *(entry("mawk", provides="awk"), entry("other")),
        )
    }
    assert [package.name for package in debian_index.close(["a", "mawk"], index)] == ["a", "b", "c", "e", "mawk"]
    assert [package.name for package in debian_index.close(["a", "d", "mawk"], index)] == ["a", "b", "d", "e", "mawk"]
    with pytest.raises(Failed, match="a needs awk"):
        debian_index.close(["a"], index)


def test_a_package_that_mirrors_dropped_comes_from_the_snapshot(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror has other bytes under the name, and the snapshot has the pinned ones below its time."""
    content = deb({"./usr/share/x": ("x", 0o644)})
    package = Package("debian/pool/tiny_1.0_all.deb", "1.0", hashlib.sha256(content).hexdigest(), len(content))
    lock = debian.Lock("20260102T030405Z", (package,), (package,))
    for place, held in (
        ("mirror/debian/pool", b"another build"),
        ("snapshot/debian/20260102T030405Z/pool", content),
        ("old/debian/20250101T000000Z/pool", content),
    ):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "tiny_1.0_all.deb").write_bytes(held)
    with served(tmp_path) as url:
        monkeypatch.setattr(debian, "SNAPSHOT", f"{url}/snapshot")
        assert debian.download(package, debian.places(lock, [f"{url}/mirror"])) == content
        monkeypatch.setattr(debian, "SNAPSHOT", f"{url}/old")
        with pytest.raises(Failed) as raised:
            debian.download(package, debian.places(lock, [f"{url}/mirror"]))
    assert hashlib.sha256(b"another build").hexdigest() in str(raised.value) and package.sha256 in str(raised.value)


def test_a_package_is_unpacked_below_usr_without_manuals_and_without_setuid(tmp_path: pathlib.Path) -> None:
    files = {
        "./bin/tool": ("#!/bin/sh\n", 0o4755),
        "./lib/x86_64-linux-gnu/libtiny.so.1": ("library", 0o600),
        "./usr/share/doc/tiny/copyright": ("licence", 0o644),
        "./usr/share/doc/tiny/changelog.gz": ("changes", 0o644),
        "./usr/share/man/man1/tool.1.gz": ("manual", 0o644),
    }
    debian.skeleton(tmp_path)
    record = debian.unpack(deb(files, {"./lib/x86_64-linux-gnu/libtiny.so": "libtiny.so.1"}), tmp_path)
    assert record.startswith("Package: tiny\n")
    assert (tmp_path / "bin").is_symlink()
    found = {str(path.relative_to(tmp_path)) for path in (tmp_path / "usr").rglob("*") if not path.is_dir()}
    libraries = "usr/lib/x86_64-linux-gnu"
    assert found == {
        *("usr/bin/tool", "usr/share/doc/tiny/copyright"),
        *(f"{libraries}/libtiny.so", f"{libraries}/libtiny.so.1"),
    }
    assert (tmp_path / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / libraries / "libtiny.so").read_text() == "library"
    assert (tmp_path / libraries / "libtiny.so.1").stat().st_mode & 0o7777 == 0o644
