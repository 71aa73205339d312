"""Compare one dense training step with transformers' GPT2LMHeadModel in a plain loop, in fp32 on one CPU core.

    python benchmarks/step.py

Bar: transformers' step takes at least 1.5 times as long as ours (ratio at most .667). Both have the same shape (width
256, 6 layers, GPT-2's tanh gelu, vocabulary 4,096), 16 blocks of 128 tokens, and clipping at 1. The plain loop is the
documented one: the model's own loss and torch.optim.AdamW with its defaults. It is measured without dropout (the same
work as ours) and with the model as constructed (dropout .1). Ours is also measured with the exact gelu that the
default study uses. The step's matrix products alone are the lower limit.

The output also has the step's share of what this core can multiply: model FLOPs (model/profiling/flops.py) per CPU
second over those of a product of two square matrices, timed by turns with the steps. Bar: at least .75.
"""

import argparse
import json
from collections.abc import Callable

import torch
from timing import medians, show
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from speciate.config.components import component_module, options_of
from speciate.config.run import ModelSpec
from speciate.model.profiling.flops import flops_per_token
from speciate.model.transformer import Transformer

WIDTH, NUM_LAYERS, NUM_HEADS, VOCABULARY = 256, 6, 8, 4096
NUM_BLOCKS, LENGTH = 16, 128
SIZE = 2048
"""Of the square matrices whose product is this core's peak."""


def our_step(token_BT: Tensor, activation: str) -> tuple[Callable[[], None], float]:
    """Return one update of our model, and its FLOPs."""
    block = {
        "mixer": {"kind": "attention", "num_heads": NUM_HEADS},
        "ffn": {"kind": "dense", "hidden": 4 * WIDTH, "activation": activation},
        "depth": "every",
    }
    shape = {"width": WIDTH, "num_layers": NUM_LAYERS, "context": LENGTH, "block": block}
    model = Transformer(ModelSpec.model_validate(shape), VOCABULARY)
    objective_options = options_of("training/objective", "causal")(kind="causal")
    objective = component_module(objective_options).Objective(objective_options)
    optimizer_options = options_of("training/optimizer", "adamw")(kind="adamw")
    optimizer = component_module(optimizer_options).build(optimizer_options, model)

    def step() -> None:
        objective(model, token_BT).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, flops_per_token(model, LENGTH) * token_BT.numel()


def their_step(token_BT: Tensor, dropout: float) -> Callable[[], None]:
    """Return one update of transformers' model."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LENGTH,
        n_embd=WIDTH,
        n_layer=NUM_LAYERS,
        n_head=NUM_HEADS,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        loss_type="ForCausalLMLoss",
    )
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def step() -> None:
        model(input_ids=token_BT, labels=token_BT).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def products() -> Callable[[], None]:
    """Return the step's matrix products alone, forward and backward: no step in this precision can be faster."""
    num_tokens = NUM_BLOCKS * LENGTH
    joint = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)]
    shapes = joint * NUM_LAYERS + [(WIDTH, VOCABULARY)]
    inputs = {size: torch.randn(num_tokens, size) for size in {size for shape in shapes for size in shape}}
    weights = [torch.randn(shape) for shape in shapes]

    def step() -> None:
        for weight, (rows, columns) in zip(weights, shapes, strict=True):
            inputs[rows] @ weight
            inputs[columns] @ weight.T
            inputs[rows].T @ inputs[columns]

    return step


def main() -> None:
    """Time a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    token_BT = torch.randint(VOCABULARY, (NUM_BLOCKS, LENGTH))
    square_NN = torch.randn(SIZE, SIZE)
    step, flops = our_step(token_BT, "gelu_tanh")
    cases: dict[str, Callable[[], object]] = {
        "ours": step,
        "ours_exact_gelu": our_step(token_BT, "gelu")[0],
        "gpt2": their_step(token_BT, 0.0),
        "products_alone": products(),
        "gpt2_as_constructed": their_step(token_BT, 0.1),
        "square_product": lambda: square_NN @ square_NN,
    }
    seconds = medians(cases, rounds)
    for ours in ("ours", "ours_exact_gelu"):
        show("dense step", seconds, ours, {"gpt2": 0.667, "gpt2_as_constructed": 0.667})
    peak = 2 * SIZE**3 / seconds["square_product"]
    shares = {name: flops / seconds[name] / peak for name in ("ours", "ours_exact_gelu", "gpt2")}
    row = {
        "benchmark": "dense step, share of this core's fp32 peak",
        "gflops_per_cpu_second": {name: round(share * peak / 1e9, 1) for name, share in shares.items()}
        | {"square_product": round(peak / 1e9, 1)},
        "ours": "ours",
        "ours_over": {
            "square_product": {"ratio": round(shares["ours"], 3), "at_least": 0.75, "of": "gflops_per_cpu_second"}
        },
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
