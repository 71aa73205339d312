"""Upcycling (Komatsuzaki et al. 2022): each expert starts as a copy of the dense feed-forward layer, the router anew.

    expert_e = dense + noise std(dense tensor) N(0, 1)

The noise breaks the symmetry of the copies (moe-emergence has 1e-3). Drop-upcycling (Nakamura et al. 2025) breaks more
of it: each expert redraws a share `drop` of its hidden units, chosen for that expert. Each of their tensors comes from
a normal distribution with the mean and the standard deviation of the dense tensor on those units.

A shared expert is a copy too, with noise and without drops. With C of them besides the chosen ones, the second layer of
every copy is divided by 1 + C. Weights over the chosen experts sum to one, unless `choice` says otherwise, so without
noise and drops the model computes the same function as the dense one.

E experts, D width, F hidden units (G = F or 2F of them before a gate), R units drawn anew.
"""

import pathlib
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from speciate.config.run import RunSpec
from speciate.model.block import Block
from speciate.model.hf.pretrained import Pretrained
from speciate.model.initial_weights import generator
from speciate.model.moe.experts import Experts
from speciate.model.transformer import Transformer
from speciate.training.init.start_options import TrainedStartOptions
from speciate.training.init.transfer import copy_weights, dense_ffn_weights, load_pretrained, non_dense_layers


class Options(TrainedStartOptions):
    """Options of upcycling: the dense model, and how the copies differ."""

    fills_experts: ClassVar[bool] = True
    """Whether experts are filled from the origin's dense layers, so that their sizes and activations must agree."""

    noise: float = Field(0.001, ge=0)
    """Standard deviation of the noise added to each tensor of each expert, as a share of the tensor's own."""
    drop: float = Field(0.0, ge=0, le=1)
    """Share of each expert's hidden units that are drawn anew; 0.5 is the paper's choice."""


def initialise(options: Options, model: Transformer, run: RunSpec, path: pathlib.Path | None) -> None:
    """Copy the dense model's weights into `model`, and its feed-forward layers into every expert.

    Raises:
        ValueError: the weights do not fit, a layer's experts differ from the dense layer in size or activation, or
            there are no experts.
    """
    layers = non_dense_layers(run)
    source = load_pretrained(options.origin, run, path)
    if not layers:
        raise ValueError(f"{run.ablation}: start: upcycle: the model has no experts; use start: dense")
    copy_weights(model, source, layers)
    for layer in layers:
        where = f"{run.ablation}: start: upcycle: layer {layer}"
        block = model.blocks[layer]
        assert isinstance(block, Block)
        children = dict(block.ffn.named_children())
        experts, shared = children.get("experts"), children.get("shared")
        if not isinstance(experts, Experts):
            raise ValueError(f"{where}: {run.model.block_of(layer).ffn.kind} has no experts to fill")
        dense = _expert_layout(source, layer, run, where)
        if isinstance(shared, Experts):
            copies = 1 + len(shared.in_weight)
            dense = {name: tensor / copies if name.startswith("out_") else tensor for name, tensor in dense.items()}
            fill_experts(shared, dense, options.model_copy(update={"drop": 0.0}), (run.seed, layer, "shared"))
        fill_experts(experts, dense, options, (run.seed, layer))


def _expert_layout(source: Pretrained, layer: int, run: RunSpec, where: str) -> dict[str, Tensor]:
    """Return the dense layer's tensors under the names of `Experts`, with matrices as (inputs, outputs) as there."""
    dense_ffn, moe_ffn = source.model.block_of(layer).ffn.model_dump(), run.model.block_of(layer).ffn.model_dump()
    for key in ("hidden", "activation"):
        if dense_ffn[key] != moe_ffn[key]:
            raise ValueError(f"{where}: ffn.{key} is {moe_ffn[key]!r} here, {dense_ffn[key]!r} in {source.origin}")
    names = {"up.weight": "in_weight", "up.bias": "in_bias", "out.weight": "out_weight", "out.bias": "out_bias"}
    dense = dense_ffn_weights(source, layer)
    return {names[name]: weight.t() if weight.ndim == 2 else weight for name, weight in dense.items()}


@torch.no_grad()
def fill_experts(experts: Experts, dense: dict[str, Tensor], options: Options, names: tuple[object, ...]) -> None:
    """Fill every expert from the dense layer; `names` and the expert's index seed all draws."""
    hidden = experts.out_weight.shape[1]
    for expert in range(len(experts.in_weight)):
        units = torch.randperm(hidden, generator=generator("upcycle", *names, expert, "units"))
        dropped_R = units[: round(options.drop * hidden)]
        for name, tensor in dense.items():
            draw = generator("upcycle", *names, expert, name)
            noise = torch.empty(tensor.shape).normal_(generator=draw)
            copy = tensor + options.noise * tensor.std() * noise
            if len(dropped_R) and name != "out_bias":
                _redraw(copy, tensor, dropped_R, hidden, draw=draw, rows=name == "out_weight")
            getattr(experts, name)[expert] = copy


def _redraw(copy: Tensor, dense: Tensor, dropped_R: Tensor, hidden: int, *, draw: torch.Generator, rows: bool) -> None:
    """Redraw the weights of these hidden units: rows of W_out, else columns (of gate and up)."""
    for start in range(0, dense.shape[0] if rows else dense.shape[-1], hidden):
        index = dropped_R + start
        old = dense[index] if rows else dense[..., index]
        new = torch.empty(old.shape).normal_(float(old.mean()), float(old.std()), generator=draw)
        if rows:
            copy[index] = new
        else:
            copy[..., index] = new
