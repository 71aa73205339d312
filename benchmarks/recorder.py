"""Measure what recording the routing adds to a model's forward pass, on one CPU core.

    python benchmarks/recorder.py

Bar: at most .05 of the time of the same forward pass without it. Shadow routers, which are asked for, are timed apart.
A model of transformers (width 512, 4 layers, 16 experts, 2 of them a token, vocabulary 8192) with random weights reads
a batch of 2048 tokens. `recorded` is all that recording does: hooks, probabilities, order, margins, and counting by
document.
"""

import argparse
import functools
from collections.abc import Callable

import torch
from timing import medians, show
from torch import nn

from speciate.recording.recorder import Recording, record_routing
from speciate.selection.text import Text

BAR, ROWS, LENGTH, VOCABULARY, SHADOWS = 0.05, 4, 512, 8192, 4
FAMILIES = ("mixtral", "deepseek_v3")


def build(family: str) -> nn.Module:
    """Return a model of a family, with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {
        "mixtral": {"num_local_experts": 16, "intermediate_size": 1024},
        "deepseek_v3": {
            "n_routed_experts": 16,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 1024,
            "n_group": 4,
            "topk_group": 2,
            "q_lora_rank": 128,
            "kv_lora_rank": 64,
            "first_k_dense_replace": 0,
            "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 48,
            "v_head_dim": 64,
            "intermediate_size": 1024,
        },
    }[family]
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCABULARY,
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=LENGTH,
        **settings,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def passes(model: nn.Module, recording: Recording | None = None) -> Callable[[], None]:
    """Return what runs the model once."""
    token_BT = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    mask_BT = torch.ones_like(token_BT)

    @torch.no_grad()
    def run() -> None:
        if recording is not None:
            recording.texts = [Text(str(row), "", "ab"[row % 2]) for row in range(ROWS)]
        model(input_ids=token_BT, attention_mask=mask_BT, use_cache=False)

    return run


def main() -> None:
    """Time each family with and without a recorder, by turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for family in FAMILIES:
        model = build(family)

        def recorded(shadows: int = 0, model: nn.Module = model) -> None:
            with record_routing(model, shadows=shadows) as recording:
                passes(model, recording)()

        cases = {
            "unrecorded": passes(model),
            "recorded": recorded,
            f"recorded with {SHADOWS} shadows": functools.partial(recorded, SHADOWS),
        }
        seconds = medians(cases, rounds)
        show(f"{family}, recording its routing", seconds, "recorded", {"unrecorded": 1 + BAR})


if __name__ == "__main__":
    main()
