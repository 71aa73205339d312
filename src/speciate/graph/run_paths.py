"""Find the files around a run from the run's own path: results/<study>/runs/<ablation>/seed<k>/spec.json.

The workflow names every path to its stages. This is for a person who makes or uses one run by hand.
"""

import pathlib
from dataclasses import dataclass

from speciate.config.run import RunSpec, read_spec
from speciate.config.stage_specs import DataFolders


@dataclass(frozen=True)
class RunPaths:
    """The paths that belong to one run of a study."""

    home: pathlib.Path
    """The study's results: results/<study>."""
    run: RunSpec

    @property
    def folders(self) -> DataFolders:
        """The folders of the study's data stages. Raises ValueError where the workflow did not write them down."""
        return read_spec(DataFolders, self.home / "specs" / "folders.json")

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
            raise ValueError(f"{folder / file} does not exist yet: `snakemake {target}` makes it")
        return folder


def run_paths(spec_file: pathlib.Path, run: RunSpec) -> RunPaths:
    """Return the paths around the run whose spec is `spec_file`.

    Raises:
        ValueError: the file is not in a study's results.
    """
    folder = spec_file.resolve().parent
    if (folder.name, folder.parent.name, folder.parents[1].name) != (f"seed{run.seed}", run.ablation, "runs"):
        expected = f"results/<study>/runs/{run.ablation}/seed{run.seed}"
        raise ValueError(f"{spec_file}: is not in {expected}, so name the paths on the command line")
    home = folder.parents[2]
    return RunPaths(home, run)
