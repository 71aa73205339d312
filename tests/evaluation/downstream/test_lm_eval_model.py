"""Test that a run gives the harness the numbers of the harness's own model `hf` on the exported folder."""

import itertools
import math
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import torch
from tests.evaluation.downstream.runs import CONTEXT, MOE, TASKS, TEXTS, finished_run

from speciate.cli import execute

pytest.importorskip("lm_eval", reason="the lm-evaluation-harness is not installed here: make test-evaluation")

from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.huggingface import HFLM

from speciate.evaluation.downstream.lm_eval_model import SpeciateLM

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = pathlib.Path(__file__).parents[3]
LONG = " ".join(TEXTS[:6])
PAIRS = [
    ("the cat sat on", " the mat"),
    ("the cat sat on ", "the log"),  # a space that moves to the answer
    ("", "the dog sat"),
    ("Question: what colour is the sky? Answer:", " blue"),
    ("Question: what colour is the sky? Answer:", " four"),
    (LONG, " the mat, and the dog"),  # longer than the context
    ("a", " cat sat on the mat, and the dog sat on the log" * 2),
]
QUESTIONS = ["the cat", "Question: how many legs has a dog? Answer:", LONG, "def f(x):\n", "on the mat"]


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, each, index) for index, each in enumerate(arguments)]


@pytest.fixture(scope="module", params=["dense", "moe"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SpeciateLM, HFLM]:
    """Return our model of a run, and the harness's of the same run, exported."""
    folder = tmp_path_factory.mktemp(request.param)
    run = finished_run(folder / "run", **({"ffn": MOE} if request.param == "moe" else {}))
    tokenizer = str(run / "tokenizer")
    execute(["export", "--run", str(run), "--tokenizer", tokenizer, "--output", str(folder / "exported")])
    theirs = HFLM(pretrained=str(folder / "exported"), device="cpu", dtype="float32", batch_size=3, max_length=CONTEXT)
    theirs._model = theirs._model.float()
    return SpeciateLM(str(run), batch_size=4), theirs


def test_loglikelihoods_are_those_of_the_exported_model(models: tuple[SpeciateLM, HFLM]) -> None:
    ours, theirs = (model.loglikelihood(requests("loglikelihood", *PAIRS)) for model in models)
    for (nats, greedy), (expected, expected_greedy) in zip(ours, theirs, strict=True):
        assert nats == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy
    assert len({round(nats, 3) for nats, _ in ours}) == len(PAIRS)
    assert models[0].num_cut == 1


def test_the_likeliest_answer_is_called_greedy(models: tuple[SpeciateLM, HFLM]) -> None:
    for model in models:
        (text,) = model.generate_until(requests("generate_until", ("the cat", {"until": [], "max_gen_toks": 1})))
        if model.tok_encode("the cat" + text)[:-1] == model.tok_encode("the cat"):
            ((_, greedy),) = model.loglikelihood(requests("loglikelihood", ("the cat", text)))
            assert greedy


def test_rolling_loglikelihoods_are_those_of_the_exported_model(models: tuple[SpeciateLM, HFLM]) -> None:
    texts = [(LONG,), ("the cat sat on the mat",), ("the",), (LONG[:250],)]
    ours, theirs = (model.loglikelihood_rolling(requests("loglikelihood_rolling", *texts)) for model in models)
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("until", [[], ["\n"], [" the", "s"], ["e"]])
def test_greedy_answers_are_those_of_the_exported_model(models: tuple[SpeciateLM, HFLM], until: list[str]) -> None:
    settings = {"until": until, "max_gen_toks": 20, "do_sample": False}
    asked = [(question, dict(settings, until=list(until))) for question in QUESTIONS]
    ours = models[0].generate_until(requests("generate_until", *asked))
    theirs = models[1].generate_until(
        requests("generate_until", *[(text, dict(each, until=list(until))) for text, each in asked])
    )
    assert ours == theirs
    assert any(ours) and not any(stop in text for text in ours for stop in until)


def test_an_empty_answer_is_an_answer(models: tuple[SpeciateLM, HFLM]) -> None:
    (text,) = models[0].generate_until(requests("generate_until", ("the cat", {"until": [], "max_gen_toks": 4})))
    (cut,) = models[0].generate_until(requests("generate_until", ("the cat", {"until": [text[0]], "max_gen_toks": 4})))
    assert text and cut == ""


def test_a_batch_changes_no_answer_and_neither_does_another_run(models: tuple[SpeciateLM, HFLM]) -> None:
    ours = models[0]
    sampled = {"until": [], "max_gen_toks": 10, "do_sample": True, "temperature": 0.8, "top_p": 0.9}
    answers = []
    for batch in (1, 3, 5, 5):
        ours.batch_size = batch
        texts = ours.generate_until(requests("generate_until", *[(question, sampled) for question in QUESTIONS]))
        nats = [nats for nats, _ in ours.loglikelihood(requests("loglikelihood", *PAIRS))]
        answers.append((texts, [round(each, 4) for each in nats]))
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0][0])) == len(QUESTIONS)


def test_the_harness_caches_answers(models: tuple[SpeciateLM, HFLM], tmp_path: pathlib.Path) -> None:
    cached = CachingLM(models[0], str(tmp_path / "cache.db"))
    first = cached.loglikelihood(requests("loglikelihood", *PAIRS))
    cached.generate_until(requests("generate_until", ("the cat", {"until": ["."], "max_gen_toks": 3})))
    before = models[0].model.head
    models[0].model.head = None  # type: ignore[assignment]  # what is asked again does not reach the model
    try:
        assert cached.loglikelihood(requests("loglikelihood", *PAIRS)) == first
        cached.generate_until(requests("generate_until", ("the cat", {"until": ["."], "max_gen_toks": 3})))
    finally:
        models[0].model.head = before  # type: ignore[method-assign]
        cached.dbdict.close()
        del models[0].cache_hook
        models[0].set_cache_hook(type(cached.get_cache_hook())(None))


def test_what_does_not_fit_is_refused_by_name(models: tuple[SpeciateLM, HFLM], tmp_path: pathlib.Path) -> None:
    ours = models[0]
    with pytest.raises(ValueError, match=r"max_gen_toks: an answer of 48 tokens leaves no room .* 48 tokens$"):
        ours.generate_until(requests("generate_until", ("the", {"until": [], "max_gen_toks": 48})))
    with pytest.raises(ValueError, match=r"^an answer of \d+ tokens does not fit into the model's context of 48"):
        ours.loglikelihood(requests("loglikelihood", ("the", LONG)))
    with pytest.raises(ValueError, match="num_beams is not supported"):
        ours.generate_until(requests("generate_until", ("the", {"until": [], "max_gen_toks": 4, "num_beams": 2})))
    with pytest.raises(ValueError, match="--model_args: pretrained is unknown; the run's folder is run=FOLDER"):
        SpeciateLM("nowhere", pretrained="x")
    with pytest.raises((ValueError, OSError), match="nowhere"):
        SpeciateLM(str(tmp_path / "nowhere"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> SpeciateLM:
    folder = tmp_path_factory.mktemp("masked")
    return SpeciateLM(str(finished_run(folder / "run", objective="masked_diffusion")))


def enumerated_bound(lm: SpeciateLM, context: list[int], answer: list[int]) -> float:
    """Return the mean log-likelihood over all orders in which the answer's tokens can be predicted."""
    mask, total = lm.model.vocabulary - 1, 0.0
    for order in itertools.permutations(range(len(answer))):
        known: dict[int, int] = {}
        for place in order:
            seen = [known.get(index, mask) for index in range(len(answer))]
            with torch.no_grad():
                share = torch.tensor([seen.count(mask) / (len(context) + len(answer) - 1)])
                time = lm.model.parts["time"](share).unsqueeze(1) if "time" in lm.model.parts else None
                x_BTD = lm.model.hidden(torch.tensor([context + seen]), None, time)
                logits = lm.model.head(x_BTD)[0, len(context) + place, :mask].double()
            total += float(logits.log_softmax(-1)[answer[place]])
            known[place] = answer[place]
    return total / math.factorial(len(answer))


def test_a_bound_is_the_mean_over_all_orders(masked: SpeciateLM, monkeypatch: pytest.MonkeyPatch) -> None:
    from speciate.evaluation.downstream import lm_eval_model

    context, short, longer = (
        masked.tok_encode("the cat sat on the"),
        masked.tok_encode(" mat"),
        masked.tok_encode("dog"),
    )
    (exact,) = masked._loglikelihood_tokens([(None, context, short[:1])])
    assert exact[0] == pytest.approx(enumerated_bound(masked, context, short[:1]), abs=1e-5)  # one order, no estimate
    monkeypatch.setattr(lm_eval_model, "MASK_PAIRS", 400)
    answer = (short + longer)[:3]
    (bound,) = masked._loglikelihood_tokens([(None, context, answer)])
    expected = enumerated_bound(masked, context, answer)
    assert bound[0] == pytest.approx(expected, rel=0.03)
    assert masked.get_model_info()["loglikelihood"] == "lower bound, estimated by 800 masks"


def test_masked_diffusion_answers_and_scores_whole_texts(masked: SpeciateLM) -> None:
    asked = requests("generate_until", ("the cat", {"until": [], "max_gen_toks": 6}), (LONG, {"max_gen_toks": 6}))
    texts = masked.generate_until(asked)
    assert texts == masked.generate_until(asked) and any(texts)
    (nats,) = masked.loglikelihood_rolling(requests("loglikelihood_rolling", (LONG[:300],)))
    assert nats < 0
    masked.sampler = "fastest"
    with pytest.raises(ValueError, match="fastest"):
        masked.generate_until(asked)
    masked.sampler = "random_order"


@pytest.mark.slow
def test_the_command_line_of_the_harness_knows_the_model(tmp_path: pathlib.Path) -> None:
    run = finished_run(tmp_path / "run")
    command = [sys.executable, "-m", "speciate.evaluation.downstream.lm_eval_model", "run", "--model", "speciate"]
    command += ["--model_args", f"run={run}", "--tasks", "own_animals,own_counting", "--include_path", str(TASKS)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=TASKS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "own_animals" in done.stdout and "exact_match" in done.stdout and "acc_norm" in done.stdout
