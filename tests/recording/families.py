"""What the families' tests share: texts, a recorded run of a tiny model, and what its experts served.

N tokens, E experts.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tests.recording.tiny import NUM_EXPERTS, tiny_model
from torch import Tensor, nn

from speciate.recording.record_model import record_model
from speciate.selection.record_sums import SelectorShape
from speciate.selection.routing_record import RoutingRecord
from speciate.selection.text import Text

BLOCK_LENGTH = 12


class LetterTokenizer:
    """Take each letter for a token."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 94 for letter in text]


TEXTS = [
    Text("first", "thequickbrownfox"[:BLOCK_LENGTH], "even"),
    Text("second", "jumpsov", "odd"),
    Text("third", "erthelazyd", "even"),
]


@dataclass
class Decisions:
    """Keeps what the recorder hands on, by the router's path."""

    shapes: dict[str, SelectorShape] = field(default_factory=dict)
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, shape: SelectorShape, document_N: Sequence[Text], phase: str, decisions: dict[str, Any]) -> None:
        self.shapes[shape.path] = shape
        names_N = np.array([text.document for text in document_N])
        self.parts.setdefault(shape.path, []).append({"document_N": names_N, "phase": phase, **decisions})

    def all(self, path: str, name: str) -> npt.NDArray[Any]:
        return np.concatenate([part[name] for part in self.parts[path]])


@dataclass
class Run:
    """One recorded run of a tiny model."""

    model: Any
    record: RoutingRecord
    decisions: Decisions


def record(family: str, texts: list[Text] = TEXTS, **settings: Any) -> Run:
    """Record a family's tiny model on texts."""
    decisions, model = Decisions(), tiny_model(family)
    settings = {"block_length": BLOCK_LENGTH, "batch_size": 8, **settings}
    made = record_model(model, LetterTokenizer(), texts, sinks=[decisions], source=family, **settings)
    return Run(model, made, decisions)


recorded = functools.cache(record)


def inputs(model: Any, texts: list[Text] = TEXTS) -> dict[str, Tensor]:
    """Return what the recorder gives the model for these texts, made here by hand: padded on the right."""
    ids = [LetterTokenizer().encode(text.text) for text in texts]
    longest = max(map(len, ids))
    token_BT = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    mask_BT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    given = {"input_ids": token_BT, "attention_mask": mask_BT}
    if model.config.is_encoder_decoder:
        start = torch.full_like(token_BT[:, :1], model.config.decoder_start_token_id)
        given |= {
            "decoder_input_ids": torch.cat([start, token_BT[:, :-1]], dim=1),
            "decoder_attention_mask": mask_BT,
        }
    return given


def block_of(model: nn.Module, path: str) -> nn.Module:
    """Return the module that holds a router and its experts, and that can be called."""
    parent = model.get_submodule(path.rpartition(".")[0])
    if type(parent).__name__ == "JetMoeMoA":
        return model.get_submodule(path.rpartition(".")[0].rpartition(".")[0])
    return parent


def experts_of(model: nn.Module, path: str) -> list[nn.Module]:
    """Return the modules that hold the weights of the experts beside a router."""
    parent = model.get_submodule(path.rpartition(".")[0])
    if type(parent).__name__ == "JetMoeMoA":
        return [parent.output_linear]
    if type(parent).__name__ == "JetMoeMoE":
        return [parent.input_linear, parent.output_linear]
    return [parent.experts]


@torch.no_grad()
def calls(model: nn.Module, module: nn.Module) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return what a module is called with on the texts."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args, kwargs))

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    model(**inputs(model), use_cache=False)
    handle.remove()
    return seen


@torch.no_grad()
def served(model: nn.Module, path: str) -> npt.NDArray[np.bool_]:
    """Return which expert serves which token of the texts, (N, E), without looking at any choice.

    An expert's weights are altered. The tokens whose output then differs are those that it served.
    """
    block = block_of(model, path)
    ((args, kwargs),) = calls(model, block)
    kwargs = {name: value for name, value in kwargs.items() if name != "past_key_values"}
    real_N = inputs(model)["attention_mask"].flatten().bool().numpy()
    before = _tokens(block(*args, **kwargs), len(real_N))
    result = np.zeros((len(before), NUM_EXPERTS), dtype=bool)
    for expert in range(NUM_EXPERTS):
        weights = [part for module in experts_of(model, path) for part in _weights(module, expert)]
        old = [weight.clone() for weight in weights]
        for weight in weights:
            weight.add_(0.5).mul_(1.5)
        result[:, expert] = (before != _tokens(block(*args, **kwargs), len(real_N))).any(axis=1)
        for weight, value in zip(weights, old, strict=True):
            weight.copy_(value)
    return result[real_N]


def _weights(module: nn.Module, expert: int) -> list[Tensor]:
    if isinstance(module, nn.ModuleDict):
        return list(module[f"expert_{expert}"].parameters())
    found = []
    for name, value in module.named_parameters():
        size = len(value) // NUM_EXPERTS
        is_shared = "norm" in name
        if not is_shared and len(value) % NUM_EXPERTS == 0 and name not in ("bias",):
            found.append(value.data[expert * size : (expert + 1) * size])
    return found


def _tokens(output: Any, num_tokens: int) -> npt.NDArray[np.float64]:
    """Return a block's output as one row a token."""
    output = output[0] if isinstance(output, tuple) else output
    return output.reshape(num_tokens, -1).double().numpy()
