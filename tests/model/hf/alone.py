"""Run load_alone.py: what exported folders give in a process that has never heard of the package."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import torch

HERE = pathlib.Path(__file__)


def load_alone(
    folders: list[pathlib.Path], token_BT: torch.Tensor, settings: dict[str, Any], place: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Return what load_alone.py finds in each folder, by the folder's path; `place` is an empty folder for its files.

    The process sees no PYTHONPATH, no network and no cache of modules.
    """
    torch.save((token_BT, settings), place / "inputs.pt")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HOME": str(place / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-I",
        str(HERE.with_name("load_alone.py")),
        "inputs.pt",
        "outputs.pt",
        *map(str, folders),
    ]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results: dict[str, dict[str, Any]] = torch.load(place / "outputs.pt")
    return results
