"""Test that speculative decoding gives head 0's own greedy text, token by token, in fewer forward passes."""

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.evaluation import speculative
from speciate.evaluation.sampling import Sampling, generate
from speciate.model.cache import Cache
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model

VOCABULARY, CONTEXT, HEADS, STEPS = 24, 24, 4, 60
DENSE: dict[str, Any] = {"kind": "dense", "hidden": 24}
MOE = {"kind": "moe", "num_experts": 4, "hidden": 16, "top_k": 2, "router": "learned", "balance": "none"}
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "blocks": ({}, {}, DENSE),
    "linear": ({"form": "linear"}, {}, DENSE),
    "two": ({"heads": 2}, {"position": "rotary", "norm": "rms"}, DENSE),
    "experts": ({"ffn": DENSE}, {"tied_head": False}, MOE),
    "one layer": ({}, {"num_layers": 1}, DENSE),
    # their caches cannot be truncated
    "skipping": ({"ffn": DENSE}, {"depth": {"kind": "mod", "capacity": 0.5}}, DENSE),
    "recurrent": ({}, {"mixer": "mamba"}, DENSE),
}


def text(num_blocks: int) -> Tensor:
    """Make blocks that repeat a phrase, now and then with a random token."""
    draw = torch.Generator().manual_seed(7)
    phrase_P = torch.randint(VOCABULARY, (9,), generator=draw)
    start_B1 = torch.randint(9, (num_blocks, 1), generator=draw)
    token_BT = phrase_P[(start_B1 + torch.arange(CONTEXT)) % 9]
    odd_BT = torch.rand(token_BT.shape, generator=draw) < 0.15
    return token_BT.where(~odd_BT, torch.randint(VOCABULARY, token_BT.shape, generator=draw))


@functools.cache
def trained(arm: str, num_steps: int) -> Transformer:
    """Train a small model, in double precision so that products of other shapes do not change the likeliest token."""
    torch.set_num_threads(1)
    objective, changes, ffn = ARMS[arm]
    block = {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": ffn, "depth": "every"}
    block |= {key: value for key, value in changes.items() if key in block}
    changes = {key: value for key, value in changes.items() if key not in block}
    model = {"width": 16, "num_layers": 2, "context": CONTEXT, "init_std": 0.3, "block": block, **changes}
    settings = {"ablation": "arm", "seed": 0, "model": {**model, "embedding_std": 0.3}}
    settings |= {"objective": {"kind": "multi_token", "heads": HEADS, **objective}}
    run = RunSpec.model_validate({**settings, "optimizer": "adamw", "schedule": "cosine"})
    torch.manual_seed(0)
    built, loss = build_model(run, VOCABULARY).double(), component_module(run.objective).Objective(run.objective)
    optimizer = torch.optim.Adam(built.parameters(), lr=1e-2)
    for token_BT in text(8 * num_steps).split(8) if num_steps else ():
        loss(built, token_BT).backward()
        optimizer.step()
        optimizer.zero_grad()
    return built.eval()


def greedy(model: Transformer, prompt_T: Tensor, max_tokens: int) -> list[int]:
    return list(generate(model, prompt_T, Sampling(temperature=0), max_tokens, generator=torch.Generator()))


PROMPTS = [text(4)[row, :length] for row, length in enumerate((1, 9, CONTEXT - 2, CONTEXT))]


@pytest.mark.parametrize("num_steps", [0, STEPS])
@pytest.mark.parametrize("arm", ARMS)
def test_the_text_is_head_0s_greedy_text(arm: str, num_steps: int) -> None:
    model, counts, length = trained(arm, num_steps), speculative.SpeculationCounts(), 0
    for prompt_T in PROMPTS:
        for max_tokens in (1, 6, 1000):  # with the last value, up to the end of the context
            expected = greedy(model, prompt_T, max_tokens)
            assert list(speculative.generate(model, prompt_T, max_tokens, counts)) == expected
            length += len(expected)
    assert counts.tokens == length
    # each forward pass gives one token, plus one for each accepted draft
    assert counts.forwards + counts.accepted == length
    assert 0 <= counts.acceptance <= 1
    if num_steps and arm != "skipping":  # which tokens to run is hard to learn in so few steps
        assert counts.acceptance > 0.2
        assert counts.tokens_per_forward > 1.2


def test_drafts_are_what_the_heads_say_of_the_whole_text() -> None:
    model = trained("blocks", STEPS)
    prompt_T = text(1)[0, :20]
    reader = speculative.DraftReader(model, speculative.SpeculationCounts())
    reader.read(prompt_T[:7].tolist())
    reader.read(prompt_T[7:12].tolist())
    assert reader.truncate(2)
    says, drafts = reader.read(prompt_T[10:].tolist())
    with torch.no_grad():
        tokens = model.tokens(prompt_T[None])
        trunk_1TD, x_1TD = model.trunk_and_hidden(tokens)
        inputs = [x_1TD] + [head.read(trunk_1TD, x_1TD, tokens) for head in model.parts.values()]
        expected_HT = torch.stack([model.head(read_1TD)[0].argmax(-1) for read_1TD in inputs])[:, 10:]
    assert says == expected_HT[0].tolist()
    assert drafts == expected_HT[1:].T.tolist()


def test_a_cache_that_cannot_be_cut_is_put_back_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, counts, again = trained("blocks", STEPS), speculative.SpeculationCounts(), speculative.SpeculationCounts()
    expected = list(speculative.generate(model, PROMPTS[0], 1000, counts))
    monkeypatch.setattr(Cache, "can_truncate", False)
    assert list(speculative.generate(model, PROMPTS[0], 1000, again)) == expected
    assert again.forwards + again.accepted == len(expected)
    assert 0 < again.accepted < counts.accepted


def test_a_finished_run_is_measured() -> None:
    model, token_BT = trained("blocks", STEPS), text(20)
    rows = speculative.speculation_metrics(model, token_BT, prompts=5)
    assert [row[:3] for row in rows] == [["objective", "acceptance", None], ["objective", "tokens_per_forward", None]]
    counts = speculative.SpeculationCounts()
    for block in (0, 4, 8, 12, 16):
        list(speculative.generate(model, token_BT[block, :12], 12, counts))
    assert [row[3] for row in rows] == [counts.acceptance, counts.tokens_per_forward]
    plain = copy.deepcopy(model)
    plain.parts.clear()
    assert speculative.speculation_metrics(plain, token_BT) == []


def test_nothing_to_go_on_from_is_refused() -> None:
    with pytest.raises(ValueError, match="the prompt has no tokens to continue"):
        next(speculative.generate(trained("blocks", 0), torch.tensor([], dtype=torch.long), 5))
