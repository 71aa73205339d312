"""Freeze the tree that a study's jobs run, so that what changes after the start changes no job.

Jobs wait in queues and run for days, while the tree is edited and other branches are checked out. So the code, the
rules and the study's settings are read once, when Snakemake starts, and written to `results/source/<digest>/`. Every
job imports that copy, and a job on a cluster plans with its rules and settings. The digest stands for the content, so
an unchanged tree is written once, however often it runs.
"""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FOLDERS = ("src/speciate", "workflow")
"""Folders of the tree that jobs read, whole but for what Python compiles."""
FILES = ("Snakefile", "containers/images.lock.yaml")
SETTINGS = "study.json"
"""The study's settings after all `extends` and options of the command line."""
KEPT_DAYS = 90
"""Days after which a frozen tree that no study has started from is removed."""


@dataclass(frozen=True)
class SourceTree:
    """The content of the files that jobs read, by their path in the tree."""

    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """Ten hex digits that stand for all paths and contents."""
        total = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\0".encode())
        return total.hexdigest()[:10]

    def write(self, home: pathlib.Path) -> pathlib.Path:
        """Write the tree to `home/<digest>` unless it is there, remove old ones, and return its folder."""
        home.mkdir(parents=True, exist_ok=True)
        folder = home / self.digest
        if not folder.is_dir():
            temp_folder = pathlib.Path(tempfile.mkdtemp(prefix=".", dir=home))
            try:
                for name, content in self.files.items():
                    file = temp_folder / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                temp_folder.chmod(0o755)
                os.rename(temp_folder, folder)
            except OSError:
                # another start wrote the same tree in between, or the disk is full
                if not folder.is_dir():
                    raise
            finally:
                shutil.rmtree(temp_folder, ignore_errors=True)
        os.utime(folder)
        remove_old(home, folder)
        return folder


def read_tree(root: pathlib.Path, settings: Mapping[str, Any]) -> SourceTree:
    """Read the tree under `root`, with the settings of the study that is to run."""
    files = {name: (root / name).read_bytes() for name in FILES if (root / name).is_file()}
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                files[file.relative_to(root).as_posix()] = file.read_bytes()
    # keys keep their order, which is that of arms and hypotheses in tables and reports
    files[SETTINGS] = (json.dumps(settings, indent=1, ensure_ascii=False) + "\n").encode()
    return SourceTree(files)


def read_settings(tree: pathlib.Path) -> dict[str, Any]:
    """Return the settings that were frozen with a tree."""
    settings: dict[str, Any] = json.loads((tree / SETTINGS).read_text(encoding="utf-8"))
    return settings


def remove_old(home: pathlib.Path, kept: pathlib.Path) -> None:
    """Remove the trees under `home` that no study has started from for KEPT_DAYS, but never `kept`."""
    limit = time.time() - KEPT_DAYS * 24 * 3600
    for folder in home.iterdir():
        if folder != kept and folder.is_dir() and folder.stat().st_mtime < limit:
            shutil.rmtree(folder, ignore_errors=True)
