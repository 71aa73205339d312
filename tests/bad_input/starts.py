"""Define studies that contradict the checkpoint that they start from, refused before there is a graph of jobs."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.bad_input.case import Case, Place
from tests.bad_input.small import Command

GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024}
GPT2_BLOCK = {"mixer": "attention", "ffn": "dense", "depth": "every"}
FOLDER = {"kind": "dense", "origin": {"kind": "folder", "path": "gpt2"}}


def starting(
    *change: tuple[str, Any], config: Mapping[str, Any] | str = GPT2, start: Any = FOLDER
) -> Callable[[Place], Command]:
    """Return a study whose base starts from the folder gpt2, which holds this config, and has these keys changed."""

    def make(place: Place) -> Command:
        (place.folder / "gpt2").mkdir()
        text = config if isinstance(config, str) else json.dumps(config)
        (place.folder / "gpt2" / "config.json").write_text(text)
        return place.study(("base.model", {}), ("base.start", start), *change)

    return make


def refused(wrong: str, says: str, make: Callable[[Place], Command]) -> Case:
    """Make a case of a study file."""
    return Case("Starting from a checkpoint", wrong, make, f"study.yaml: {says}")


CASES = [
    refused(
        "a width that the checkpoint has not",
        "base.model.width: is 512, and the checkpoint gpt2 has 768",
        starting(("base.model", {"width": 512})),
    ),
    refused(
        "experts of another size than the dense layers that fill them",
        "ablations.dense.model.block.ffn.hidden: is 256, and the checkpoint gpt2 has 3072",
        starting(
            (
                "ablations",
                {
                    "dense": {
                        "about": "x",
                        "change": {
                            "start": "upcycle",
                            "model": {"block": {"ffn": {"kind": "moe", "hidden": 256, "router": "learned"}}},
                        },
                    }
                },
            ),
        ),
    ),
    refused(
        "no config.json in the folder",
        "base.start.origin: nowhere/config.json: cannot be read: WHY",
        starting(start={"kind": "dense", "origin": {"kind": "folder", "path": "nowhere"}}),
    ),
    refused(
        "a config.json that is no JSON",
        "base.start.origin: gpt2/config.json: cannot be read: WHY",
        starting(config="{"),
    ),
    refused(
        "a family that is not supported",
        "base.start.origin: gpt2/config.json: model_type: 'mamba' is none of KINDS",
        starting(config={"model_type": "mamba"}),
    ),
    refused(
        "a setting of the checkpoint that is not supported",
        "base.start.origin: gpt2/config.json: activation_function: 'relu' is not supported; only 'gelu_new' or "
        "'gelu_pytorch_tanh' or 'gelu' is",
        starting(config={**GPT2, "activation_function": "relu"}),
    ),
    refused(
        "a shape that an origin gives and no model has",
        "base.start.origin.shape.widht: unknown key",
        starting(start={"kind": "dense", "origin": {"kind": "archive", "shape": {"widht": 64, "block": GPT2_BLOCK}}}),
    ),
]
