"""Word problems with worked answers, drawn by reasoning-gym's gsm_symbolic (templates of Mirzadeh et al. 2024).

The pinned wheel brings generators of a hundred other tasks and eleven packages that those need; this one needs none of
them. So nothing is installed: a process of its own imports the one module out of the verified file
(`speciate.data.fetch.gsm_symbolic`). Item i is drawn by Random(seed + i), so two sources with nearby seeds share items; what
keeps test items unlike training items is `group`, the item's template.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, Strict

from speciate.config.contracts.data import SourceOptions
from speciate.data.fetch import gsm_symbolic
from speciate.data.fetch.pip import Pin, check_sha256, download
from speciate.data.passage import Passage
from speciate.data.shard import Shard


class Options(SourceOptions):
    """Texts drawn by a generator inside one pinned wheel."""

    dataset: Literal["gsm_symbolic"]
    """The generator."""
    name: Literal["reasoning-gym"] = "reasoning-gym"
    """The package that holds it."""
    version: str = Field(pattern=r"^[A-Za-z0-9.+!_-]+$")
    """The package's release."""
    file: str = Field(pattern=r"^[A-Za-z0-9._+-]+-none-any\.whl$")
    """The wheel's file name in the index."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The wheel's sha256."""
    num_items: int = Field(20000, ge=1)
    """Items drawn, before those of dropped templates are left out."""
    seed: int = Field(0, ge=0)
    """Item i is drawn by Random(seed + i)."""
    drop: Annotated[tuple[int, ...], Strict(False)] = (25, 27, 84, 89)
    """Templates left out; these four write whole numbers of the worked answer as '8.0'."""
    instruction: bool = False
    """Keep the sentence that ends every question ('Give the result as your final answer. ...'): a ninth of the text,
    the same in each item, and so a mark of the domain that a router could go by."""


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Downloads the pinned wheel of source `name` to `target`. Raises ValueError as `download` does."""
    download(_pin(options), name, target)


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """The items of source `name`: question, newline, worked answer; the group is the template.

    Raises:
        ValueError: the archive is not the pinned wheel (its code is about to run), or the generator failed.
    """
    check_sha256(archive, _pin(options), name)
    command = [sys.executable, "-s", "-P", str(gsm_symbolic.__file__), str(archive)]
    command += ["--seed", str(options.seed), "--num-items", str(options.num_items)]
    command += ["--drop", *map(str, options.drop)] + ["--instruction"] * options.instruction
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8"}
    with tempfile.TemporaryFile() as messages:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, env=environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                item = json.loads(line)
                yield Passage(f"item{item['index']}", f"template{item['template']}", item["text"])
        if process.returncode:
            messages.seek(0)
            last = messages.read().decode(errors="replace").strip().splitlines()[-1:]
            raise ValueError(f"source {name}: generator {options.dataset} failed: {''.join(last) or 'no message'}")


def _pin(options: Options) -> Pin:
    return Pin(options.name, options.version, options.file, options.sha256)
