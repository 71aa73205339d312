"""Download and unpack the pinned Debian packages of an image.

`debian.lock` names every package by its version and sha256, so what is in an image depends on no mirror and on no date.
A file comes from whichever archive still has it: a mirror, or the dated snapshot that keeps what mirrors drop. The
packages are unpacked, and none of their maintainer scripts run. What those scripts would do that a study needs is done
by `finish`. So no root, no user namespace and no tool of Debian is needed.
"""

import dataclasses
import hashlib
import io
import lzma
import pathlib
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator

SUITE = "bookworm"
MIRROR = "http://deb.debian.org"
SNAPSHOT = "http://snapshot.debian.org/archive"
"""It keeps every file that Debian ever published, below the archive's name and a time."""
PATIENCE = 60
MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
"""Folders of the root that are links into /usr."""
HEADER = """\
# The Debian packages of the image, written by `make image ARGS=--upgrade`. An image is made of these bytes alone.
# [image] is what the image holds, [tools] what packs it: path in the archive, version, sha256, bytes.
# Mirrors drop old versions; SNAPSHOT/<archive>/<time>/ keeps them, at this time:
"""


class Failed(Exception):
    """The image cannot be made; the message says why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Package:
    """One pinned file of a Debian archive."""

    path: str
    version: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2].partition("_")[0]


@dataclasses.dataclass(frozen=True)
class Lock:
    """The pinned packages: the time at which the snapshot has them all, what the image holds, and what packs it."""

    time: str
    image: tuple[Package, ...]
    tools: tuple[Package, ...]


def read_lock(file: pathlib.Path) -> Lock:
    """Read `debian.lock`."""
    time, section = "", ""
    packages: dict[str, list[Package]] = {"image": [], "tools": []}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if words[0] == "time":
            time = words[1]
        elif line.startswith("["):
            section = line.strip("[]")
        elif section in packages and len(words) == 4 and words[3].isdigit():
            packages[section].append(Package(words[0], words[1], words[2], int(words[3])))
        else:
            raise Failed(f"{file}: line {number}: is no package: {line}")
    if not time or not packages["image"] or not packages["tools"]:
        raise Failed(f"{file}: is incomplete; `make image ARGS=--upgrade` writes it")
    return Lock(time, tuple(packages["image"]), tuple(packages["tools"]))


def write_lock(file: pathlib.Path, lock: Lock) -> None:
    """Write `debian.lock`."""
    lines = [f"{HEADER}time {lock.time}"]
    for section, packages in (("image", lock.image), ("tools", lock.tools)):
        lines.append(f"[{section}]")
        lines += [f"{package.path} {package.version} {package.sha256} {package.size}" for package in packages]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


# -- downloading ------------------------------------------------------------------------------------------------------


def get(url: str) -> bytes:
    """Return what a URL serves."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        content: bytes = answer.read()
    return content


def places(lock: Lock, mirrors: Iterable[str]) -> list[str]:
    """Return the URLs below which archives are sought, in order; the snapshot comes last."""
    return [mirror.rstrip("/") for mirror in mirrors] + [f"{SNAPSHOT}/ARCHIVE/{lock.time}"]


def download(package: Package, bases: list[str]) -> bytes:
    """Return the bytes of a package from the first place that has them; bytes of another sha256 count as absent."""
    archive, _, rest = package.path.partition("/")
    reasons = []
    for base in bases:
        url = f"{base.replace('ARCHIVE', archive)}/{rest}" if "ARCHIVE" in base else f"{base}/{package.path}"
        try:
            content = get(url)
        except (OSError, urllib.error.URLError) as error:
            reasons.append(f"{url}: {error}")
            continue
        found = hashlib.sha256(content).hexdigest()
        if found == package.sha256:
            return content
        reasons.append(f"{url}: has sha256 {found}, but the lock pins {package.sha256}")
    raise Failed("no archive has the pinned " + package.name + "\n  " + "\n  ".join(reasons))


# -- unpacking --------------------------------------------------------------------------------------------------------


def members(deb: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each member of an `ar` archive."""
    if not deb.startswith(b"!<arch>\n"):
        raise Failed("is no Debian package")
    at = 8
    while at + 60 <= len(deb):
        size = int(deb[at + 48 : at + 58])
        yield deb[at : at + 16].decode().strip().rstrip("/"), deb[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def read_member(deb: bytes, stem: str) -> tarfile.TarFile:
    """Return the tar archive `stem` of a package."""
    for name, content in members(deb):
        if name.startswith(stem):
            raw = lzma.decompress(content) if name.endswith(".xz") else content
            return tarfile.open(fileobj=io.BytesIO(raw))
    raise Failed(f"a package lacks {stem}")


def merged(name: str) -> str:
    """Return a path of a package below the merged /usr."""
    name = name.removeprefix("./").strip("/")
    return f"usr/{name}" if name.split("/")[0] in MERGED else name


def wanted(name: str) -> bool:
    """Tell whether a file belongs into the image: licences do, other documentation and translations do not."""
    if name.startswith("usr/share/doc/"):
        return name.endswith("/copyright")
    return not name.startswith(("usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/"))


def unpack(deb: bytes, tree: pathlib.Path) -> str:
    """Unpack a package's files below `tree`; return its control record."""
    with read_member(deb, "data.tar") as data:
        for member in data:
            name = merged(member.name)
            if not name or not wanted(name) or (name in MERGED and member.issym()):
                continue
            target = tree / name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            if member.issym():
                target.symlink_to(member.linkname)
            elif member.islnk():
                shutil.copy(tree / merged(member.linkname), target)
            elif content := data.extractfile(member):
                target.write_bytes(content.read())
                target.chmod(0o755 if member.mode & 0o111 else 0o644)
    with read_member(deb, "control.tar") as control:
        record = control.extractfile("./control")
        assert record, "a package has no control record"
        return record.read().decode()


def skeleton(tree: pathlib.Path) -> None:
    """Make the folders and links that every Debian system has before its first package."""
    for name in MERGED:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for name in ("dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "var/tmp"):
        (tree / name).mkdir(parents=True)
    (tree / "var/run").symlink_to("/run")


def finish(tree: pathlib.Path, records: list[str]) -> None:
    """Do what a study needs of the packages' maintainer scripts: accounts, certificates, names, list of packages."""
    for name in ("passwd", "group"):
        shutil.copy(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)
    shutil.copy(tree / "usr/share/libc-bin/nsswitch.conf", tree / "etc/nsswitch.conf")
    for name in ("hosts", "hostname", "localtime", "resolv.conf"):  # Apptainer binds the host's over them
        (tree / "etc" / name).touch()
    certificates = sorted((tree / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = tree / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(file.read_bytes() for file in certificates))
    for link, target in (
        ("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"),
        ("usr/bin/awk", "mawk"),
        ("usr/bin/which", "which.debianutils"),
        ("usr/local/bin/python", "/usr/bin/python3"),
    ):
        (tree / link).parent.mkdir(parents=True, exist_ok=True)
        (tree / link).unlink(missing_ok=True)
        (tree / link).symlink_to(target)
    status = tree / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True, exist_ok=True)
    installed = [record.strip().replace("\n", "\nStatus: install ok installed\n", 1) for record in records]
    status.write_text("\n\n".join(sorted(installed)) + "\n", encoding="utf-8")
