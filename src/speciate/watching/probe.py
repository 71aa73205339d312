"""What a watch does with the model and with the probe batch: unwrap, run, compare."""

import contextlib
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module whose own forward runs at each step: the one inside wrappers of torch."""
    if isinstance(model, nn.DataParallel):
        raise ValueError(
            "a model in DataParallel cannot be watched, since its replicas live for one step; use"
            " DistributedDataParallel"
        )
    while True:
        if isinstance(model, torch._dynamo.OptimizedModule):
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def refuse_compiled(model: nn.Module) -> None:
    """Raise ValueError for a compiled model, whose forward passes need not call hooks."""
    for path, module in model.named_modules():
        if isinstance(module, torch._dynamo.OptimizedModule) or vars(module).get("_compiled_call_impl") is not None:
            raise ValueError(
                f"{path or 'the model'}: is compiled by torch.compile, so the choices of its training batches cannot be"
                " counted; give the watch a probe, which runs without compilation"
            )


def call_with_probe(model: nn.Module, probe: Any) -> None:
    """Call the model with the probe, without a loss, without a cache, and with as few logits as it allows."""
    device = next(model.parameters()).device

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    if isinstance(probe, Mapping):
        known = inspect.signature(model.forward).parameters
        spared = {"use_cache": False, "logits_to_keep": 1}
        given = {name: moved(value) for name, value in probe.items() if name not in ("labels", "decoder_labels")}
        model(**{**{name: value for name, value in spared.items() if name in known}, **given})
    elif isinstance(probe, Tensor):
        model(moved(probe))
    else:
        model(*[moved(value) for value in probe])


@contextlib.contextmanager
def probing(model: nn.Module) -> Iterator[None]:
    """Run what is inside in evaluation mode and without compiled code, which need not call hooks.

    It leaves no gradient, and weights, flags and random generators as they were.
    """
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    devices = {weight.device.index for weight in model.parameters() if weight.device.type == "cuda"}
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[index for index in devices if index is not None]),
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        for module, flag in was_training.items():
            module.training = flag


def digest(probe: Any) -> str:
    """Return a digest of a probe's tensors, by which ranks and saved states are compared."""
    hashed = hashlib.sha256()
    values = (
        probe.items()
        if isinstance(probe, Mapping)
        else [("", probe)]
        if isinstance(probe, Tensor)
        else enumerate(probe)
    )
    for name, value in values:
        hashed.update(f"{name}:".encode())
        if isinstance(value, Tensor):
            hashed.update(f"{value.dtype}{tuple(value.shape)}".encode())
            hashed.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        else:
            hashed.update(repr(value).encode())
    return hashed.hexdigest()
