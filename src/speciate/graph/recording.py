"""Let a stage write its own record: what it really used, taken when it used it, and what it wrote.

`speciate VERB` runs every stage inside `recording`. Only files in a folder of results get a record, whether the
workflow or a person runs the stage.
"""

import argparse
import contextlib
import os
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from speciate import io, machine
from speciate.config.definitions import PACKAGE
from speciate.config.run import specs_read
from speciate.graph import provenance
from speciate.graph.environment import own_environment
from speciate.graph.records import Entry, Record, Records, as_json, entry_of, read_records, results_of

CONTENT = "SPECIATE_CONTENT"
"""The variable by which the workflow tells a job the digest of the user's own files that it reads."""
OUTPUTS = ("output", "output_folder", "table_folder", "likelihood", "probe", "details", "measured")
"""Options that name what a stage writes."""
NO_SETTINGS = ("threads", "processes", "sink")
"""Options that change no byte of what a later stage reads."""
PATIENCE, PAUSE = 20, 0.1
"""How often, and after how many seconds, a record is read again that does not fit its files."""
UNREAD = {"swap": ("evaluate",), "evaluate_tasks": ("evaluate",)}
"""Stage -> stages whose files lie in a folder that it is given, but that it does not read. Either may end first, so a
record that named them would depend on chance."""


def settings_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> dict[str, str]:
    """Return the options of a command line that are no paths, have other values than their defaults, and matter."""
    settings, values = {}, vars(arguments)
    for action in parser._actions:
        if action.dest not in values or action.type is pathlib.Path or action.dest in NO_SETTINGS:
            continue
        value = values[action.dest]
        if value != action.default and "/" not in str(value):
            settings[action.dest] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return settings


@contextlib.contextmanager
def recording(stage: str, parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Iterator[None]:
    """Record what a stage reads and writes within the block, if the block ends well.

    Of several processes the first writes the record.

    Raises:
        ValueError: an input has another size than its own record says.
    """
    settings, environment, modules = settings_of(parser, arguments), own_environment(), _module_states()
    given = _inputs(arguments)
    named = [*_outputs(arguments), *given]
    results = next((found for path in named for found in [results_of(path)] if found), None)
    records = None if results is None else Records(results)
    inputs = {} if records is None else read_inputs(records, stage, given)
    io.files_written.clear()
    yield
    if records is None or int(os.environ.get("RANK", "0")) > 0:
        return
    # a stage that a person runs derives the paths that the command line leaves out
    inputs |= read_inputs(records, stage, set(_inputs(arguments)) - set(given))
    outputs = _written_by(arguments, records.results)
    if not outputs:
        return
    entry = entry_of(stage, outputs, records.results)
    inputs.pop(entry.key(records.results), None)
    read = [specs_read[file] for file in _spec_files(arguments) if file in specs_read]
    record = Record(
        spec=provenance.spec_digest(*read),
        code=provenance.digest(stage, *read) if _module_states() == modules else "",
        outputs={
            file.relative_to(entry.home).as_posix(): (file.stat().st_size, io.sha256(file)) for file in sorted(outputs)
        },
        inputs=inputs,
        environment=environment,
        settings=settings,
        content=os.environ.get(CONTENT, ""),
        machine=machine.describe() | machine.job(),
    )
    write(entry, record)


def write(entry: Entry, record: Record) -> None:
    """Write a record, leaving what other stages have recorded in the same file."""
    with io.atomic_write(entry.file) as temp_path:
        temp_path.write_text(as_json(read_records(entry.file) | {entry.stage: record}), encoding="utf-8")


def read_inputs(records: Records, stage: str, paths: Iterable[pathlib.Path]) -> dict[str, str]:
    """Return the keys of the records of what a stage reads, each with the digest of what its job wrote.

    Raises:
        ValueError: a file has another size than its record says.
    """
    inputs = {}
    for path in paths:
        if not path.is_relative_to(records.results):
            continue
        for entry, record in records.of_input(path):
            key = entry.key(records.results)
            if key not in inputs and entry.stage not in UNREAD.get(stage, ()):
                inputs[key] = _checked(entry, record).made
    return inputs


def _checked(entry: Entry, record: Record) -> Record:
    """Return the record whose files have the sizes that it says.

    The stages of a study share a folder of tables, and a job writes its record just after its files. So where a size
    differs, the record is read again for a while.
    """
    tries = PATIENCE
    while True:
        problem = _other_size(entry, record)
        if not problem:
            return record
        if not tries:
            raise ValueError(problem)
        tries -= 1
        time.sleep(PAUSE)
        record = read_records(entry.file).get(entry.stage, record)


def _other_size(entry: Entry, record: Record) -> str:
    """Return which file has another size than its record says; empty if none has."""
    for name, (expected, _) in record.outputs.items():
        try:
            found = os.stat(entry.home / name).st_size
        except OSError:
            continue  # the stage itself says what it misses
        if found != expected:
            file = os.path.relpath(entry.home / name)
            return (
                f"{file}: has {found} bytes, but `{entry.stage}` wrote {expected}; remove it, and the workflow makes "
                "it again"
            )
    return ""


def _inputs(arguments: argparse.Namespace) -> list[pathlib.Path]:
    """Return the absolute paths that a command line names, but for those where the stage itself writes."""
    named = (path for option, value in vars(arguments).items() if option not in OUTPUTS for path in _paths_in(value))
    tops = _outputs(arguments)
    return [path for path in named if not any(path.is_relative_to(top) for top in tops)]


def _outputs(arguments: argparse.Namespace) -> list[pathlib.Path]:
    """Return the absolute paths of files that a stage writes, or of folders into which it writes."""
    return [path for option in OUTPUTS for path in _paths_in(vars(arguments).get(option))]


def _paths_in(value: Any) -> Iterator[pathlib.Path]:
    """Yield the paths in the value of an option: paths, and texts of the form NAME=PATH."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, pathlib.Path):
            yield pathlib.Path(os.path.abspath(item))
        elif isinstance(item, str) and "=" in item:
            yield pathlib.Path(os.path.abspath(item.partition("=")[2]))


def _spec_files(arguments: argparse.Namespace) -> list[pathlib.Path]:
    value = vars(arguments).get("spec") or []
    return value if isinstance(value, list) else [value]


def _written_by(arguments: argparse.Namespace, results: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that the stage has written to where its command line says, and not to notes or checkpoints."""
    tops = _outputs(arguments)
    written = {pathlib.Path(os.path.abspath(file)) for file in io.files_written}
    return [
        file
        for file in sorted(written)
        if file.is_relative_to(results) and any(file.is_relative_to(top) for top in tops) and file.is_file()
    ]


def _module_states() -> dict[str, tuple[int, int]]:
    """Return size and time of the package's files. What is edited while a stage runs may not be what it imported."""
    states = {}
    for folder, _, names in os.walk(PACKAGE):
        for name in names:
            if name.endswith((".py", ".jinja")):
                status = os.stat(os.path.join(folder, name))
                states[os.path.join(folder, name)] = (status.st_size, status.st_mtime_ns)
    return states
