"""What a run's weights are before its first step: drawn from the seed, or taken from a model that was trained before.

Two folders of kinds serve it, each file with one function:

    start/<kind>.py    begin(options, model, run, path)   alters the model's drawn weights in place
    origin/<kind>.py   read(options, path) -> Pretrained  reads what it starts from, at `path`

An origin's Options say where the workflow has it: `place(runs, seed, fetched)`, of the folder of the study's runs, the
run's seed, and a function from a source's name to its archive.

A layer's feed-forward part may be another kind than the one that is started from; all else must agree, in shape and in
meaning. What is not taken over keeps the value that the seed gave it: a router, above all.

E experts, D width, F hidden units (G = F or 2F of them before a gate).
"""

import pathlib

import torch
from torch import Tensor

from speciate.config.contracts.training import OriginOptions
from speciate.config.run import RunSpec
from speciate.model.hf.pretrained import Pretrained
from speciate.model.transformer import Transformer


def pretrained(origin: OriginOptions, run: RunSpec, path: pathlib.Path | None) -> Pretrained:
    """What `run` starts from.

    Raises:
        ValueError: no path was given, it cannot be read, a layer of it is no dense one, or its shape is not the run's.
    """
    if path is None:
        raise ValueError(f"{run.ablation}: start: {run.start.kind} needs what it starts from (--start)")
    given: Pretrained = origin.component().read(origin, path)
    unlike = run.model.difference(given.model)
    if unlike:
        raise ValueError(f"{run.ablation}: cannot start from {given.origin}: {unlike}")
    for layer in range(given.model.num_layers):
        kind = given.model.block_of(layer).ffn.kind
        if kind != "dense":
            raise ValueError(
                f"{run.ablation}: starts from a dense model, and layer {layer} of {given.origin} is {kind}"
            )
    return given


def other_layers(run: RunSpec) -> list[int]:
    """The layers whose feed-forward part is not a dense one."""
    return [layer for layer in range(run.model.num_layers) if run.model.block_of(layer).ffn.kind != "dense"]


def ffn_of(given: Pretrained, layer: int) -> dict[str, Tensor]:
    """The weights of a layer's dense feed-forward part, by their names in it."""
    prefix = f"blocks.{layer}.ffn."
    return {name.removeprefix(prefix): weight for name, weight in given.weights.items() if name.startswith(prefix)}


@torch.no_grad()
def copy_weights(model: Transformer, given: Pretrained, besides: list[int]) -> None:
    """Copies every weight into `model`, but for the feed-forward parts of the layers `besides`.

    Raises:
        ValueError: a weight of the model is missing there, has another shape, or one is left over; names the first.
    """
    # what an objective adds begins as the seed drew it
    left_out = ("parts.", *(f"blocks.{layer}.ffn." for layer in besides))
    wanted = {name: weight for name, weight in model.named_parameters() if not name.startswith(left_out)}
    theirs = {name: weight for name, weight in given.weights.items() if not name.startswith(left_out)}
    for name, weight in wanted.items():
        if name not in theirs:
            raise ValueError(f"start: {given.origin} has no {name}")
        if weight.shape != theirs[name].shape:
            shapes = f"{tuple(theirs[name].shape)} there, {tuple(weight.shape)} here"
            raise ValueError(f"start: {given.origin}: {name} is {shapes}")
    over = sorted(set(theirs) - set(wanted))
    if over:
        raise ValueError(f"start: {given.origin} has {over[0]}, and this model has not")
    for name, weight in wanted.items():
        weight.copy_(theirs[name])
