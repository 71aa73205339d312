"""The files of a finished run, kept beside its checkpoints until they are safe in the run's folder.

A training writes its files here first, and then gives the same files to the run's folder. What starts a training may
die, remove the run's files and start it again; this folder is then all that is needed to have them back, bit for bit:

    <ablation>-seed<k>/<key>/finished/               the files of the run's folder
    <ablation>-seed<k>/<key>/finished/finished.json  the sha256 of each; it is written last

Where the file system allows it, both folders hold the same files (hard links), so they take their room once.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable

from speciate.config.run import RunSpec, canonical_json
from speciate.io import files_written, sha256
from speciate.machine import FINISHED
from speciate.training.checkpoint.disk import make_folder, sync
from speciate.training.checkpoint.state import EMA
from speciate.training.logs.run_files import FAILURE, LAST

RECORD = "finished.json"
SOMETIMES = (EMA, LAST, FAILURE)
"""Files that not every run has: an earlier run may have left one in the run's folder."""


def prepare(checkpoint_folder: pathlib.Path) -> pathlib.Path:
    """Return an empty hidden folder beside a run's checkpoints, for the files of the run."""
    hidden = checkpoint_folder / f".{FINISHED}"
    shutil.rmtree(hidden, ignore_errors=True)
    make_folder(hidden)
    return hidden


def keep(hidden: pathlib.Path) -> pathlib.Path:
    """Note the sha256 of every file in a folder that `prepare` made, and let it be the run's finished folder."""
    target = hidden.with_name(FINISHED)
    digests = {path: sha256(hidden / path) for path in _files(hidden)}
    (hidden / RECORD).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
    sync(hidden / RECORD)
    sync(hidden)
    shutil.rmtree(target, ignore_errors=True)
    hidden.rename(target)
    sync(target.parent)
    return target


def damage(folder: pathlib.Path) -> str:
    """Return what is wrong with a finished folder; empty if every file is as it was written."""
    try:
        digests = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        changed = [path for path, digest in digests.items() if sha256(folder / path) != digest]
    except OSError as error:
        return f"{pathlib.Path(error.filename or '').name}: {error.strerror}"
    except (ValueError, AttributeError, TypeError):
        return f"{RECORD} is not a record"
    return f"{', '.join(changed)} changed" if changed else ""


def is_of(folder: pathlib.Path, spec: RunSpec) -> bool:
    """Tell whether a finished folder is that of a spec, down to the keys that may change while a run is unfinished."""
    file = folder / "spec.json"
    return file.is_file() and file.read_text(encoding="utf-8") == canonical_json(spec)


def give(folder: pathlib.Path, output_folder: pathlib.Path, sometimes: Iterable[str] = SOMETIMES) -> None:
    """Give the files of a finished folder to the run's folder; of those that not every run has, remove the others."""
    output_folder.mkdir(parents=True, exist_ok=True)
    paths = [path for path in _files(folder) if path != RECORD]
    for path in paths:
        target = output_folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temp_path = target.with_name(f".{target.name}.{os.urandom(6).hex()}{target.suffix}")
        try:
            _link(folder / path, temp_path)
            os.replace(temp_path, target)
            files_written.append(target)  # for the record of what made it
        finally:
            temp_path.unlink(missing_ok=True)  # a second link to a file that is there already is not renamed
    for path in set(sometimes) - set(paths):
        (output_folder / path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds other files
            (output_folder / path).parent.rmdir()


def _files(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _link(file: pathlib.Path, target: pathlib.Path) -> None:
    """Give a file a second name, or copy it where the file system has no such thing."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
        sync(target)
