"""Test that a Debian package is read without installing it, and only if it is the pinned one."""

import bz2
import gzip
import hashlib
import io
import lzma
import pathlib
import shutil
import subprocess
import tarfile
from typing import Any

import pytest
import zstandard

from speciate.data.fetch.archive import Globs, read_members
from speciate.data.fetch.sources.debian import Options, fetch, read
from speciate.data.passage import Passage
from speciate.data.shard import Shard

TEXTS = {"./usr/share/doc/tiny/a.txt": b"one\n", "./usr/share/doc/tiny/b.txt.gz": gzip.compress(b"two"), "./x": b"?"}


def tar(texts: dict[str, bytes], link: str = "") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return sink.getvalue()


def deb(name: str, data: bytes) -> bytes:
    """Build a package as deb(5) describes: the version, a control member of odd size, the data."""
    parts = [(b"debian-binary", b"2.0\n"), (b"control.tar.gz", b"odd"), (name.encode(), data)]
    out = b"!<arch>\n"
    for member, content in parts:
        out += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (member, 0, 0, 0, b"100644", len(content))
        out += content + b"\n" * (len(content) % 2)
    return out


def put(path: pathlib.Path, data: bytes) -> Options:
    path.write_bytes(data)
    pin: dict[str, Any] = {"name": "tiny", "version": "1:1.0-1", "file": "tiny_1%3a1.0-1_all.deb"}
    pin |= {"sha256": hashlib.sha256(data).hexdigest(), "reader": "text", "include": ["usr/share/doc/*"]}
    return Options.model_validate({"kind": "debian", **pin})


PACKS: dict[str, Any] = {
    "data.tar": bytes,
    "data.tar.gz": gzip.compress,
    "data.tar.bz2": bz2.compress,
    "data.tar.xz": lzma.compress,
    "data.tar.zst": zstandard.compress,
}


@pytest.mark.parametrize("name", PACKS)
def test_texts_come_out_of_every_compression(tmp_path: pathlib.Path, name: str) -> None:
    options = put(tmp_path / "archive", deb(name, PACKS[name](tar(TEXTS))))
    a, b = "usr/share/doc/tiny/a.txt", "usr/share/doc/tiny/b.txt.gz"
    assert list(read(options, "d", tmp_path / "archive")) == [Passage(a, None, "one\n"), Passage(b, None, "two")]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_package_that_dpkg_builds_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "p" / "DEBIAN").mkdir(parents=True)
    (tmp_path / "p" / "DEBIAN" / "control").write_text(
        "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"
    )
    (tmp_path / "p" / "note.txt").write_text("built\n")
    (tmp_path / "p" / "DEBIAN").chmod(0o755)
    subprocess.run(
        ["dpkg-deb", "--build", str(tmp_path / "p"), str(tmp_path / "a.deb")], check=True, capture_output=True
    )
    assert list(read_members(tmp_path / "a.deb", "d", Globs(["*"]))) == [("note.txt", b"built\n")]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (deb("data.tar", tar({"./../../etc/cron.d/x": b"!"})), r"member '\.\./\.\./etc/cron\.d/x' escapes the archive"),
        (deb("data.tar", tar({"/etc/x": b"!"})), "member '/etc/x' escapes the archive"),
        (deb("data.tar", tar({"./a": b"1", "a": b"2"})), "two members are called a"),
        (deb("data.tar", tar({}, link="./usr/share/doc/l")), "member usr/share/doc/l is a link or a device"),
        (deb("data.tar.xz", lzma.compress(tar(TEXTS)))[:-80], "damaged, cut off"),
        (deb("data.tar.zst", zstandard.compress(tar(TEXTS)))[:-9], "damaged, cut off"),
        (deb("data.tar", tar(TEXTS))[:300], "damaged, cut off"),
        (deb("other", b""), "the package holds no data.tar"),
        (b"!<arch>\n" + b"x" * 60, "a header of the package is damaged at offset 8"),
        (
            deb("data.tar", tar({"./a": b"!"})),
            r"include: no member of tiny_1%3a1\.0-1_all\.deb matches usr/share/doc/\*",
        ),
    ],
)
def test_a_hostile_or_damaged_package_is_named(tmp_path: pathlib.Path, data: bytes, problem: str) -> None:
    options = put(tmp_path / "archive", data)
    with pytest.raises(ValueError, match=f"source d: .*{problem}") as refused:
        list(read(options, "d", tmp_path / "archive"))
    assert "\n" not in str(refused.value)


def test_limits_hold_inside_a_package(tmp_path: pathlib.Path) -> None:
    put(tmp_path / "archive", deb("data.tar.zst", zstandard.compress(tar({"./big": bytes(1 << 20)}))))
    with pytest.raises(ValueError, match="source d: member big holds more than 1000 bytes"):
        list(read_members(tmp_path / "archive", "d", Globs(["*"]), member_bytes=1000))


def fake_apt(folder: pathlib.Path, script: str) -> str:
    folder.mkdir()
    (folder / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "apt-get").chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_apt_brings_the_pinned_bytes_and_no_others(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = put(tmp_path / "mirror", deb("data.tar", tar(TEXTS)))
    monkeypatch.setenv("PATH", fake_apt(tmp_path / "bin", f"cp {tmp_path / 'mirror'} tiny_1%3a1.0-1_all.deb"))
    fetch(options, "d", tmp_path / "archive", Shard())
    assert (tmp_path / "archive").read_bytes() == (tmp_path / "mirror").read_bytes()
    (tmp_path / "archive").unlink()
    (tmp_path / "mirror").write_bytes(b"other")
    with pytest.raises(ValueError, match=f"source d: tiny==1:1.0-1 .*expected sha256 {options.sha256}, got "):
        fetch(options, "d", tmp_path / "archive", Shard())
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo \"E: Version '1' for 'tiny' was not found\" >&2; exit 100", "apt knows no such package or version"),
        ("echo 'E: Unable to locate package tiny' >&2; exit 100", "apt knows no such package or version"),
        ("echo 'E: Failed to fetch http://m/x  Could not resolve m' >&2; exit 100", "apt cannot reach its mirror"),
        ("touch tiny_2_all.deb", "apt downloaded tiny_2_all.deb instead"),
    ],
)
def test_what_apt_cannot_do_is_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    monkeypatch.setenv("PATH", fake_apt(tmp_path / "bin", script))
    with pytest.raises(ValueError, match=f"source d: tiny==1:1.0-1 .*: {problem}"):
        fetch(put(tmp_path / "m", deb("data.tar", b"")), "d", tmp_path / "archive", Shard())


def test_without_apt_the_message_says_so(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"source d: .*kind debian needs apt-get, which is not on this machine"):
        fetch(put(tmp_path / "m", deb("data.tar", b"")), "d", tmp_path / "archive", Shard())


@pytest.mark.slow
@pytest.mark.network
def test_a_real_package_comes_from_debian(tmp_path: pathlib.Path) -> None:
    shown = subprocess.run(["apt-cache", "show", "fortunes-min"], capture_output=True, text=True, check=False).stdout
    fields = dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line)
    if "SHA256" not in fields:
        pytest.skip("apt has no lists of packages here")
    pin = {"name": "fortunes-min", "version": fields["Version"], "sha256": fields["SHA256"]}
    pin["file"] = f"fortunes-min_{fields['Version'].replace(':', '%3a')}_all.deb"
    settings = {"include": ["usr/share/games/fortunes/*"], "exclude": ["*.dat", "*.u8"], "reader": "text"}
    options = Options.model_validate({"kind": "debian", **pin, **settings})
    fetch(options, "d", tmp_path / "archive", Shard())
    result = {each.id: each.text for each in read(options, "d", tmp_path / "archive")}
    assert set(result) == {f"usr/share/games/fortunes/{name}" for name in ("fortunes", "literature", "riddles")}
    assert all(text and len(text) > 10_000 for text in result.values())
