"""Load a finished run: its spec and its model, ready for evaluation."""

import pathlib

from speciate.config.run import RunSpec, read_spec
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model
from speciate.training.checkpoint.weights import load_weights


def load_run(folder: pathlib.Path, vocabulary: int, weights: str = "model.safetensors") -> tuple[RunSpec, Transformer]:
    """Return the spec and the model, in evaluation mode, of the finished run in `folder`.

    Args:
        folder: the run's folder.
        vocabulary: number of token ids of its tokenizer.
        weights: the file of weights in it, such as ema.safetensors or snapshots/step100.safetensors.

    Raises:
        ValueError: there is no spec or no weights, or they are of another model or vocabulary.
    """
    spec = read_spec(RunSpec, folder / "spec.json")
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder}: has no model.safetensors; the run has not finished")
    model = build_model(spec, vocabulary)
    load_weights(model, folder / weights)
    return spec, model.eval()
