"""A finished run, read back: its spec and its model, ready to be looked at."""

import pathlib

from speciate.config.run import RunSpec, read_spec
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model
from speciate.training.checkpoint.weights import load_weights


def read_run(folder: pathlib.Path, vocabulary: int, weights: str = "model.safetensors") -> tuple[RunSpec, Transformer]:
    """The spec and the model, in evaluation mode, of the finished run in `folder`.

    Args:
        folder: of the run.
        vocabulary: token ids of its tokenizer.
        weights: the file in it that holds them, such as ema.safetensors or snapshots/step100.safetensors.

    Raises:
        ValueError: no spec or weights there, or weights of another model, or of another vocabulary.
    """
    run = read_spec(RunSpec, folder / "spec.json")
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder}: holds no model.safetensors; the run has not finished")
    model = build_model(run, vocabulary)
    load_weights(model, folder / weights)
    return run, model.eval()
