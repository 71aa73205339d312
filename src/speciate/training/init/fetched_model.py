"""Read a model from an archive that the workflow fetched."""

import pathlib
import tempfile
from typing import Any

from speciate.data.fetch import archive as archives
from speciate.model.hf.pretrained import Pretrained, read_pretrained


def load_fetched_model(source: Any, name: str, path: pathlib.Path) -> Pretrained:
    """Load the model in an archive.

    Args:
        source: options of the source, with the globs of the members that make up the model.
        name: the source's name, for messages.
        path: the archive.

    Raises:
        ValueError: the archive is damaged, or as `read_pretrained` does.
    """
    globs = archives.Globs(source.include, source.exclude)
    with tempfile.TemporaryDirectory(prefix="speciate-start-") as folder_name:
        folder = pathlib.Path(folder_name)
        archives.extract_members(path, name, globs, folder)
        model = read_pretrained(folder)
    return Pretrained(model.model, model.weights, f"source {name}", model.window)
