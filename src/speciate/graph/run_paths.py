"""Find the files around a run from the run's own path: results/<study>/runs/<ablation>/seed<k>/spec.json.

The workflow names every path to its stages. This is for a person who makes or uses one run by hand. A finished run's
folder holds its tokenizer, and the digests of its data, so a copy of the folder can be used anywhere.
"""

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speciate.config.run import RunSpec, read_spec
from speciate.config.stage_specs import DataFolders

TOKENIZER = "tokenizer"
"""The folder in a run's folder that holds the run's tokenizer."""


@dataclass(frozen=True)
class RunPaths:
    """The paths that belong to one run of a study."""

    home: pathlib.Path
    """The study's results: results/<study>."""
    run: RunSpec
    options: str
    """The options of the command line that name the paths instead."""

    @property
    def folders(self) -> DataFolders:
        """The folders of the study's data stages. Raises ValueError where the workflow did not write them down."""
        file = self.home / "specs" / "folders.json"
        if not file.is_file():
            raise ValueError(f"{file}: there is no such file, so name the paths on the command line: {self.options}")
        return read_spec(DataFolders, file)

    @property
    def mixture(self) -> pathlib.Path:
        """The folder that `balance` wrote. Raises ValueError where it is not there yet."""
        return self._made(self.home.parent / self.folders.mixture, "mixture.json")

    @property
    def tokenizer(self) -> pathlib.Path:
        """The folder that `fit` wrote. Raises ValueError where it is not there yet."""
        return self._made(self.home.parent / self.folders.tokenizer, "tokenizer.json")

    @property
    def start(self) -> pathlib.Path | None:
        """What the run starts from, or None."""
        origin = self.run.start.origin_options()
        if origin is None:
            return None
        starts = self.folders.starts
        return pathlib.Path(
            origin.model_path(self.home / "runs", self.run.seed, lambda name: self.home.parent / starts[name])
        )

    def _made(self, folder: pathlib.Path, file: str) -> pathlib.Path:
        """Return `folder`. Raises ValueError where the workflow has not made its `file` yet."""
        if not (folder / file).is_file():
            target = (folder / file).relative_to(self.home.parent.parent)
            raise ValueError(
                f"{folder / file} does not exist yet: `snakemake {target}` makes it; or give {self.options}"
            )
        return folder


def run_paths(spec_file: pathlib.Path, run: RunSpec, options: Sequence[str]) -> RunPaths:
    """Return the paths around the run whose spec is `spec_file`.

    Args:
        spec_file: the run's spec.json.
        run: its content.
        options: the options of the command line that name the paths instead, for messages.

    Raises:
        ValueError: the file is not in a study's results.
    """
    folder = spec_file.resolve().parent
    if (folder.name, folder.parent.name, folder.parents[1].name) != (f"seed{run.seed}", run.ablation, "runs"):
        expected = f"results/<study>/runs/{run.ablation}/seed{run.seed}"
        given = ", ".join(options)
        raise ValueError(f"{spec_file}: is not in {expected}, so name the paths on the command line: {given}")
    return RunPaths(folder.parents[2], run, ", ".join(options))


def tokenizer_folder(
    run_folder: pathlib.Path, given: pathlib.Path | None = None, option: str = "--tokenizer"
) -> pathlib.Path:
    """Return the folder of a run's tokenizer.

    It is the one that is given, or else the copy in the run's folder, or else its study's (for a run whose folder has
    no copy).

    Args:
        run_folder: the run's folder.
        given: the folder that the command line names.
        option: the option that names it, for messages.

    Raises:
        ValueError: there is none; names the option.
    """
    own, spec_file = run_folder / TOKENIZER, run_folder / "spec.json"
    if given is not None:
        return given
    if own.is_dir():
        return own
    return run_paths(spec_file, read_spec(RunSpec, spec_file), [option]).tokenizer


def read_metadata(folder: pathlib.Path) -> dict[str, Any]:
    """Return the content of the run's run.json; nothing if there is none.

    Raises:
        ValueError: the file is damaged.
    """
    file = folder / "run.json"
    try:
        metadata = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{file}: is not a run.json: {error}") from None
    if not isinstance(metadata, dict):
        raise ValueError(f"{file}: is not a run.json: must hold an object")
    return metadata


def read_vocabulary(run_folder: pathlib.Path) -> dict[str, Any]:
    """Return what a finished run says of its vocabulary: the number of tokens and the tokenizer's fingerprint.

    It is empty for a run that an earlier version trained.
    """
    return dict(read_metadata(run_folder).get("vocabulary", {}))


def check_tokenizer(run_folder: pathlib.Path, mixture_folder: pathlib.Path, fingerprint: str) -> None:
    """Refuse a mixture that another tokenizer encoded than the run was trained with.

    Args:
        run_folder: the run's folder.
        mixture_folder: the mixture's folder, for the message.
        fingerprint: that of the tokenizer which encoded the mixture.

    Raises:
        ValueError: they differ.
    """
    of_run = read_vocabulary(run_folder).get("tokenizer")
    if of_run is not None and of_run != fingerprint:
        raise ValueError(
            f"--mixture-folder: {mixture_folder} was encoded by tokenizer {fingerprint[:10]}, and the run was trained"
            f" with {of_run[:10]}"
        )
