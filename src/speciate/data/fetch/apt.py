"""Fetches one pinned package of Debian, by apt-get, and accepts no other bytes. Nothing is installed."""

import os
import pathlib
import shutil
import subprocess
import tempfile

from speciate.data.fetch.pip import Pin, check_sha256


def download(pin: Pin, source: str, target: pathlib.Path) -> None:
    """Downloads the package that `pin` names to `target`, which appears only once its sha256 is right.

    Args:
        pin: which package.
        source: the source's name in the study, for messages.
        target: the path to write; its folder must exist.

    Raises:
        ValueError: no apt here, no such package or version, no network, or other bytes than the pinned ones.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise ValueError(f"source {source}: {pin}: kind debian needs apt-get, which is not on this machine")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
        command = [apt, "download", "--quiet", f"{pin.name}={pin.version}"]
        # apt drops its privileges to a user who may not write here, and only warns of it
        command[1:1] = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if done.returncode:
            raise ValueError(f"source {source}: {pin}: {_explain_failure(done.stdout + done.stderr)}")
        got = sorted(pathlib.Path(folder).iterdir())
        if [file.name for file in got] != [pin.file]:
            raise ValueError(f"source {source}: {pin}: apt downloaded {', '.join(file.name for file in got)} instead")
        check_sha256(got[0], pin, source)
        os.replace(got[0], target)


def _explain_failure(output: str) -> str:
    """What apt's output means, in one line."""
    errors = [line.removeprefix("E: ").strip() for line in output.splitlines() if line.startswith("E: ")]
    said = errors[0] if errors else output.strip()[-300:] or "no message"
    if "was not found" in said or "Unable to locate" in said:
        return f"apt knows no such package or version ({said}); another release of Debian? or `apt-get update` first"
    if "Failed to fetch" in said or "resolve" in said or "connect" in said:
        return f"apt cannot reach its mirror: {said}"
    return f"apt could not fetch it: {said}"
