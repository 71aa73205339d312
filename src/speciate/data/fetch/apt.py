"""Download one pinned Debian package with apt-get, and accept no other bytes. Nothing is installed."""

import os
import pathlib
import shutil
import subprocess
import tempfile

from speciate.data.fetch.pip import Pin, check_sha256
from speciate.io import TemporaryError

UNREACHABLE = "apt cannot reach its mirror"


def download(pin: Pin, source: str, target: pathlib.Path) -> None:
    """Download the package that `pin` names to `target`, which appears only once its sha256 has been checked.

    Args:
        pin: the package.
        source: the source's name in the study, for messages.
        target: the path to write; its folder must exist.

    Raises:
        TemporaryError: the mirror cannot be reached.
        ValueError: this machine has no apt, there is no such package or version, or the file holds other bytes than the
            pinned ones.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise ValueError(f"source {source}: {pin}: kind debian needs apt-get, which is not on this machine")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
        command = [apt, "download", "--quiet", f"{pin.name}={pin.version}"]
        # as root, apt would switch to a user who may not write to this folder, and would only warn about it
        command[1:1] = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        completed = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if completed.returncode:
            reason = _explain_failure(completed.stdout + completed.stderr)
            refused = TemporaryError if reason.startswith(UNREACHABLE) else ValueError
            raise refused(f"source {source}: {pin}: {reason}")
        downloaded = sorted(pathlib.Path(folder).iterdir())
        if [file.name for file in downloaded] != [pin.file]:
            raise ValueError(
                f"source {source}: {pin}: apt downloaded {', '.join(file.name for file in downloaded)} instead"
            )
        check_sha256(downloaded[0], pin, source)
        os.replace(downloaded[0], target)


def _explain_failure(output: str) -> str:
    """Return in one line what apt's output means."""
    errors = [line.removeprefix("E: ").strip() for line in output.splitlines() if line.startswith("E: ")]
    error = errors[0] if errors else output.strip()[-300:] or "no message"
    if "was not found" in error or "Unable to locate" in error:
        return f"apt knows no such package or version ({error}); another release of Debian? or `apt-get update` first"
    if "Failed to fetch" in error or "resolve" in error or "connect" in error:
        return f"{UNREACHABLE}: {error}"
    return f"apt could not fetch it: {error}"
