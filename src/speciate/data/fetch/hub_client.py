"""Call `huggingface_hub` and `datasets` quietly, retry what may pass, and explain what fails.

Both libraries read their settings from the environment when they are imported. So a process that fetches imports them
here, at first use, and nowhere else. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE belong to the user.
"""

import importlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

from speciate.io import TemporaryError

QUIET_SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",  # plain HTTP resumes by Range, and goes through any mirror
}
MAX_ATTEMPTS = 4
MAX_WAIT = 600
"""Seconds; if a hub asks for a longer wait, the call fails."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class PinnedDataset:
    """What the hub reports about a dataset at one revision."""

    commit: str
    licence: str
    files: tuple[str, ...]


def import_hub() -> ModuleType:
    """Import `huggingface_hub` with its output turned off."""
    for name, value in QUIET_SETTINGS.items():
        os.environ.setdefault(name, value)
    library = importlib.import_module("huggingface_hub")
    library.logging.set_verbosity(50)  # the ValueError reports the problem, once
    return library


def import_datasets() -> ModuleType:
    """Import `datasets` with its output turned off and few retries, since each of them repeats the hub client's own."""
    import_hub()
    library = importlib.import_module("datasets")
    library.logging.set_verbosity(50)
    library.config.STREAMING_READ_MAX_RETRIES = library.config.STREAMING_OPEN_MAX_RETRIES = 2
    return library


def resolve_revision(dataset: str, revision: str, where: str) -> PinnedDataset:
    """Ask the hub which commit `revision` names, and for the dataset's licence and files.

    Raises:
        ValueError: the hub cannot be reached or has no such dataset or revision, or `revision` is 'unpinned'.
    """
    api = import_hub().HfApi()
    commit = None if revision == "unpinned" else revision
    info = call_with_retries(lambda: api.dataset_info(dataset, revision=commit, timeout=30), where, revision)
    if commit is None:
        raise ValueError(f"{where}: revision: is not pinned; its newest commit is {info.sha}: write that in the study")
    licences = (info.card_data or {}).get("license") or ()
    licences = [licences] if isinstance(licences, str) else list(licences)
    licences = licences or [tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")]
    files = sorted(file.rfilename for file in info.siblings or ())
    return PinnedDataset(info.sha, ", ".join(licences) or "unknown", tuple(files))


def call_with_retries(call: Callable[[], Result], where: str, revision: str, tries: int = MAX_ATTEMPTS) -> Result:
    """Return what `call` returns, trying at most `tries` times after temporary failures (rate limit, connection).

    A rate limit's Retry-After is respected. Errors of the file system, such as a full disk, stay OSErrors.

    Raises:
        TemporaryError: all tries failed, and a later one may succeed.
        ValueError: any other failure. Either is one line that starts with `where`.
    """
    for attempt in range(1, tries + 1):
        try:
            return call()
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None and not _is_connection_error(error):
                raise
            wait = _retry_delay(error, attempt)
            if wait is None or attempt == tries or wait > MAX_WAIT:
                refused = ValueError if wait is None else TemporaryError
                raise refused(f"{where}: {_explain_error(error, revision)}") from None
            time.sleep(wait)
    raise AssertionError("unreachable")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error` and the errors that caused it, nearest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _http_status(error: BaseException) -> tuple[int, float | None]:
    """Return the HTTP status in `error` (0: none) and the seconds that the hub asks the client to wait."""
    response = getattr(error, "response", None)
    if response is None:
        return 0, None
    after = response.headers.get("Retry-After", "")
    return response.status_code, float(after) if after.isdigit() else None


def _retry_delay(error: BaseException, attempt: int) -> float | None:
    """Return the seconds to wait before the next attempt; None where another attempt is pointless."""
    for cause in _causes(error):
        status, after = _http_status(cause)
        if status in (408, 429, 500, 502, 503, 504):
            return after if after is not None else 2.0**attempt
        if status or type(cause).__name__ == "OfflineModeIsEnabled":
            return None
    return 2.0 ** (attempt - 1) if any(map(_is_connection_error, _causes(error))) else None


def _is_connection_error(error: BaseException) -> bool:
    # by name: the HTTP library changed between releases of the client, and we depend on neither
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TransportError", "TimeoutException", "ConnectionError", "TimeoutError"})


def _explain_error(error: BaseException, revision: str) -> str:
    """Return in one line what went wrong and what to do about it."""
    hub = import_hub().constants.ENDPOINT
    for cause in _causes(error):
        message, kind = " ".join(str(cause).split()), type(cause).__name__
        status, _ = _http_status(cause)
        if kind == "GatedRepoError" or "is a gated dataset" in message:
            return f"is gated: accept its terms on {hub}, then log in with `hf auth login` or set HF_TOKEN"
        if kind == "RevisionNotFoundError":
            return f"revision: {hub} has no {revision} of it"
        if kind in ("RepositoryNotFoundError", "DatasetNotFoundError"):
            return f"{hub} has none of that name, or it is private: log in with `hf auth login` or set HF_TOKEN"
        if kind == "OfflineModeIsEnabled":
            return "cannot be read: HF_HUB_OFFLINE keeps the client off the network"
        if status == 429:
            return f"{hub} limits the rate of requests, and still does after several tries; go on later, or log in"
        if status:
            return f"{hub} answered {status}: {message[:200]}"
        if kind == "RuntimeError" and "scripts are no longer supported" in message:
            return "needs its own script, which is never run; try revision: refs/convert/parquet"
    for cause in filter(_is_connection_error, _causes(error)):
        return f"cannot reach {hub}, or the connection kept breaking: {' '.join(str(cause).split())[:200]}"
    return _explain_content_error(error)


def _explain_content_error(error: BaseException) -> str:
    """Return in one line what is wrong with the hub's answer."""
    for cause in _causes(error):
        message, kind = " ".join(str(cause).split()), type(cause).__name__
        if "Consistency check failed" in message:
            return f"a data file came incomplete: {message[:200]}"
        if kind.startswith("Arrow") or kind in ("OSError", "JSONDecodeError", "EOFError", "BadGzipFile", "ZstdError"):
            return f"a data file is damaged or cut off: {message[:200]}"
        match = re.search(r"BuilderConfig '?(.*?)'? not found.*?Available: (\[.*?\])", message)
        if match:
            return f"name: there is no configuration '{match[1]}'; available: {match[2]}"
        if "Config name is missing" in message:
            return f"name: it has several configurations, so one must be named: {message[:300]}"
        match = re.search(r"(?:Unknown|Bad) split:? \"?(\w+)\"?\..*?(\[.*?\])", message)
        if match:
            return f"split: there is no split '{match[1]}'; available: {match[2]}"
        if kind in ("EmptyDatasetError", "DataFilesNotFoundError", "EntryNotFoundError", "FileNotFoundError"):
            return f"has no data file that can be read: {message[:200]}"
    message = " ".join(str(error).split())
    return f"could not be read: {type(error).__name__}: {message[:300]}"
