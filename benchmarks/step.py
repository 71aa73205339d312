"""One dense training step on one CPU core: ours against transformers' GPT2LMHeadModel in a plain loop, fp32.

    python benchmarks/step.py

Bar: transformers' step takes at least 1.5x ours (ratio at most .667). The same shape (width 256, 6 layers, GPT-2's tanh
gelu, vocabulary 4,096), 16 blocks of 128 tokens, clipping at 1. The plain loop is the documented one: loss from the
model, torch.optim.AdamW as it comes; with no dropout (the same work as ours) and with the model as constructed (dropout
.1). Ours also with the exact gelu that the default study trains with. The step's matrix products alone are the floor.
"""

import argparse
from collections.abc import Callable

import torch
from timing import medians, show
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from speciate import spec
from speciate.kinds import component, options_of
from speciate.model.transformer import Transformer

WIDTH, NUM_LAYERS, NUM_HEADS, VOCABULARY = 256, 6, 8, 4096
NUM_BLOCKS, LENGTH = 16, 128


def our_step(token_BT: Tensor, activation: str) -> Callable[[], None]:
    """One update of our model."""
    block = {
        "mixer": {"kind": "attention", "num_heads": NUM_HEADS},
        "ffn": {"kind": "dense", "hidden": 4 * WIDTH, "activation": activation},
        "depth": "every",
    }
    shape = {"width": WIDTH, "num_layers": NUM_LAYERS, "context": LENGTH, "block": block}
    model = Transformer(spec.Model.model_validate(shape), VOCABULARY)
    objective_options = options_of("training/objective", "causal")(kind="causal")
    objective = component(objective_options).Objective(objective_options)
    optimizer_options = options_of("training/optimizer", "adamw")(kind="adamw")
    optimizer = component(optimizer_options).build(optimizer_options, model)

    def step() -> None:
        objective(model, token_BT).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def their_step(token_BT: Tensor, dropout: float) -> Callable[[], None]:
    """One update of transformers' model."""
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
    """The step's matrix products alone, forward and backward: no step in this precision can be faster."""
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
    """Times a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    token_BT = torch.randint(VOCABULARY, (NUM_BLOCKS, LENGTH))
    cases = {
        "ours": our_step(token_BT, "gelu_tanh"),
        "ours_exact_gelu": our_step(token_BT, "gelu"),
        "gpt2": their_step(token_BT, 0.0),
        "products_alone": products(),
        "gpt2_as_constructed": their_step(token_BT, 0.1),
    }
    seconds = medians(cases, rounds)
    for ours in ("ours", "ours_exact_gelu"):
        show("dense step", seconds, ours, {"gpt2": 0.667, "gpt2_as_constructed": 0.667})


if __name__ == "__main__":
    main()
