"""Test the choices of the finished model on the probe set against its own routers, called block by block."""

import numpy as np
import torch

from speciate.config.run import ModelSpec
from speciate.data.blocks import BlockSet
from speciate.model.transformer import Transformer
from speciate.selection.selection import record_selections
from speciate.stages import evaluate
from speciate.training.objective import causal


def small_model(top_k: int) -> Transformer:
    torch.manual_seed(0)
    ffn = {"kind": "moe", "num_experts": 4, "top_k": top_k, "hidden": 8, "router": "learned", "balance": "none"}
    block = {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": ffn, "depth": "every"}
    shape = {"width": 8, "num_layers": 2, "context": 6, "init_std": 0.5, "embedding_std": 1.0, "block": block}
    return Transformer(ModelSpec.model_validate(shape), 16).eval()


def probe_set() -> BlockSet:
    import pandas as pd

    draw = np.random.Generator(np.random.Philox(1))
    num_blocks = 70  # more blocks than are evaluated at once, and not a multiple of that number
    return BlockSet(
        name="probe",
        domains=("a",),
        tokens=draw.integers(0, 16, (num_blocks, 6)),
        document=np.repeat(np.arange(num_blocks), 6).reshape(num_blocks, 6).astype(np.int32),
        domain=np.zeros(num_blocks, dtype=np.int32),
        documents=pd.DataFrame({"document": range(num_blocks)}),
        types=None,
    )


def test_choices_are_those_of_each_block_alone() -> None:
    model, blocks = small_model(top_k=2), probe_set()
    arrays, _ = evaluate.probe_selectors(model, causal.Objective(causal.Options(kind="causal")), blocks)
    assert arrays["positions"] == 420
    for path in ("blocks.0.ffn.router", "blocks.1.ffn.router"):
        choice_PS = arrays[f"{path}/choice"]
        assert choice_PS.shape == (420, 4)
        assert (choice_PS.sum(1) == 2).all()
        # the tally counts each choice as a half; its groups are the documents, here the blocks
        np.testing.assert_allclose(arrays[f"{path}/chosen_GS"], choice_PS.reshape(70, 6, 4).sum(1) / 2)
        for block in (0, 31, 32, 69):
            with torch.no_grad(), record_selections(model) as record:
                model.hidden(torch.from_numpy(blocks.tokens[block : block + 1]))
            alone = (record[path].chosen_NS > 0).numpy()
            np.testing.assert_array_equal(choice_PS.reshape(70, 6, 4)[block], alone)
