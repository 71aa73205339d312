"""Spoil what earlier stages wrote: cut it off, damage it, or mix it up with another stage, shard or study."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from tests.bad_input.case import Place
from tests.bad_input.small import Command

Harm = Callable[[Place], object]
DATA = "results/data"


def stage(verb: str, harm: Harm, part: str = "", **arguments: str) -> Callable[[Place], Command]:
    """Return a stage's command after all stages have run and one file was spoiled; it writes to `out`."""

    def make(place: Place) -> Command:
        command = place.stages(verb, part)
        harm(place)
        output = "output" if "--output" in command.arguments else "output_folder"
        return command.changed(**{output: "out", **arguments})

    return make


def of(file: str, spoil: Callable[[pathlib.Path], object]) -> Harm:
    """Spoil one file of the data stages."""
    return lambda place: spoil(place.file(f"{DATA}/{file}"))


def flipped(file: pathlib.Path) -> None:
    """Flip a byte in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def settings(change: Callable[[dict[str, Any]], object]) -> Callable[[pathlib.Path], None]:
    """Change a JSON file."""

    def apply(file: pathlib.Path) -> None:
        read = json.loads(file.read_text())
        change(read)
        file.write_text(json.dumps(read))

    return apply


def swapped(first: str, second: str) -> Harm:
    """Replace the first file by a copy of the second."""
    return lambda place: place.file(f"{DATA}/{first}").write_bytes(place.file(f"{DATA}/{second}").read_bytes())


def nothing(place: Place) -> None:
    """Leave a file as it is."""
