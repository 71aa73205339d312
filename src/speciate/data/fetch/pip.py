"""Download one pinned file of a Python package index with pip, and accept no other bytes.

pip is the only client: it uses the user's index, mirror, proxy and certificates. A platform wheel is a different file
on each kind of machine. So pip gets the tags in the pinned file's own name, and every machine, with any system and
Python, gets the same bytes. Nothing is installed. (A wheel is only copied. For an sdist pip itself runs the package's
build code to learn its metadata, so pins are wheels wherever there is one.)
"""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from speciate.io import TemporaryError

WHEEL_NAME = re.compile(r"[^-]+-[^-]+(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl")


@dataclass(frozen=True)
class Pin:
    """One file of one release of one package."""

    name: str
    version: str
    file: str
    """The file's name in the index; it tells whether the file is a wheel, and for which system."""
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} ({self.file})"


def file_selection_arguments(file: str) -> list[str]:
    """Return the arguments that make pip choose `file` on any machine.

    Raises:
        ValueError: the name is neither that of a wheel nor that of an sdist.
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
    """Download the file that `pin` names to `target`, which appears only once its sha256 has been checked.

    Args:
        pin: the file.
        source: the source's name in the study, for messages.
        target: the path to write; its folder must exist.

    Raises:
        TemporaryError: the index cannot be reached.
        ValueError: it has no such file, or sends other bytes than the pinned ones. Either message names the source and
            the pin.
    """
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
        requirements = pathlib.Path(folder) / "wanted.txt"
        requirements.write_text(f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--require-hashes", "--dest", folder, *file_selection_arguments(pin.file)]
        command += ["-r", str(requirements)]
        completed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if completed.returncode:
            output = completed.stdout + completed.stderr
            refused = TemporaryError if is_unreachable(output) else ValueError
            raise refused(f"source {source}: {pin}: {_explain_failure(pin, output)}")
        downloaded = sorted(file for file in pathlib.Path(folder).iterdir() if file != requirements)
        if [file.name for file in downloaded] != [pin.file]:
            raise ValueError(
                f"source {source}: {pin}: pip downloaded {', '.join(file.name for file in downloaded)} instead"
            )
        check_sha256(downloaded[0], pin, source)
        os.replace(downloaded[0], target)


def check_sha256(file: pathlib.Path, pin: Pin, source: str) -> None:
    """Raise ValueError unless `file` holds the bytes that `pin` names."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != pin.sha256:
        raise ValueError(f"source {source}: {pin}: expected sha256 {pin.sha256}, got {digest}")


def is_unreachable(output: str) -> bool:
    """Return whether pip's output says that its index cannot be reached."""
    return re.search(r"Retrying \(|Connection|Temporary failure|timed out", output) is not None


def _explain_failure(pin: Pin, output: str) -> str:
    """Return in one line what pip's output means."""
    other_digest = re.search(r"Got\s+([0-9a-f]{64})", output)
    if other_digest:
        return f"expected sha256 {pin.sha256}, got {other_digest[1]}"
    if "No module named pip" in output:
        return f"there is no pip in {sys.executable}"
    if is_unreachable(output):
        return "pip cannot reach its package index; check the network and pip's settings (pip config list)"
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    return f"pip could not fetch it: {errors[0] if errors else output.strip()[-300:] or 'no message'}"
