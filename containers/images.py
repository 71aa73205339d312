"""Read and write images.lock.yaml, and say which inputs an image was made of."""

import dataclasses
import hashlib
import pathlib
from typing import Any

import yaml
from containers import debian, wheels
from containers.debian import Failed

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = pathlib.Path(".envs/images")
LOCK = ROOT / "containers/images.lock.yaml"
DEBIAN = ROOT / "containers/debian.lock"
LOCKS = {
    "study": ("envs/torch-cpu.lock", "envs/study.lock"),
    "study-cuda": ("envs/study-cuda.lock",),
}
"""Image -> locks of its wheels. The build of torch is the image's own, whatever .envs/study has."""
SPACE = {"study": 3.5, "study-cuda": 15.0}
"""Free space in GB that building an image takes: wheels, unpacked files and packed image."""
HEADER = """\
# Written by `make image ARGS=--update`: the images that profiles with Apptainer run. `make image` makes the same bytes
# again, or fails. The workflow compares an image's sha256 with this file before its first job.
"""


@dataclasses.dataclass(frozen=True)
class Image:
    """One image: its name in the lock, and what the lock says of it."""

    name: str
    pinned: dict[str, Any]

    @property
    def file(self) -> pathlib.Path:
        return ROOT / str(self.pinned["file"])


def digest(file: pathlib.Path) -> str:
    """Return the sha256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def inputs(name: str) -> dict[str, str]:
    """Return lock -> sha256 of the pins in it that decide an image's bytes; comments and dates decide nothing."""
    held = debian.read_lock(DEBIAN)
    pins = {"containers/debian.lock": [f"{package.path} {package.sha256}" for package in (*held.image, *held.tools)]}
    pins |= {path: wheels.requirements(ROOT / path) for path in LOCKS[name]}
    return {path: hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest() for path, lines in pins.items()}


def read(name: str) -> Image:
    """Return an image as the lock pins it; one that it does not name has nothing pinned."""
    pins = yaml.safe_load(LOCK.read_text(encoding="utf-8")) if LOCK.exists() else {}
    return Image(name, pins.get(name) or {})


def require_current(image: Image) -> None:
    """Refuse to build an image whose inputs are no longer those that it was pinned with."""
    if not image.pinned:
        raise Failed(f"{LOCK.name} pins no image {image.name}; `make image ARGS='{image.name} --update'` makes one")
    now = inputs(image.name)
    changed = [path for path, sha256 in now.items() if image.pinned["inputs"].get(path) != sha256]
    if changed:
        raise Failed(
            f"{', '.join(changed)}: changed since {LOCK.name} was written; "
            f"`make image ARGS='{image.name} --update'` makes and pins a new image"
        )


def write(name: str, pinned: dict[str, Any]) -> None:
    """Pin an image in the lock, leaving the others as they are."""
    pins = yaml.safe_load(LOCK.read_text(encoding="utf-8")) if LOCK.exists() else {}
    pins[name] = pinned
    text = yaml.safe_dump({key: pins[key] for key in sorted(pins)}, sort_keys=False, width=120)
    LOCK.write_text(HEADER + text, encoding="utf-8")
