"""A sink that appends each check to a file of JSON lines, which `training_logs` reads."""

import json
import math
import pathlib
from collections.abc import Mapping


class JsonLines:
    """Appends a line `{"step": 50, "moe_load/max_vio/layer_3": 0.4, ...}` for each check.

    watch = Watch(model, sink=JsonLines("routing.jsonl"))
    """

    def __init__(self, file: str | pathlib.Path) -> None:
        self.file = pathlib.Path(file)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line; what is not a finite number is null."""
        line = {"step": step} | {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
