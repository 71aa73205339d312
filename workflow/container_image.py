"""Say which container image a workflow runs in, and check it before the first job.

`containers/images.lock.yaml` pins each image by its sha256. An image of other bytes would give other results under the
pinned name, so it is refused.
"""

import hashlib
import pathlib
from dataclasses import dataclass

import yaml

from speciate.graph.environment import environment_name

LOCK = "containers/images.lock.yaml"


@dataclass(frozen=True)
class ContainerImage:
    """A pinned image: its name in the lock, its file, and the sha256 that the file must have."""

    name: str
    file: pathlib.Path
    sha256: str
    environment: str
    """The name of the environment in it, by the lock of its packages."""

    @property
    def can_be_named(self) -> bool:
        """Whether the rules can name the file: Snakemake takes a brace in its path for a wildcard."""
        return "{" not in str(self.file)

    def check_present(self) -> None:
        """Raise ValueError if the file is missing, or is where Snakemake cannot name it."""
        if not self.can_be_named:
            raise ValueError(f"{self.file}: Snakemake takes a brace in its path for a wildcard; move this folder")
        if not self.file.exists():
            which = "" if self.name == "study" else f" ARGS={self.name}"
            raise ValueError(f"{self.file}: no such image; `make image{which}` makes or fetches it")

    def check_digest(self) -> None:
        """Raise ValueError unless the file has the pinned sha256."""
        with self.file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{self.file}: has sha256 {found}, but {LOCK} pins {self.sha256}; no job was run. "
                "Remove the file, and `make image` makes or fetches the pinned one"
            )


def pinned_image(tree: pathlib.Path, house: pathlib.Path, apptainer_arguments: str) -> ContainerImage:
    """Return the image that a profile's jobs run in: with `--nv`, which shows them the GPUs, the one with CUDA.

    Args:
        tree: the folder whose lock pins the image, which may be a frozen copy.
        house: the folder where the image is.
        apptainer_arguments: what the profile gives to Apptainer.
    """
    name = "study-cuda" if "--nv" in apptainer_arguments.split() else "study"
    pins = yaml.safe_load((tree / LOCK).read_text(encoding="utf-8"))
    if not pins.get(name):
        raise ValueError(f"{LOCK} pins no image {name}; `make image ARGS='{name} --update'` makes and pins one")
    pinned = pins[name]
    environment = environment_name(pinned.get("requirements", pinned["sha256"]), pinned.get("torch", ""))
    return ContainerImage(name, house / pinned["file"], pinned["sha256"], environment)
