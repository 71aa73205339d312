"""Test that an exported tokenizer pads as generation needs it, and gives what the model takes."""

import json
import pathlib

import torch
from tests.every_kind import model_settings
from transformers import AutoModelForCausalLM, AutoTokenizer

from speciate.config.run import RunSpec
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.manifest import read_manifest
from speciate.data.tokens.tokenizer import bpe
from speciate.tools.export import write_model
from speciate.training.build_model import build_model

TEXTS = ["the cat sat on the mat, and the dog sat on the log", "def f(x):\n    return x + 1\n"] * 20
MOE = {"kind": "moe", "num_experts": 4, "hidden": 16, "top_k": 2, "router": "learned", "balance": "none"}


@torch.no_grad()
def test_texts_of_unequal_length_are_continued_as_each_alone(tmp_path: pathlib.Path) -> None:
    fitted = FittedTokenizer(bpe.build(bpe.Options(kind="bpe", entries=280), iter(TEXTS), None).to_str(), "bpe")
    for name, content in fitted.files().items():
        (tmp_path / name).write_bytes(content)
    settings = {"ablation": "arm", "seed": 0, "model": model_settings(ffn=MOE, context=64), "objective": "causal"}
    run = RunSpec.model_validate({**settings, "optimizer": "adamw", "schedule": "cosine"})
    folder = tmp_path / "model"
    write_model(run, build_model(run, 280), read_manifest(tmp_path), tmp_path, folder=folder)
    assert json.loads((folder / "tokenizer_config.json").read_text())["padding_side"] == "left"

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    more = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    both = tokenizer(["the cat sat on the mat", "def"], return_tensors="pt", padding=True)
    assert set(both) == {"input_ids", "attention_mask"}
    alone = model.generate(**tokenizer("def", return_tensors="pt"), **more)
    assert torch.equal(model.generate(**both, **more)[1, -alone.shape[1] :], alone[0])
