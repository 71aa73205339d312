"""What a mixer costs as blocks grow longer: memory kept for the backward pass, and processor time.

Kept memory is counted exactly, as the bytes of all different tensors that autograd saves in the forward pass, weights
and the input aside. Time is CPU seconds, the median of a few rounds in which all mixers take turns; on one thread, so
that it means something on a shared machine.

B blocks of T tokens, D width.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speciate.config.run import ModelSpec
from speciate.model.cache import Cache
from speciate.model.initial_weights import initialise
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.selection import recording, selectors


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one block and one mixer."""

    name: str
    length: int
    """Tokens of the block, T."""
    kept_bytes: int
    """Saved for the backward pass."""
    train_ms: float
    """CPU milliseconds, forward and backward."""
    decode_ms: float
    """CPU milliseconds of one token after T - 1 others."""


LAYER = 0
"""Whose mixer is measured."""


def mixer_of(model: ModelSpec, longest: int, seed: int = 0) -> nn.Module:
    """The mixer of the model's first layer for blocks of up to `longest` tokens, as drawn, past any warm-up."""
    roomy = model.model_copy(update={"context": max(longest, model.context)})
    options = roomy.block_of(LAYER).mixer
    built: nn.Module = options.component().Mixer(options, BuildContext(roomy, LAYER, 2, seed))
    initialise(built, seed, model.init_std, model.embedding_std, model.num_layers)
    for selector in selectors(built).values():
        selector.before_update(1.0)
    return built


def kept_bytes(mixer: nn.Module, x_BTD: Tensor, tokens: TokenBatch) -> int:
    """Bytes that the forward pass keeps for the backward pass, beside weights and the input."""
    given = {tensor.untyped_storage().data_ptr() for tensor in (*mixer.parameters(), *mixer.buffers(), x_BTD)}
    # the tensors themselves are kept until all are counted, so that no two share an address
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y_BTD, loss = _forward(mixer, x_BTD, tokens)
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in saved}
    del y_BTD, loss
    return sum(size for address, size in sizes.items() if address not in given)


def _forward(mixer: nn.Module, x_BTD: Tensor, tokens: TokenBatch) -> tuple[Tensor, Tensor]:
    """The mixer's output and its selectors' own losses, as in training."""
    with recording(mixer) as record:
        y_BTD: Tensor = mixer(x_BTD, tokens)
    return y_BTD, sum((selection.loss for selection in record.values()), y_BTD.new_zeros(()))


def costs(models: Mapping[str, ModelSpec], lengths: Sequence[int], rounds: int = 3) -> list[Cost]:
    """A row for each mixer and length.

    Args:
        models: by the name of each mixer; of each model the mixer of its first layer, on one block.
        lengths: T.
        rounds: to take the median of.

    Raises:
        ValueError: a length below 2.
    """
    if not lengths or min(lengths) < 2:
        raise ValueError(f"lengths: a block has two tokens or more, not {min(lengths, default=0)}")
    mixers = {name: mixer_of(model, max(lengths)) for name, model in models.items()}
    found: list[Cost] = []
    for length in lengths:
        tokens = TokenBatch.of(torch.zeros((1, length), dtype=torch.long))
        x_1TD = {
            name: torch.randn(1, length, model.width, generator=torch.Generator().manual_seed(length))
            for name, model in models.items()
        }
        steps: dict[str, Callable[[], None]] = {}
        for name, mixer in mixers.items():
            steps[f"train/{name}"] = _training(mixer, x_1TD[name], tokens)
            steps[f"decode/{name}"] = _decoding(mixer, x_1TD[name], tokens)
        took = _medians(steps, rounds)
        for name, mixer in mixers.items():
            kept = kept_bytes(mixer.train(), x_1TD[name].requires_grad_(), tokens)
            found.append(Cost(name, length, kept, took[f"train/{name}"], took[f"decode/{name}"]))
    return found


def _training(mixer: nn.Module, x_BTD: Tensor, tokens: TokenBatch) -> Callable[[], None]:
    gradient_BTD = torch.randn(x_BTD.shape, generator=torch.Generator().manual_seed(1))

    def step() -> None:
        mixer.train()
        mixer.zero_grad(set_to_none=True)
        y_BTD, loss = _forward(mixer, x_BTD.detach().requires_grad_(), tokens)
        ((y_BTD * gradient_BTD).sum() + loss).backward()

    return step


def _decoding(mixer: nn.Module, x_BTD: Tensor, tokens: TokenBatch) -> Callable[[], None]:
    length = tokens.id_BT.shape[1]
    read: list[Cache] = []

    @torch.no_grad()
    def step() -> None:
        mixer.eval()
        if not read:
            read.append(Cache())
            mixer(x_BTD[:, :-1], TokenBatch.of(tokens.id_BT[:, :-1], cache=read[0]))
            read[0].length = length - 1
        # what the cache kept is not overwritten by the step, so the same token can be read again
        again, state = Cache(), read[0].state(LAYER)
        assert state is not None, "a mixer keeps something"
        again.length = length - 1
        again.keep(LAYER, *state)
        mixer(x_BTD[:, -1:], TokenBatch.of(tokens.id_BT[:, -1:], cache=again))

    return step


def _medians(steps: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each step; every round runs each once, after one round that does not count."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if number:
                took[name].append(1000 * (time.process_time() - started))
    return {name: statistics.median(values) for name, values in took.items()}
