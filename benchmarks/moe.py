"""Compare our MoE layer with a dense layer of equal FLOPs and with transformers' Mixtral, on one CPU core.

    python benchmarks/moe.py

Bars, forward and backward: at most 1.0 times dense, and at most .97 times the better of transformers'
implementations. There are 4,096 tokens of width 256 and 8 experts of 1,024 hidden units with SwiGLU and without
biases (Mixtral's shape), in fp32. All have weights of the same shapes and do the same routing work.
"""

import argparse
from collections.abc import Callable

import torch
from timing import medians, show
from torch import Tensor, nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from speciate.config.components import component_module
from speciate.config.run import ModelSpec
from speciate.model.initial_weights import initialise
from speciate.model.token_batch import BuildContext, TokenBatch

WIDTH, HIDDEN, NUM_EXPERTS, NUM_TOKENS = 256, 1024, 8, 4096


def layer(ffn: dict[str, object]) -> nn.Module:
    """Return one of our feed-forward layers."""
    block = {"mixer": {"kind": "attention"}, "ffn": ffn, "depth": "every"}
    model = ModelSpec.model_validate({"width": WIDTH, "biases": False, "block": block})
    built: nn.Module = component_module(model.block.ffn).FeedForward(model.block.ffn, BuildContext(model, 0, 512))
    initialise(built, 0, std=0.02, embedding_std=0.02, num_layers=4)
    return built


def mixtral(top_k: int, implementation: str) -> nn.Module:
    """Return transformers' layer of the same shape."""
    config = MixtralConfig(
        hidden_size=WIDTH, intermediate_size=HIDDEN, num_local_experts=NUM_EXPERTS, num_experts_per_tok=top_k
    )
    config._experts_implementation = implementation
    built = MixtralSparseMoeBlock(config)
    initialise(built, 0, std=0.02, embedding_std=0.02, num_layers=4)
    return built


def pass_through(run: Callable[[Tensor], Tensor], module: nn.Module, x_BTD: Tensor, gradient_BTD: Tensor) -> None:
    """Run forward and backward once."""
    x_BTD.grad = None
    module.zero_grad(set_to_none=True)
    run(x_BTD).backward(gradient_BTD)


def main() -> None:
    """Time top-1 and top-2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x_BTD = torch.randn(32, NUM_TOKENS // 32, WIDTH, requires_grad=True)
    gradient_BTD = torch.randn_like(x_BTD)
    tokens = TokenBatch.of(torch.randint(512, x_BTD.shape[:2]))
    for top_k in (1, 2):
        shape = {"num_experts": NUM_EXPERTS, "top_k": top_k, "hidden": HIDDEN, "activation": "swiglu"}
        ours = layer({"kind": "moe", "router": "learned", "balance": "none", **shape})
        dense = layer({"kind": "dense", "hidden": HIDDEN * top_k, "activation": "swiglu"})
        modules: dict[str, nn.Module] = {"ours": ours, "dense": dense}
        modules |= {f"mixtral_{name}": mixtral(top_k, name) for name in ("eager", "grouped_mm")}

        def case(name: str, module: nn.Module) -> Callable[[], None]:
            run = module if name.startswith("mixtral") else lambda x_BTD: module(x_BTD, tokens)
            return lambda: pass_through(run, module, x_BTD, gradient_BTD)

        seconds = medians({name: case(name, module) for name, module in modules.items()}, rounds)
        show(f"moe top-{top_k}", seconds, "ours", {"dense": 1.0, "mixtral_eager": 0.97, "mixtral_grouped_mm": 0.97})


if __name__ == "__main__":
    main()
