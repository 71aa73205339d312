"""Compare Mamba and Routing Mamba with transformers' slow paths and with attention, on one CPU core.

    python benchmarks/scan.py

Bars, forward and backward: Mamba takes at most 1/1.2 of the time of transformers' Mamba-2 slow path, and Routing
Mamba (top-1 of 4) at most 1.3 times that of dense Mamba. Width 256, fp32. The backward pass of transformers' Mamba-1
slow path indexes whole sequences step by step, which multiplies its work by the length. It is therefore measured on
one block only, once in each round.
"""

import argparse
import time
from collections.abc import Callable

import torch
from timing import medians, show
from torch import Tensor, nn
from transformers import Mamba2Config, MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from speciate.config.components import component_module
from speciate.config.run import ModelSpec
from speciate.model.initial_weights import initialise
from speciate.model.token_batch import BuildContext, TokenBatch

WIDTH, STATE, EXPERTS = 256, 16, 4
ROUTED = {"num_experts": EXPERTS, "router": "learned", "balance": "none"}
OURS: dict[str, dict[str, object]] = {
    "mamba": {"kind": "mamba"},
    "attention": {"kind": "attention", "num_heads": 8},
    "rom_top1": {"kind": "rom", **ROUTED},
    "rom_top2": {"kind": "rom", "top_k": 2, **ROUTED},
    "rom_independent": {"kind": "rom", "routed": "independent", **ROUTED},
    "rom_as_published": {"kind": "rom", "routed": "as_published", "top_k": 2, **ROUTED},
}


def layer(mixer: dict[str, object], length: int) -> nn.Module:
    """Return one of our mixers."""
    block = {"mixer": mixer, "ffn": "dense", "depth": "every"}
    settings = {"width": WIDTH, "context": length, "biases": False, "position": "rotary", "block": block}
    model = ModelSpec.model_validate(settings)
    built: nn.Module = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, 512))
    initialise(built, 0, std=0.02, embedding_std=0.02, num_layers=4)
    return built


def theirs(name: str, length: int) -> nn.Module:
    """Return transformers' layer of the same width; Mamba-2 with as many states a channel as its paper, and as ours."""
    if name == "transformers_mamba1":
        return MambaMixer(MambaConfig(hidden_size=WIDTH, state_size=STATE, num_hidden_layers=1), layer_idx=0)
    state = {"transformers_mamba2": 128, "transformers_mamba2_state16": STATE}[name]
    shape = {"num_heads": 2 * WIDTH // 64, "head_dim": 64, "n_groups": 1, "chunk_size": min(256, length)}
    return Mamba2Mixer(Mamba2Config(hidden_size=WIDTH, state_size=state, num_hidden_layers=1, **shape), layer_idx=0)


def cases(names: list[str], num_blocks: int, length: int) -> dict[str, Callable[[], None]]:
    """Return forward and backward of each layer, by name."""
    x_BTD = torch.randn(num_blocks, length, WIDTH, requires_grad=True)
    gradient_BTD = torch.randn_like(x_BTD)
    tokens = TokenBatch.of(torch.randint(512, (num_blocks, length)))

    def case(name: str) -> Callable[[], None]:
        mixer = layer(OURS[name], length) if name in OURS else theirs(name, length)

        def once() -> None:
            x_BTD.grad = None
            mixer.zero_grad(set_to_none=True)
            y_BTD: Tensor = mixer(x_BTD, tokens) if name in OURS else mixer(x_BTD)
            y_BTD.backward(gradient_BTD)

        return once

    return {name: case(name) for name in names}


def main() -> None:
    """Time blocks of the study's length and long ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    peers = {"transformers_mamba2": 1 / 1.2, "transformers_mamba2_state16": 1 / 1.2}
    for num_blocks, length in ((16, 128), (1, 512), (4, 512)):
        seconds = medians(cases(["mamba", "attention", *peers], num_blocks, length), rounds)
        show(f"mamba {num_blocks} x {length}", seconds, "mamba", peers)
        named = [name for name in OURS if name.startswith("rom")]
        seconds = medians(cases(["mamba", *named], num_blocks, length), rounds)
        show(f"rom top-1 of {EXPERTS}, {num_blocks} x {length}", seconds, "rom_top1", {"mamba": 1.3})
    length = 512
    both = cases(["mamba", "transformers_mamba1"], 1, length)
    found: dict[str, float] = {}
    for name, case in both.items():
        started = time.process_time()
        case()
        found[name] = time.process_time() - started
    show(f"mamba against Mamba-1's slow path, once, 1 x {length}", found, "mamba", {"transformers_mamba1": 1.0})


if __name__ == "__main__":
    main()
