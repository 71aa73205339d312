"""Copy a trained model's weights into a run's model before its first step.

Two folders of components use this file, and each of their files has one function:

    start/<kind>.py    initialise(options, model, run, path)    sets the model's weights in place
    origin/<kind>.py   load_model(options, path) -> Pretrained  loads the trained model at `path`

An origin's Options say where the workflow has it: `model_path(runs, seed, archive_of)`, from the folder of the study's
runs, the run's seed, and a function from a source's name to its archive.

A layer's feed-forward part may be of another kind than in the trained model. All else must agree, in shape and in
meaning. Weights that are not copied, above all a router's, keep the values that the seed gave them.

E experts, D width, F hidden units (G = F or 2F of them before a gate).
"""

import pathlib

import torch
from torch import Tensor

from speciate.config.contracts.training import OriginOptions
from speciate.config.run import RunSpec
from speciate.model.hf.pretrained import Pretrained
from speciate.model.transformer import Transformer


def load_pretrained(origin: OriginOptions, run: RunSpec, path: pathlib.Path | None) -> Pretrained:
    """Load the model that `run` starts from.

    Raises:
        ValueError: no path was given, it cannot be read, one of its layers is not dense, or its shape is not the run's.
    """
    if path is None:
        raise ValueError(f"{run.ablation}: start: {run.start.kind} needs a model to start from (--start)")
    source: Pretrained = origin.component().load_model(origin, path)
    difference = run.model.difference(source.model)
    if difference:
        raise ValueError(f"{run.ablation}: cannot start from {source.origin}: {difference}")
    if source.window is not None and run.model.context > source.window:
        window = f"{source.origin} attends to the {source.window} latest tokens alone"
        raise ValueError(f"{run.ablation}: model.context is {run.model.context}, and {window}")
    for layer in range(source.model.num_layers):
        kind = source.model.block_of(layer).ffn.kind
        if kind != "dense":
            raise ValueError(
                f"{run.ablation}: must start from a dense model, and layer {layer} of {source.origin} is {kind}"
            )
    return source


def non_dense_layers(run: RunSpec) -> list[int]:
    """Return the layers whose feed-forward part is not dense."""
    return [layer for layer in range(run.model.num_layers) if run.model.block_of(layer).ffn.kind != "dense"]


def dense_ffn_weights(source: Pretrained, layer: int) -> dict[str, Tensor]:
    """Return the weights of a layer's dense feed-forward part, by their names in it."""
    prefix = f"blocks.{layer}.ffn."
    return {name.removeprefix(prefix): weight for name, weight in source.weights.items() if name.startswith(prefix)}


@torch.no_grad()
def copy_weights(model: Transformer, source: Pretrained, skipped_layers: list[int]) -> None:
    """Copy every weight into `model`, except the feed-forward parts of `skipped_layers`.

    Raises:
        ValueError: the source lacks a weight of the model, has it in another shape, or has one more; names the first.
    """
    # what an objective adds keeps the weights that the seed drew
    skipped = ("parts.", *(f"blocks.{layer}.ffn." for layer in skipped_layers))
    targets = {name: weight for name, weight in model.named_parameters() if not name.startswith(skipped)}
    sources = {name: weight for name, weight in source.weights.items() if not name.startswith(skipped)}
    for name, weight in targets.items():
        if name not in sources:
            raise ValueError(f"start: {source.origin} has no {name}")
        if weight.shape != sources[name].shape:
            shapes = f"{tuple(sources[name].shape)} there, {tuple(weight.shape)} here"
            raise ValueError(f"start: {source.origin}: {name} is {shapes}")
    extra = sorted(set(sources) - set(targets))
    if extra:
        raise ValueError(f"start: {source.origin} has {extra[0]}, and this model has not")
    for name, weight in targets.items():
        weight.copy_(sources[name])
