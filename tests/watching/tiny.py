"""Make tiny Mixtral models and batches for the tests of the watch."""

import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

VOCABULARY, LAYERS, EXPERTS = 50, 2, 8


def mixtral(chosen: int = 1, **settings: object) -> MixtralForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=LAYERS,
        num_local_experts=EXPERTS,
        num_experts_per_tok=chosen,
        **sizes,
        **settings,
    )
    return MixtralForCausalLM(config)


def ids(rows: int, length: int = 12, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def send_all_to(model: MixtralForCausalLM, layer: int, expert: int) -> None:
    """Make one layer's router choose one expert for every token: all its logits are the same constant but one."""
    gate = model.model.layers[layer].mlp.gate
    with torch.no_grad():
        gate.weight.zero_()
    gate.register_forward_hook(lambda module, args, output: prefer(output, expert))


def prefer(output: tuple[Tensor, Tensor, Tensor], expert: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a router's output with `expert` as the first choice of every token."""
    logits, scores, chosen = output
    return logits, scores, torch.full_like(chosen, expert)
