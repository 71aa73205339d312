"""Read study files as plain data, and merge each over the files that it extends, key by key."""

import copy
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `change` merged over it, key by key; neither argument is altered.

    A value of None removes the key. A mapping that names another `kind` than the base's replaces it whole, because the
    options of one kind mean nothing to another. A bare string is short for a mapping with that `kind`.
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
    """Return a study file as plain data, merged over the files that it `extends`.

    Args:
        file: the study file.
        above: the files that extend it, outermost first.

    Raises:
        ValueError: there is no such file, it is not YAML, it is not a mapping, the files extend each other in a
            circle, or `extends` or `keep` is wrong; the message names the file.
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
    return extend(settings, file.parent, (*above, file.resolve()), f"{file}: ")


def extend(
    settings: Mapping[str, Any], folder: pathlib.Path, above: tuple[pathlib.Path, ...] = (), prefix: str = ""
) -> dict[str, Any]:
    """Return `settings` merged over the study files that its key `extends` names.

    With a list of files, each is merged over those before it. What `keep` does not name is then left out, and last
    come the settings' own keys.

    Args:
        settings: a study as plain data; its keys `extends` and `keep` are used up.
        folder: what the files in `extends` are relative to.
        above: the files that extend this one, outermost first.
        prefix: what messages about `settings` begin with.

    Raises:
        ValueError: as `read_yaml` does; `extends` is neither a file nor a list of files; `keep` is wrong.
    """
    files = extended_files(settings, prefix)
    merged: dict[str, Any] = {}
    for name in files:
        merged = merge(merged, read_yaml(folder / name, above))
    if "keep" in settings:
        merged = keep_only(merged, settings["keep"], f"{prefix}keep")
    return merge(merged, {key: value for key, value in settings.items() if key not in ("extends", "keep")})


def extended_files(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the files that `settings` extends, in order. Raises ValueError where `extends` is something else."""
    value = settings.get("extends", [])
    files = [value] if isinstance(value, str) else value
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise ValueError(f"{prefix}extends: must be a file or a list of files, not {value!r}")
    return files


def keep_only(settings: Mapping[str, Any], keep: Any, where: str = "keep") -> dict[str, Any]:
    """Return `settings` without the entries that `keep` leaves out.

    `keep` maps the dotted path of a mapping to the names of the entries to keep there: `{ablations: [dense]}` or
    `{domains.code.sources: [networkx]}`. Paths that it does not name stay whole. A hypothesis about an ablation that is
    left out goes with it, unless `keep` names the hypotheses too.

    Raises:
        ValueError: `keep` is not such a mapping, or names a path or an entry that does not exist.
    """
    if not isinstance(keep, Mapping):
        raise ValueError(f"{where}: must be a mapping of paths to lists of names, not {keep!r}")
    kept = copy.deepcopy(dict(settings))
    for path, names in keep.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where}.{path}: must be a list of names, not {names!r}")
        mapping: Any = kept
        for key in str(path).split("."):
            mapping = mapping.get(key) if isinstance(mapping, dict) else None
        if not isinstance(mapping, dict):
            raise ValueError(f"{where}.{path}: the extended files have no such mapping")
        missing = [name for name in names if name not in mapping]
        if missing:
            raise ValueError(f"{where}.{path}: there is no {', '.join(missing)}; available: {', '.join(mapping)}")
        for name in [name for name in mapping if name not in names]:
            del mapping[name]
    if "ablations" in keep and "hypotheses" not in keep and isinstance(kept.get("hypotheses"), dict):
        arms = keep["ablations"]
        kept["hypotheses"] = {
            name: hypothesis for name, hypothesis in kept["hypotheses"].items() if _arms_of(hypothesis) <= set(arms)
        }
    return kept


def _arms_of(hypothesis: Mapping[str, Any]) -> set[str]:
    """Return the ablations that a hypothesis of a study file names."""
    over, minus = hypothesis.get("over"), hypothesis.get("minus")
    named = {hypothesis.get("arm"), hypothesis.get("reference"), *(over if isinstance(over, Mapping) else ())}
    return (named | set(minus.values() if isinstance(minus, Mapping) else ())) - {None}
