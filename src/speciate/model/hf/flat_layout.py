"""Find modules in the folder of an exported model, where they lie side by side.

In such a folder this file takes the place of config/definitions.py and of model/hf/folder_code.py, whose functions it
offers: transformers copies modules from one flat folder only. `speciate.model.ffn.moe` is speciate_model_ffn_moe.py.
"""

import importlib
import pathlib
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speciate.config.run import ModelSpec

FOLDER = pathlib.Path(__file__).parent


def file_of(module: str) -> pathlib.Path:
    """Return the file of a module, which is named as in the package or as in this folder."""
    name = module if module.startswith("speciate.") else module.rpartition(".")[2]
    return FOLDER / f"{name.replace('.', '_')}.py"


def component_files(folder: str) -> dict[str, pathlib.Path]:
    """Return the files of a component folder such as 'model/moe/router' by the kind that each of them may define."""
    prefix = f"speciate_{folder.replace('/', '_')}_"
    return {file.stem.removeprefix(prefix): file for file in sorted(FOLDER.glob(f"{prefix}*.py"))}


def run_definitions(module: str, *names: str) -> dict[str, Any]:
    """Import a module of the package and return its namespace; there is torch here, so the whole file can run."""
    return vars(importlib.import_module(f"{__package__}.{module.replace('.', '_')}"))


def write_code(folder: pathlib.Path, model: "ModelSpec") -> None:
    """Copy the code in this folder, which is that of the model, to another one."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(FOLDER.glob("speciate_*")):
        shutil.copyfile(file, folder / file.name)
