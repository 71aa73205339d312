"""Read anybody's routing record: find its format, and bring it to a RoutingRecord."""

import importlib
import pathlib
import zipfile
from collections.abc import Sequence
from types import ModuleType
from typing import cast

from speciate.selection.record_builder import RecordBuilder
from speciate.selection.routing_record import RoutingRecord
from speciate.traces.contract import ReadOptions, TraceFormat

FORMATS = pathlib.Path(__file__).parent / "format"


def format_names() -> list[str]:
    """Return the names of all formats, which are the names of their files."""
    return sorted(file.stem for file in FORMATS.glob("[a-z]*.py"))


def load_format(name: str) -> TraceFormat:
    """Return the module of a format.

    Raises:
        ValueError: there is no such format.
    """
    if name not in format_names():
        raise ValueError(f"{name!r} is not a format of traces; there are {', '.join(format_names())}")
    module: ModuleType = importlib.import_module(f"speciate.traces.format.{name}")
    return cast(TraceFormat, module)


def read_trace(
    paths: Sequence[pathlib.Path] | pathlib.Path, *, format: str | None = None, options: ReadOptions | None = None
) -> RoutingRecord:
    """Read a trace.

    Args:
        paths: the trace's files, or a folder that holds them; together they are one trace.
        format: name of the format; by default it is found from the files' content.
        options: what the user knows of the trace.

    Raises:
        ValueError: no format matches, or the files cannot be judged; the message names the file.
        OSError: a file cannot be read.
    """
    paths = [paths] if isinstance(paths, pathlib.Path) else list(paths)
    options = options or ReadOptions()
    _check(options)
    name, files = (format, files_of(format, paths)) if format is not None else find_format(paths)
    builder = RecordBuilder(", ".join(map(str, paths)))
    load_format(name).read(files, builder, options)
    return builder.build()


def find_format(paths: Sequence[pathlib.Path]) -> tuple[str, list[pathlib.Path]]:
    """Return the format of a trace and the files that hold it.

    Raises:
        ValueError: no format matches, more than one does, or the files have different ones.
    """
    found: dict[str, list[pathlib.Path]] = {}
    for path in paths:
        names = [name for name in format_names() if path.exists() and load_format(name).matches(path)]
        names = names or [name for name in format_names() if matching_files(load_format(name), path)]
        if len(names) != 1:
            raise ValueError(_unclear(path, names))
        found.setdefault(names[0], []).extend(matching_files(load_format(names[0]), path))
    if len(found) != 1:
        said = "; ".join(f"{name}: {', '.join(map(str, files[:2]))}" for name, files in found.items())
        raise ValueError(f"the files are of different formats, so they are not one trace: {said}")
    ((name, files),) = found.items()
    return name, files


def files_of(name: str, paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Return the files of a trace whose format the user names: of folders, those that match."""
    module = load_format(name)
    found: list[pathlib.Path] = []
    for path in paths:
        files = matching_files(module, path) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path}: no file in it is of the format {name}, which has {module.LOOKS_FOR}")
        found += files
    return found


def matching_files(module: TraceFormat, path: pathlib.Path) -> list[pathlib.Path]:
    """Return the path itself if it is of a format, or the files of a folder that are."""
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    if module.matches(path):
        return [path]
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file() and module.matches(file)]
    return []


def _check(options: ReadOptions) -> None:
    for name in ("num_experts", "num_chosen", "data_parallel", "document_length"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, but must be at least 1")


def _unclear(path: pathlib.Path, names: list[str]) -> str:
    if names:
        return f"{path}: may be of the formats {', '.join(names)}; name the one that it is"
    if path.is_file() and not path.stat().st_size:
        return f"{path}: is empty"
    start = _first_bytes(path) if path.is_file() else b""
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"{path}: is a pickle, which is never loaded since it can run code; save numbers alone"
    if start == b"PK\x03\x04" and not zipfile.is_zipfile(path):
        return f"{path}: is damaged or cut off: it begins as torch's files and npz do, and does not end so"
    lines = [f"{path}: is no trace that can be read. What was looked for:"]
    lines += [f"  {name}: {load_format(name).LOOKS_FOR}" for name in format_names()]
    return "\n".join(lines)


def _first_bytes(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
