"""Fetches one pinned file of a Python package index, by pip, and accepts no other bytes.

pip is the only client: the user's index, mirror, proxy and certificates are those that pip is already set up with. A
platform wheel is another file on another machine, so pip is told the tags in the pinned file's own name, and any
machine, of any system and Python, gets the same bytes. Nothing is installed. (A wheel is only copied; for an sdist pip
itself runs the package's build code to learn its metadata, so pins are wheels wherever there is one.)
"""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

WHEEL_NAME = re.compile(r"[^-]+-[^-]+(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl")


@dataclass(frozen=True)
class Pin:
    """One file of one release of one package."""

    name: str
    version: str
    file: str
    """The file's name in the index: it says whether it is a wheel, and for which system."""
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} ({self.file})"


def file_selection_arguments(file: str) -> list[str]:
    """Arguments of pip that make it choose `file`, whatever machine it runs on.

    Raises:
        ValueError: neither a wheel nor an sdist by its name.
    """
    if file.endswith((".tar.gz", ".zip", ".tar.bz2")):
        return ["--no-binary", ":all:"]
    match = WHEEL_NAME.fullmatch(file)
    if match is None:
        raise ValueError(f"{file} is the name of neither a wheel nor an sdist")
    python = match["python"].split(".")[-1]
    implementation, version = python[:2], python[2:]
    tags = ["--only-binary", ":all:", "--implementation", implementation]
    if len(version) > 1:
        tags += ["--python-version", f"{version[0]}.{version[1:]}"]
    for abi in match["abi"].split("."):
        tags += ["--abi", abi]
    for platform in match["platform"].split("."):
        tags += ["--platform", platform]
    return [*tags, "--ignore-requires-python"]


def download(pin: Pin, source: str, target: pathlib.Path) -> None:
    """Downloads the file that `pin` names to `target`, which appears only once its sha256 is right.

    Args:
        pin: which file.
        source: the source's name in the study, for messages.
        target: the path to write; its folder must exist.

    Raises:
        ValueError: no network, no such file, or other bytes than the pinned ones; names the source and the pin.
    """
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
        wanted = pathlib.Path(folder) / "wanted.txt"
        wanted.write_text(f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--require-hashes", "--dest", folder, *file_selection_arguments(pin.file), "-r", str(wanted)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"source {source}: {pin}: {_explain_failure(pin, done.stdout + done.stderr)}")
        got = sorted(file for file in pathlib.Path(folder).iterdir() if file != wanted)
        if [file.name for file in got] != [pin.file]:
            raise ValueError(f"source {source}: {pin}: pip downloaded {', '.join(file.name for file in got)} instead")
        check_sha256(got[0], pin, source)
        os.replace(got[0], target)


def check_sha256(file: pathlib.Path, pin: Pin, source: str) -> None:
    """Raises ValueError unless `file` holds the bytes that `pin` names."""
    with file.open("rb") as opened:
        got = hashlib.file_digest(opened, "sha256").hexdigest()
    if got != pin.sha256:
        raise ValueError(f"source {source}: {pin}: expected sha256 {pin.sha256}, got {got}")


def _explain_failure(pin: Pin, output: str) -> str:
    """What pip's output means, in one line."""
    got = re.search(r"Got\s+([0-9a-f]{64})", output)
    if got:
        return f"expected sha256 {pin.sha256}, got {got[1]}"
    if "No module named pip" in output:
        return f"there is no pip in {sys.executable}"
    if re.search(r"Retrying \(|Connection|Temporary failure|timed out", output):
        return "pip cannot reach its package index; check the network and pip's settings (pip config list)"
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    return f"pip could not fetch it: {errors[0] if errors else output.strip()[-300:] or 'no message'}"
