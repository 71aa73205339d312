"""Test that a long context is read without logits at every position and without scores of every pair of tokens."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]
LENGTH, VOCABULARY = 16384, 50000
MIXERS = {
    "attention": {"kind": "attention", "num_heads": 4},
    "gsa": {
        "kind": "gsa",
        "num_heads": 4,
        "indexer": {"kind": "kl", "width": 16, "warmup": 0.2},
        "budget": {"kind": "fixed", "k": 64},
    },
    "mamba": {"kind": "mamba"},
    "rom": {"kind": "rom", "num_experts": 4, "router": "learned", "balance": "none"},
}
SCRIPT = """
import json, resource, sys
import torch
from speciate.config.run import ModelSpec
from speciate.evaluation.long_context.answering import Answer, Question, score
from speciate.model.transformer import Transformer

mixer, length, vocabulary = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
block = {"mixer": mixer, "ffn": {"kind": "dense", "hidden": 128}, "depth": "every"}
sizes = {"width": 64, "num_layers": 2, "context": length, "position": "rotary"}
model = Transformer(ModelSpec.model_validate({**sizes, "block": block}), vocabulary).eval()
draw = torch.Generator().manual_seed(0)
draws = lambda count: tuple(torch.randint(vocabulary, (count,), generator=draw).tolist())


def ask(size):
    question = Question(draws(size - 4), (Answer((), tuple(draws(4) for _ in range(8)), 3),))
    score(model, [question], torch.device("cpu"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


print(json.dumps([ask(256), ask(length)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_context_of_16k_takes_less_memory_than_a_byte_for_each_pair_of_tokens(mixer: str) -> None:
    command = [sys.executable, "-c", SCRIPT, json.dumps(MIXERS[mixer]), str(LENGTH), str(VOCABULARY)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, peak = json.loads(done.stdout)
    assert peak < 4 << 30
    assert peak - before < LENGTH**2
    assert peak - before < LENGTH * VOCABULARY
