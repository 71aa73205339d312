"""The clients of a hub, `huggingface_hub` and `datasets`: set up to be quiet, patient, and clear when they fail.

Both read their settings from the environment when they are imported, so they are imported here, at first use, and
nowhere else in a process that fetches. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are the user's.
"""

import importlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

QUIET_SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",  # plain HTTP resumes by Range, and goes through any mirror
}
MAX_ATTEMPTS = 4
MAX_WAIT = 600
"""Seconds; a hub that asks for more is given up on."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class PinnedDataset:
    """What the hub says of a dataset at a revision."""

    commit: str
    licence: str
    files: tuple[str, ...]


def import_hub() -> ModuleType:
    """`huggingface_hub`, quiet."""
    for name, value in QUIET_SETTINGS.items():
        os.environ.setdefault(name, value)
    library = importlib.import_module("huggingface_hub")
    library.logging.set_verbosity(50)  # what is wrong is said once, by the ValueError
    return library


def import_datasets() -> ModuleType:
    """`datasets`, quiet; its own retries, each of which wraps the hub client's, are few."""
    import_hub()
    library = importlib.import_module("datasets")
    library.logging.set_verbosity(50)
    library.config.STREAMING_READ_MAX_RETRIES = library.config.STREAMING_OPEN_MAX_RETRIES = 2
    return library


def resolve_revision(dataset: str, revision: str, where: str) -> PinnedDataset:
    """The commit that `revision` means, and the dataset's licence.

    Raises:
        ValueError: the hub cannot be reached or has no such dataset or revision; or `revision` is 'unpinned'.
    """
    api = import_hub().HfApi()
    wanted = None if revision == "unpinned" else revision
    info = call_with_retries(lambda: api.dataset_info(dataset, revision=wanted, timeout=30), where, revision)
    if wanted is None:
        raise ValueError(f"{where}: revision: is not pinned; its newest commit is {info.sha}: write that in the study")
    licences = (info.card_data or {}).get("license") or ()
    licences = [licences] if isinstance(licences, str) else list(licences)
    licences = licences or [tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")]
    files = sorted(file.rfilename for file in info.siblings or ())
    return PinnedDataset(info.sha, ", ".join(licences) or "unknown", tuple(files))


def call_with_retries(call: Callable[[], Result], where: str, revision: str, tries: int = MAX_ATTEMPTS) -> Result:
    """What `call` gives; after a passing failure (rate limit, connection) it is called again, `tries` times at most.

    A rate limit's Retry-After is waited for. The file system's own trouble (a full disk) stays an OSError.

    Raises:
        ValueError: all else that goes wrong, in one line that starts with `where`.
    """
    for attempt in range(1, tries + 1):
        try:
            return call()
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None and not _is_connection_error(error):
                raise
            wait = _retry_delay(error, attempt)
            if wait is None or attempt == tries or wait > MAX_WAIT:
                raise ValueError(f"{where}: {_explain_error(error, revision)}") from None
            time.sleep(wait)
    raise AssertionError("unreachable")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what led to it, nearest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _http_status(error: BaseException) -> tuple[int, float | None]:
    """The HTTP status in `error` (0: none), and the seconds after which the hub wants to be asked again."""
    response = getattr(error, "response", None)
    if response is None:
        return 0, None
    after = response.headers.get("Retry-After", "")
    return response.status_code, float(after) if after.isdigit() else None


def _retry_delay(error: BaseException, attempt: int) -> float | None:
    """Seconds until it makes sense to try again; None: it makes none."""
    for each in _causes(error):
        status, after = _http_status(each)
        if status in (408, 429, 500, 502, 503, 504):
            return after if after is not None else 2.0**attempt
        if status or type(each).__name__ == "OfflineModeIsEnabled":
            return None
    return 2.0 ** (attempt - 1) if any(map(_is_connection_error, _causes(error))) else None


def _is_connection_error(error: BaseException) -> bool:
    # by name: httpx was renamed between releases of the client, and neither is ours to depend on
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TransportError", "TimeoutException", "ConnectionError", "TimeoutError"})


def _explain_error(error: BaseException, revision: str) -> str:
    """What went wrong, and what to do about it, in one line."""
    hub = import_hub().constants.ENDPOINT
    for each in _causes(error):
        said, kind = " ".join(str(each).split()), type(each).__name__
        status, _ = _http_status(each)
        if kind == "GatedRepoError" or "is a gated dataset" in said:
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
            return f"{hub} answered {status}: {said[:200]}"
        if kind == "RuntimeError" and "scripts are no longer supported" in said:
            return "needs a script of its own, which is never run; try revision: refs/convert/parquet"
    for each in filter(_is_connection_error, _causes(error)):
        return f"cannot reach {hub}, or the connection kept breaking: {' '.join(str(each).split())[:200]}"
    return _explain_content_error(error)


def _explain_content_error(error: BaseException) -> str:
    """The same where the hub answered, and what it gave is wrong."""
    for each in _causes(error):
        said, kind = " ".join(str(each).split()), type(each).__name__
        if "Consistency check failed" in said:
            return f"a data file came incomplete: {said[:200]}"
        if kind.startswith("Arrow") or kind in ("OSError", "JSONDecodeError", "EOFError", "BadGzipFile", "ZstdError"):
            return f"a data file is damaged or cut off: {said[:200]}"
        found = re.search(r"BuilderConfig '?(.*?)'? not found.*?Available: (\[.*?\])", said)
        if found:
            return f"name: there is no configuration '{found[1]}'; there are: {found[2]}"
        if "Config name is missing" in said:
            return f"name: it has several configurations, so one must be named: {said[:300]}"
        found = re.search(r"(?:Unknown|Bad) split:? \"?(\w+)\"?\..*?(\[.*?\])", said)
        if found:
            return f"split: there is no split '{found[1]}'; there are: {found[2]}"
        if kind in ("EmptyDatasetError", "DataFilesNotFoundError", "EntryNotFoundError", "FileNotFoundError"):
            return f"has no data file that can be read: {said[:200]}"
    said = " ".join(str(error).split())
    return f"could not be read: {type(error).__name__}: {said[:300]}"
