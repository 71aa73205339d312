"""Measure what a mixer costs as blocks grow longer: memory kept for the backward pass, and CPU time.

The memory is exact: the bytes of all distinct tensors that autograd saves in the forward pass, without weights and
input. The time is CPU time, the median of a few rounds in which all mixers take turns. Run it on one thread, so that
the times mean something on a shared machine.

B blocks of T tokens, D width.
"""

import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speciate.config.run import ModelSpec
from speciate.io import is_out_of_memory
from speciate.model.cache import Cache
from speciate.model.initial_weights import initialise
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.selection import record_selections, selectors

Place = tuple[str, int]
"""(name of the model, layer) of a mixer."""


@dataclass(frozen=True, slots=True)
class MixerCost:
    """Cost of one mixer on one block."""

    name: str
    """Name of the mixer's model."""
    mixer: str
    """Kind of the mixer."""
    layer: int
    """First layer with this mixer, from 0."""
    length: int
    """Number of tokens of the block, T."""
    kept_bytes: int
    """Bytes saved for the backward pass."""
    train_ms: float
    """CPU milliseconds of the forward and backward pass."""
    decode_ms: float
    """CPU milliseconds of one token after T - 1 others."""


def distinct_mixers(model: ModelSpec) -> list[int]:
    """Return the first layer of each mixer that the model has; mixers with other options are other mixers."""
    mixers = [model.block_of(layer).mixer for layer in range(model.num_layers)]
    return [layer for layer, mixer in enumerate(mixers) if mixer not in mixers[:layer]]


def build_mixer(model: ModelSpec, longest: int, layer: int = 0, seed: int = 0) -> nn.Module:
    """Build a layer's mixer for blocks of up to `longest` tokens, with initial weights and past any warm-up."""
    extended = model.model_copy(update={"context": max(longest, model.context)})
    options = extended.block_of(layer).mixer
    mixer: nn.Module = options.component().Mixer(options, BuildContext(extended, layer, 2, seed))
    initialise(mixer, seed, model.init_std, model.embedding_std, num_layers=model.num_layers)
    for selector in selectors(mixer).values():
        selector.before_update(1.0)
    return mixer


def count_kept_bytes(mixer: nn.Module, x_BTD: Tensor, tokens: TokenBatch) -> int:
    """Return the bytes that the forward pass keeps for the backward pass, without weights and the input."""
    inputs = {tensor.untyped_storage().data_ptr() for tensor in (*mixer.parameters(), *mixer.buffers(), x_BTD)}
    # the tensors stay alive until all are counted, so that no two share an address
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y_BTD, loss = _forward(mixer, x_BTD, tokens)
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in saved}
    del y_BTD, loss
    return sum(size for address, size in sizes.items() if address not in inputs)


def _forward(mixer: nn.Module, x_BTD: Tensor, tokens: TokenBatch) -> tuple[Tensor, Tensor]:
    """Return the mixer's output and its selectors' own losses, as in training."""
    with record_selections(mixer) as record:
        y_BTD: Tensor = mixer(x_BTD, tokens)
    return y_BTD, sum((selection.loss for selection in record.values()), y_BTD.new_zeros(()))


def measure_mixer_costs(models: Mapping[str, ModelSpec], lengths: Sequence[int], rounds: int = 3) -> list[MixerCost]:
    """Measure every distinct mixer of each model, on one block of each length.

    Args:
        models: the models by name.
        lengths: numbers of tokens of a block, T.
        rounds: number of rounds whose median is taken.

    Raises:
        ValueError: a length is below 2, or needs more memory than there is; names the length.
    """
    if not lengths or min(lengths) < 2:
        raise ValueError(f"lengths: a block needs at least two tokens, not {min(lengths, default=0)}")
    places = [(name, layer) for name, model in models.items() for layer in distinct_mixers(model)]
    rows: list[MixerCost] = []
    length = max(lengths)
    try:
        mixers = {(name, layer): build_mixer(models[name], length, layer) for name, layer in places}
        for length in lengths:
            rows += _measure_length(models, mixers, length, rounds)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        needed = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
        asked = f": a tensor of {needed[1]} does not fit" if needed else ""
        raise ValueError(f"lengths: there is not enough memory for a block of {length} tokens{asked}") from None
    return rows


def _measure_length(
    models: Mapping[str, ModelSpec], mixers: Mapping[Place, nn.Module], length: int, rounds: int
) -> Iterator[MixerCost]:
    """Yield the cost of each mixer on a block of `length` tokens."""
    tokens = TokenBatch.of(torch.zeros((1, length), dtype=torch.long))
    x_1TD = {
        name: torch.randn(1, length, model.width, generator=torch.Generator().manual_seed(length))
        for name, model in models.items()
    }
    steps: dict[tuple[str, Place], Callable[[], None]] = {}
    for place, mixer in mixers.items():
        name, layer = place
        steps["train", place] = _training(mixer, x_1TD[name], tokens)
        steps["decode", place] = _decoding(mixer, layer, x_1TD[name], tokens)
    times = _medians(steps, rounds)
    for place, mixer in mixers.items():
        name, layer = place
        kept = count_kept_bytes(mixer.train(), x_1TD[name].detach().requires_grad_(), tokens)
        kind = models[name].block_of(layer).mixer.kind
        yield MixerCost(name, kind, layer, length, kept, times["train", place], times["decode", place])


def _training(mixer: nn.Module, x_BTD: Tensor, tokens: TokenBatch) -> Callable[[], None]:
    gradient_BTD = torch.randn(x_BTD.shape, generator=torch.Generator().manual_seed(1))

    def step() -> None:
        mixer.train()
        mixer.zero_grad(set_to_none=True)
        y_BTD, loss = _forward(mixer, x_BTD.detach().requires_grad_(), tokens)
        ((y_BTD * gradient_BTD).sum() + loss).backward()

    return step


def _decoding(mixer: nn.Module, layer: int, x_BTD: Tensor, tokens: TokenBatch) -> Callable[[], None]:
    length = tokens.id_BT.shape[1]
    read: list[Cache] = []

    @torch.no_grad()
    def step() -> None:
        mixer.eval()
        if not read:
            read.append(Cache())
            mixer(x_BTD[:, :-1], TokenBatch.of(tokens.id_BT[:, :-1], cache=read[0]))
            read[0].length = length - 1
        # the step does not overwrite the cached tensors, so the same token can be read again
        again, state = Cache(), read[0].state(layer)
        assert state is not None, "every mixer caches something"
        again.length = length - 1
        again.set_state(layer, *state)
        mixer(x_BTD[:, -1:], TokenBatch.of(tokens.id_BT[:, -1:], cache=again))

    return step


def _medians(steps: Mapping[tuple[str, Place], Callable[[], None]], rounds: int) -> dict[tuple[str, Place], float]:
    """Return each step's median CPU milliseconds; a round runs each step once, and a warm-up round does not count."""
    times: dict[tuple[str, Place], list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if number:
                times[name].append(1000 * (time.process_time() - started))
    return {name: statistics.median(values) for name, values in times.items()}
