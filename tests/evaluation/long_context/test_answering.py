"""Test that reading in chunks changes nothing, and that an exact answer is what greedy decoding writes."""

import random
from typing import Any

import pytest
import torch
from tests.evaluation.long_context.material import run_spec

from speciate.config.run import ModelSpec
from speciate.evaluation.long_context import answering
from speciate.evaluation.long_context.answering import Answer, Question, check_reader, hidden_at, score
from speciate.evaluation.sampling import Sampling, generate
from speciate.model.transformer import Transformer

VOCABULARY = 40
MIXERS: dict[str, dict[str, Any]] = {
    "attention": {"kind": "attention", "num_heads": 2},
    "gsa": {
        "kind": "gsa",
        "num_heads": 2,
        "indexer": {"kind": "kl", "width": 8, "warmup": 0.0},
        "budget": {"kind": "fixed", "k": 6},
    },
    "mamba": {"kind": "mamba", "state": 4},
    "rom": {"kind": "rom", "num_experts": 3, "state": 4, "router": "learned", "balance": "none"},
}


def build(mixer: str, context: int = 64) -> Transformer:
    torch.manual_seed(3)
    block = {"mixer": MIXERS[mixer], "ffn": {"kind": "dense", "hidden": 20}, "depth": "every"}
    sizes = {"width": 16, "num_layers": 2, "context": context, "position": "rotary"}
    spec = ModelSpec.model_validate({**sizes, "init_std": 0.4, "embedding_std": 0.4, "block": block})
    return Transformer(spec, VOCABULARY).eval()


@pytest.mark.parametrize("mixer", MIXERS)
def test_chunks_give_what_one_pass_gives(mixer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(mixer)
    token_BT = torch.randint(VOCABULARY, (3, 23), generator=torch.Generator().manual_seed(0))
    column_BN = torch.tensor([[0, 4, 5, 22], [1, 9, 10, 11], [3, 14, 15, 21]])
    with torch.no_grad():
        whole_BTD = model.hidden(token_BT)
    expected = whole_BTD.gather(1, column_BN.unsqueeze(-1).expand(-1, -1, 16))
    torch.testing.assert_close(hidden_at(model, token_BT, column_BN), expected)
    monkeypatch.setattr(answering, "CHUNK", 5)
    torch.testing.assert_close(hidden_at(model, token_BT, column_BN), expected, rtol=1e-4, atol=1e-5)


def questions(model: Transformer, count: int) -> list[Question]:
    """Return questions of two answers, half of which are what the model writes by itself."""
    draw = random.Random(0)
    found = []
    for number in range(count):
        context = tuple(draw.randrange(VOCABULARY) for _ in range(draw.choice((17, 18))))
        text, answers = list(context), []
        for index in range(2):
            before = (7,) * index
            text += before
            size = draw.choice((1, 2, 3))
            written = tuple(generate(model, torch.tensor(text), Sampling(0), size, generator=torch.Generator()))
            if number % 2:
                written = (*written[:-1], (written[-1] + 1) % VOCABULARY)
            wrong = [tuple(draw.randrange(VOCABULARY) for _ in range(draw.choice((1, 2, 3)))) for _ in range(3)]
            wrong = [candidate for candidate in wrong if candidate != written]
            place = draw.randrange(len(wrong) + 1)
            answers.append(Answer(before, (*wrong[:place], written, *wrong[place:]), place))
            text += written
        found.append(Question(context, tuple(answers)))
    return found


@pytest.mark.parametrize("mixer", MIXERS)
def test_exact_is_what_greedy_decoding_writes_and_the_choice_is_the_likeliest(
    mixer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(mixer)
    asked = questions(model, 12)
    monkeypatch.setattr(answering, "CHUNK", 8)
    monkeypatch.setattr(answering, "CACHED_TOKENS", 50)  # batches of two contexts, and of two candidates
    scores = score(model, asked, torch.device("cpu"))
    for question, result in zip(asked, scores, strict=True):
        text, exact, chosen = list(question.context), 0, 0
        for answer in question.answers:
            text += answer.before
            right = answer.candidates[answer.correct]
            written = generate(model, torch.tensor(text), Sampling(0), len(right), generator=torch.Generator())
            exact += tuple(written) == right
            sums = []
            for candidate in answer.candidates:
                with torch.no_grad():
                    log_p_TV = model(torch.tensor([[*text, *candidate]]))[0].log_softmax(-1)
                places = range(len(text) - 1, len(text) + len(candidate) - 1)
                sums.append(sum(float(log_p_TV[at, token]) for at, token in zip(places, candidate, strict=True)))
            chosen += max(range(len(sums)), key=sums.__getitem__) == answer.correct
            text += right
        assert (result.exact, result.chosen) == (exact / 2, chosen / 2)
    assert {result.exact for result in scores} == {0.0, 1.0}
    assert 0 < sum(result.chosen for result in scores) < len(scores)


def test_models_that_see_later_tokens_are_refused() -> None:
    moe = {"kind": "moe", "num_experts": 4, "hidden": 8, "router": "learned", "balance": "none"}
    run = run_spec()
    check_reader(run)
    block = run.model.block.model_dump()
    block["ffn"] = {**moe, "choice": {"kind": "expert", "non_causal": True}}
    with pytest.raises(ValueError, match="model: expert looks at later tokens, so it cannot answer after a context"):
        check_reader(run_spec(block=block))


def test_a_questions_length_counts_the_longest_last_candidate() -> None:
    first = Answer((), ((1, 2), (3,)), 1)
    last = Answer((9,), ((1,), (2, 3, 4)), 0)
    assert Question((5, 6), (first, last)).length == 2 + 1 + 1 + 3
