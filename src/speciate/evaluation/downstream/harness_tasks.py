"""Find and load tasks of the lm-evaluation-harness, or say in one line why a task cannot be had."""

import contextlib
import difflib
import logging
import os
import pathlib
import re
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

NAMED = re.compile(r"^\s*-?\s*(?:task|group|tag):\s*['\"]?([\w.-]+)", re.MULTILINE)
"""A name that a file of the harness's YAML gives to a task, a group or a tag."""
DATA = re.compile(r"^\s*dataset_path:\s*['\"]?([^\s'\"]+)", re.MULTILINE)
"""Where such a file says that its data come from."""
LOCAL = {"json", "csv", "parquet", "text", "arrow"}
"""Kinds of files that the harness reads from the disk; every other dataset_path is a name on the hub."""
PATIENCE = 5.0
"""Seconds in which the hub must answer."""
OFFLINE = "HF_HUB_OFFLINE"


@contextlib.contextmanager
def with_metadata(tokenizer: Tokenizer, lengths: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Give what tasks need that make their texts to a length: a tokenizer's folder, while it exists, and lengths."""
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
        yield {"tokenizer": folder, "max_seq_lengths": list(lengths)}


def load_tasks(
    names: Sequence[str],
    include_path: str | None,
    *,
    shots: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Load tasks with their data, as `lm_eval.evaluate` takes them.

    Args:
        names: of tasks, groups or tags.
        include_path: folder of the user's own tasks; None: there are none.
        shots: solved examples before each question; None: what each task says.
        metadata: what tasks that make their texts are told.
        seed: seed of the choice of solved examples.

    Raises:
        ValueError: a name is unknown, data are out of reach, or a task would run programs unprotected.
    """
    folder = None if include_path is None else pathlib.Path(include_path).absolute()
    if folder is not None and not folder.is_dir():
        raise ValueError(f"include_path: {include_path}: there is no such folder")
    own, data = own_names(folder)
    if not set(names) <= own or not data <= LOCAL:
        stop_waiting_for_the_hub()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.tasks import TaskManager

    # reading the names of the harness's own 14,000 tasks takes ten seconds
    manager = TaskManager(
        include_path=None if folder is None else str(folder),
        include_defaults=not set(names) <= own,
        metadata=dict(metadata or {}),
    )
    refuse_unknown(names, manager.all_tasks, include_path)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}}
    with contextlib.chdir(folder or os.getcwd()):  # where the paths of the user's data begin
        for name in names:
            found = _load(manager, name)
            for part in loaded:
                loaded[part].update(found.get(part, {}))
    for name, task in loaded["tasks"].items():
        if task.get_config("unsafe_code"):
            raise ValueError(
                f"tasks: {name} runs programs that the model wrote, unprotected; use the task kind program"
            )
        _set_shots(task, shots, seed)
    return loaded


def own_names(folder: pathlib.Path | None) -> tuple[set[str], set[str]]:
    """Return what the YAML files of a folder name: tasks, groups and tags; and where their data come from."""
    files = [] if folder is None else [file for ending in ("*.yaml", "*.yml") for file in folder.rglob(ending)]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    named, data = ({name for text in texts for name in found.findall(text)} for found in (NAMED, DATA))
    return named, data


def refuse_unknown(names: Sequence[str], known: Sequence[str], include_path: str | None) -> None:
    """Refuse names that the harness does not know, with the nearest that it does.

    Raises:
        ValueError: there is one.
    """
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
            hint = f"; near it are {', '.join(close)}" if close else ""
            where = "" if include_path is None else f" and {include_path}"
            raise ValueError(f"tasks: the lm-evaluation-harness{where} has no task '{name}'{hint}")


def stop_waiting_for_the_hub() -> None:
    """Tell the hub's client to use what it has stored, if the hub does not answer; else it would try for minutes."""
    if os.environ.get(OFFLINE):
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, ValueError):
        os.environ[OFFLINE] = "1"
        for module in ("huggingface_hub.constants", "datasets.config"):  # they have read it, if they are loaded
            if module in sys.modules:
                setattr(sys.modules[module], OFFLINE, True)


def _load(manager: Any, name: str) -> dict[str, Any]:
    """Load a task, or a group's tasks, with their data."""
    try:
        return dict(manager.load([name]))
    except (ModuleNotFoundError, AssertionError):
        raise
    except Exception as error:  # `datasets`, the hub's client and the harness raise dozens of kinds
        why = " ".join(str(error).split())
        path = _dataset(manager, name)
        if isinstance(error, FileNotFoundError) and path in LOCAL:
            raise ValueError(f"tasks: {name}: a data file is missing: {why[:200]}") from None
        if _is_out_of_reach(error):
            raise ValueError(f"dataset {path} of task {name} cannot be reached: {why[:200]}") from None
        raise ValueError(f"tasks: {name}: cannot be loaded: {type(error).__name__}: {why[:300]}") from None


def _dataset(manager: Any, name: str) -> str:
    """Return the name of a task's data, as far as its own file says it."""
    entry = manager.task_index.get(name)
    with contextlib.suppress(Exception):
        from lm_eval.tasks._yaml_loader import load_yaml

        return str(load_yaml(entry.yaml_path, resolve_func=False)["dataset_path"])
    return name


def _is_out_of_reach(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that something was not found on the network."""
    while error is not None:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & {"ConnectionError", "OfflineModeIsEnabled", "DatasetNotFoundError", "URLError", "TimeoutError"}:
            return True
        if kinds & {"HfHubHTTPError", "LocalEntryNotFoundError", "TransportError", "RequestException"}:
            return True
        error = error.__cause__ or error.__context__
    return False


def _set_shots(task: Any, shots: int | None, seed: int) -> None:
    """Set the number of solved examples as the harness's own command line does: a task that fixes it at 0 keeps it."""
    fixed = task.get_config("num_fewshot")
    if shots is not None and fixed != 0:
        task.set_config(key="num_fewshot", value=shots)
    elif fixed is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=seed)
