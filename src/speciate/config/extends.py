"""Study files as plain data: one laid over another, key by key."""

import copy
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, key by key; neither is altered.

    A value of None removes the key. A mapping that names another `kind` than the base's replaces it whole, since the
    options of one kind mean nothing to another; a bare string against a mapping of kinds does the same.
    """
    merged = dict(copy.deepcopy(base))
    for key, value in change.items():
        old = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping) and value.get("kind") in (None, old.get("kind")):
            merged[key] = merge(old, value)
        elif isinstance(value, Mapping) and isinstance(old, str) and value.get("kind") in (None, old):
            merged[key] = {"kind": old, **copy.deepcopy(value)}
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def read_yaml(file: pathlib.Path, above: tuple[pathlib.Path, ...] = ()) -> dict[str, Any]:
    """A study file as plain data, with the files that it `extends` underneath.

    Args:
        file: the study file.
        above: the files that extend it.

    Raises:
        ValueError: no such file, broken YAML, a file that is not a mapping, or files that extend each other in a
            circle; the message names the file.
    """
    if file.resolve() in above:
        raise ValueError(f"{file}: extends: leads back to itself")
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{file}: must be a mapping of keys to values")
    return extend(settings, file.parent, (*above, file.resolve()))


def extend(settings: Mapping[str, Any], folder: pathlib.Path, above: tuple[pathlib.Path, ...] = ()) -> dict[str, Any]:
    """`settings` laid over the study file that its key `extends` names (relative to `folder`), if there is one.

    With a list of files each is laid over those before it.

    Raises:
        ValueError: as `read_yaml` does, or `extends` is neither a file nor a list of them.
    """
    rest = {key: value for key, value in settings.items() if key != "extends"}
    named = settings.get("extends", [])
    merged: dict[str, Any] = {}
    files = [named] if isinstance(named, str) else named
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise ValueError(f"extends: must be a file or a list of files, not {named!r}")
    for name in files:
        merged = merge(merged, read_yaml(folder / name, above))
    return merge(merged, rest)
