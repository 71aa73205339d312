"""Choose the Debian packages of an image anew from Debian's signed indices, for `make image ARGS=--upgrade`."""

import datetime
import hashlib
import lzma
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator

from containers.debian import Failed, Lock, Package, get

SUITES = (("debian", "bookworm"), ("debian-security", "bookworm-security"), ("debian", "bookworm-updates"))
ARCHITECTURE = "amd64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ROOTS = (
    "usr-is-merged",
    "python3",
    "python3-distutils",
    "libstdc++6",
    "ca-certificates",
    "git",
    "procps",
    "make",
    "mawk",
)
"""What the image holds beside Debian's essential packages; mawk stands for the virtual package awk."""
TOOLS = ("squashfs-tools",)
"""Used to pack the image and not part of it: another version of mksquashfs makes other bytes of the same files."""
DIGITS = re.compile(r"(\d+)")


def split_text(text: str) -> list[str | int]:
    """Split a part of a version into what is compared as text and what as a number."""
    return [int(part) if index % 2 else part for index, part in enumerate(DIGITS.split(text))]


def compare_text(left: str, right: str) -> int:
    """Compare text as Debian does: `~` before the end, the end before letters, letters before the rest."""

    def order(text: str) -> list[int]:
        return [-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in text] + [0]

    return (order(left) > order(right)) - (order(left) < order(right))


def compare_versions(left: str, right: str) -> int:
    """Compare two versions of Debian: negative, zero or positive (Debian Policy, 5.6.12)."""

    def parts(version: str) -> tuple[int, str, str]:
        epoch, _, rest = version.rpartition(":")
        upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
        return int(epoch or 0), upstream, revision

    (left_epoch, *left_texts), (right_epoch, *right_texts) = parts(left), parts(right)
    if left_epoch != right_epoch:
        return left_epoch - right_epoch
    for one, other in zip(left_texts, right_texts, strict=True):
        ones, others = split_text(str(one)), split_text(str(other))
        length = max(len(ones), len(others))
        for index in range(length):
            a = ones[index] if index < len(ones) else (0 if index % 2 else "")
            b = others[index] if index < len(others) else (0 if index % 2 else "")
            decided = a - b if isinstance(a, int) and isinstance(b, int) else compare_text(str(a), str(b))
            if decided:
                return decided
    return 0


def read_index(archive: str, suite: str, mirror: str) -> Iterator[dict[str, str]]:
    """Yield the packages of a suite, after checking the archive's signature and the index's sha256."""
    base = f"{mirror.rstrip('/')}/{archive}/dists/{suite}"
    index = f"main/binary-{ARCHITECTURE}/Packages.xz"
    with tempfile.TemporaryDirectory() as folder:
        signed, release = pathlib.Path(folder, "InRelease"), pathlib.Path(folder, "Release")
        signed.write_bytes(get(f"{base}/InRelease"))
        done = subprocess.run(
            ["gpgv", "--keyring", KEYRING, "--output", str(release), str(signed)], capture_output=True, check=False
        )
        if done.returncode:
            raise Failed(f"{base}/InRelease: is not signed by Debian: {done.stderr.decode(errors='replace').strip()}")
        sums = release.read_text(encoding="utf-8").partition("\nSHA256:\n")[2]
    pinned = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(index)}$", sums, re.MULTILINE)
    content = get(f"{base}/{index}")
    if not pinned or hashlib.sha256(content).hexdigest() != pinned[1]:
        raise Failed(f"{base}/{index}: is not the file that InRelease names; the mirror may be changing, try again")
    for paragraph in lzma.decompress(content).decode().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", paragraph, re.MULTILINE))
        if fields:
            yield fields | {"Archive": archive}


def resolve(mirror: str) -> Lock:
    """Choose the newest version of each package that the image and the tools need; fetch nothing but the indices."""
    if not shutil.which("gpgv") or not pathlib.Path(KEYRING).exists():
        raise Failed("--upgrade checks Debian's signatures (apt-get install gpgv debian-archive-keyring)")
    newest: dict[str, dict[str, str]] = {}
    for archive, suite in SUITES:
        for fields in read_index(archive, suite, mirror):
            held = newest.get(fields["Package"])
            if held is None or compare_versions(fields["Version"], held["Version"]) > 0:
                newest[fields["Package"]] = fields
    essential = [name for name, fields in newest.items() if fields.get("Essential") == "yes"]
    image = close([*essential, *ROOTS], newest)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    return Lock(now, image, close(TOOLS, newest))


def close(roots: Iterable[str], newest: dict[str, dict[str, str]]) -> tuple[Package, ...]:
    """Return the roots and all that they depend on, sorted by name."""
    chosen: set[str] = set()

    def provided(name: str) -> bool:
        return any(
            name in [word.split()[0] for word in newest[other].get("Provides", "").split(",") if word.strip()]
            for other in (*chosen, *waiting)
        )

    waiting = list(roots)
    while waiting:
        name = waiting.pop(0)
        if name in chosen:
            continue
        chosen.add(name)
        needs = ", ".join(filter(None, (newest[name].get("Pre-Depends"), newest[name].get("Depends"))))
        for need in filter(None, needs.split(", ")):
            names = [re.split(r"[\s:(]", option.strip())[0] for option in need.split("|")]
            if any(option in chosen or option in waiting or provided(option) for option in names):
                continue
            known = [option for option in names if option in newest]
            if not known:
                raise Failed(f"{name} needs {need}, which only a virtual package gives; name one of its providers")
            waiting.append(known[0])
    return tuple(package_of(newest[name]) for name in sorted(chosen))


def package_of(fields: dict[str, str]) -> Package:
    """Return the pin of a package in an index."""
    return Package(
        f"{fields['Archive']}/{fields['Filename']}", fields["Version"], fields["SHA256"], int(fields["Size"])
    )
