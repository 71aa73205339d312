"""Read the shape of a checkpoint before anything is planned: of a folder, of a GGUF file, or of a model on a hub.

A model on a hub is pinned by its commit. Its config.json alone is fetched, once, and kept in the folder HUB_CONFIGS;
later plans need no network. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE mean what they mean to the hub's client,
which the planning environment lacks.
"""

import http.client
import json
import os
import pathlib
import urllib.error
import urllib.request
from typing import Any

from speciate.config.pretrained.families import Shape, shape_of_config
from speciate.config.pretrained.gguf_header import read_gguf_config
from speciate.io import atomic_write

HUB_CONFIGS = pathlib.Path(".snakemake/speciate/checkpoints")
"""Folder of the config.json files that were fetched, below the folder in which the workflow runs."""
UNPINNED = "unpinned"
TIMEOUT = 30
"""Seconds."""


def folder_shape(path: pathlib.Path) -> Shape:
    """Return the shape of the model in a user's folder: that of its config.json, or of its one GGUF file.

    Raises:
        ValueError: there is neither, or the model is not supported; names the file.
    """
    files = [path] if path.suffix == ".gguf" else sorted(path.glob("*.gguf"))
    if len(files) == 1 and not (path / "config.json").exists():
        return _shape(read_gguf_config(files[0]), str(files[0]), str(path))
    return config_file_shape(path / "config.json", str(path))


def hub_shape(repository: str, revision: str) -> Shape:
    """Return the shape of a model on a hub at one commit.

    Raises:
        ValueError: the hub is out of reach and the file was not fetched before, or the model is not supported; names
            the repository and the commit.
    """
    if revision == UNPINNED:
        commit = json.loads(_get(f"api/models/{repository}", f"model {repository}")).get("sha")
        raise ValueError(f"revision: is not pinned; the newest commit of {repository} is {commit}: write that there")
    file = HUB_CONFIGS / repository.replace("/", "--") / f"{revision}.json"
    if not file.is_file():
        cached = _client_cache() / f"models--{repository.replace('/', '--')}" / "snapshots" / revision / "config.json"
        content = cached.read_bytes() if cached.is_file() else _download(repository, revision)
        with atomic_write(file) as temp_path:
            temp_path.write_bytes(content)
    return config_file_shape(file, commit_name(repository, revision))


def commit_name(repository: str, revision: str) -> str:
    """Return what messages call a model on a hub at one commit."""
    return f"{repository} at {revision[:10]}"


def config_file_shape(file: pathlib.Path, origin: str) -> Shape:
    """Return the shape that a config.json describes. Raises ValueError that names the file."""
    return _shape(read_config(file), str(file), origin)


def read_config(file: pathlib.Path) -> dict[str, Any]:
    """Return the content of a config.json. Raises ValueError that names the file."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file}: must hold an object")
    return config


def _shape(config: dict[str, Any], file: str, origin: str) -> Shape:
    try:
        return shape_of_config(config, origin)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _client_cache() -> pathlib.Path:
    """Return the folder in which the hub's own client keeps models."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return pathlib.Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()


def _download(repository: str, revision: str) -> bytes:
    """Fetch the config.json of a model. Raises ValueError that names the repository and the commit."""
    return _get(f"{repository}/resolve/{revision}/config.json", f"config.json of {repository} at {revision}")


def _get(path: str, where: str) -> bytes:
    """Return what the hub has at a path. Raises ValueError, one line that begins with `where`."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    advice = "plan once where the hub is in reach, or write what `speciate shape` prints there into the origin"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ValueError(f"{where}: HF_HUB_OFFLINE keeps the client off the network; {advice}")
    request = urllib.request.Request(f"{hub}/{path}")
    if os.environ.get("HF_TOKEN"):
        # not sent on to another host that the hub may redirect to
        request.add_unredirected_header("Authorization", f"Bearer {os.environ['HF_TOKEN']}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            content: bytes = answer.read()
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise ValueError(f"{where}: {hub} refuses ({error.code}): there is none, or it needs HF_TOKEN") from None
        raise ValueError(f"{where}: {hub} answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{where}: cannot reach {hub}: {reason}; {advice}") from None
    return content
