"""Fetch the pinned image from a web server or a registry, and accept no other bytes."""

import os
import pathlib
import shutil
import subprocess
import urllib.error
import urllib.request
from typing import Any

from containers import images
from containers.debian import PATIENCE, Failed

WEB = ("http://", "https://", "file://")


def fetch(url: str, work: pathlib.Path, pinned: dict[str, Any]) -> None:
    """Fetch an image as `image.sif` into the work folder; refuse one whose sha256 is not the pinned one."""
    file = work / "image.sif"
    if url.startswith(WEB):
        download(url, file, int(pinned["bytes"]) + (1 << 20))
    else:
        apptainer_pull(url, file)
    found = images.digest(file)
    if found != pinned["sha256"]:
        raise Failed(f"{url}: has sha256 {found}, but {images.LOCK.name} pins {pinned['sha256']}; nothing was kept")


def download(url: str, target: pathlib.Path, most: int) -> None:
    """Download a file, and stop where it is longer than the image can be."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer, target.open("wb") as file:
            while chunk := answer.read(1 << 20):
                file.write(chunk)
                if file.tell() > most:
                    raise Failed(f"{url}: is longer than the pinned image, so it is another file; nothing was kept")
    except (urllib.error.URLError, ValueError) as error:
        raise Failed(f"{url}: {getattr(error, 'reason', error)}") from None


def apptainer_pull(url: str, target: pathlib.Path) -> None:
    """Pull from a registry with Apptainer; the registry must be one that needs no signature by a key."""
    program = shutil.which("apptainer") or shutil.which("singularity")
    if not program:
        raise Failed(f"{url}: needs Apptainer, which is not on this machine; http, https and file URLs do not")
    plain = ["--no-https"] if os.environ.get("APPTAINER_NOHTTPS") else []
    command = [program, "pull", "--disable-cache", *plain, str(target), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not target.exists():
        last = (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]
        raise Failed(f"{url}: {last}")
