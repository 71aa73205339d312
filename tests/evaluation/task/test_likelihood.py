"""Test the task of likelihood against transformers, token by token, and against models whose loss is known."""

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from tests.training import conftest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from speciate.config.contracts.evaluation import TaskOptions
from speciate.config.run import RunSpec
from speciate.data.blocks import read_block_set
from speciate.data.documents import Document, write_documents
from speciate.data.tokens.lossless import BYTE_OF_SYMBOL
from speciate.data.tokens.token_bytes import token_bytes
from speciate.evaluation import sliding_windows
from speciate.evaluation.likelihood import nll_by_document
from speciate.evaluation.sliding_windows import TextLoss, score_texts, slide
from speciate.evaluation.subject import SCORES, Subject
from speciate.evaluation.task import likelihood
from speciate.model.hf.convert import import_weights
from speciate.model.hf.pretrained import shape_of
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model

mixture = conftest.mixture
run_spec = conftest.run_spec
WINDOW = conftest.LENGTH
MULTI_TOKEN = {
    **conftest.DENSE,
    "objective": {"kind": "multi_token", "heads": 3, "ffn": {"kind": "dense", "hidden": 16}},
}
DIFFUSION = {
    "model": {"causal": False, "block": {"ffn": {"kind": "dense", "hidden": 16}}},
    "objective": {"kind": "masked_diffusion", "eval_draws": 8},
}


@pytest.fixture(scope="module")
def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer whose 256 tokens are the bytes."""
    tokenizer = Tokenizer(models.BPE(vocab=dict(BYTE_OF_SYMBOL), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.fixture
def subject(
    run_spec: Callable[..., RunSpec], mixture: pathlib.Path, byte_tokenizer: Tokenizer, tmp_path: pathlib.Path
) -> Callable[..., Subject]:
    """Make a finished run with random weights, and texts outside its training."""

    def make(texts: dict[str, Sequence[str]] | None = None, **change: Any) -> Subject:
        spec = run_spec(**change)
        sizes_V, lossless = token_bytes(byte_tokenizer)
        assert lossless
        # [MASK] is one id more
        vocabulary = len(sizes_V) + (not spec.model.causal)
        torch.manual_seed(0)
        model = build_model(spec, vocabulary).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.3)
        folders = {name: write_text(tmp_path / name, of_text) for name, of_text in (texts or {}).items()}
        return Subject(
            run=spec,
            folder=tmp_path,
            model=model,
            objective=spec.objective.component().Objective(spec.objective),
            tokenizer=byte_tokenizer,
            token_bytes_V=sizes_V,
            mixture=mixture,
            texts=folders,
            device=torch.device("cpu"),
        )

    return make


def write_text(folder: pathlib.Path, texts: Sequence[str], **counts: Any) -> pathlib.Path:
    """Write what `prepare_text` writes."""
    folder.mkdir(exist_ok=True)
    documents = [Document(f"d{number}", folder.name, f"g{number}", text) for number, text in enumerate(texts)]
    write_documents(folder / "documents.parquet", documents)
    content = {"unavailable": None, "read": len(texts), "dropped": {}} | counts
    (folder / "counts.json").write_text(json.dumps(content))
    return folder


def evaluate(subject: Subject, **settings: Any) -> pd.DataFrame:
    """Return the scores, their columns checked."""
    options = likelihood.Options.model_validate({"kind": "likelihood", **settings})
    assert isinstance(options, TaskOptions)
    scores = likelihood.evaluate(options, subject)
    assert list(scores.columns) == list(SCORES)
    assert not scores[["metric", "part", "item", "group", "value", "weight"]].isna().any(axis=None)
    return scores


def mean(scores: pd.DataFrame, metric: str, part: str) -> float:
    """Return the weighted mean of a metric."""
    rows = scores[(scores["metric"] == metric) & (scores["part"] == part)]
    return float(np.average(rows["value"], weights=rows["weight"]))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 9, 40])
@pytest.mark.parametrize("window", [2, 3, 8])
def test_windows_predict_every_token_but_the_first_once_after_the_context_that_is_promised(
    length: int, window: int
) -> None:
    for stride in range(1, window + 1):
        predicted = []
        for each in slide(length, window, stride):
            assert 2 <= len(each) <= window
            assert each.start < each.first < each.stop
            for token in range(each.first, each.stop):
                predicted.append(token)
                assert token - each.start >= min(token, max(1, window - stride))
        assert predicted == list(range(1, length))


def naive_nats(model: transformers.PreTrainedModel, tokens: Sequence[int], window: int, stride: int) -> float:
    """Return the nats of all tokens but the first, each from a pass of its own over the context that is due to it."""
    total = 0.0
    for position in range(1, len(tokens)):
        start = 0 if position < window else -(-(position - window + 1) // stride) * stride
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens[start:position]])).logits[0, -1]
        total -= float(logits.double().log_softmax(-1)[tokens[position]])
    return total


GPT2 = transformers.GPT2Config(
    vocab_size=50, n_positions=12, n_embd=16, n_inner=24, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
)
LLAMA = transformers.LlamaConfig(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=12,
    tie_word_embeddings=False,
    bos_token_id=None,
    eos_token_id=None,
)


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize(("window", "stride"), [(12, 6), (12, 1), (8, 5), (12, 11)])
def test_equals_transformers_token_by_token(
    run_spec: Callable[..., RunSpec], config: transformers.PretrainedConfig, window: int, stride: int
) -> None:
    torch.manual_seed(1)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.0, 0.3)
    family, shape = shape_of(config.to_dict())
    ours = Transformer(shape, 50).eval()
    weights = {name: weight.detach() for name, weight in theirs.named_parameters()}
    ours.load_state_dict(import_weights(weights, family.rules(shape)))
    objective = run_spec().objective.component().Objective(run_spec().objective)
    draw = np.random.Generator(np.random.Philox(3))
    texts = [draw.integers(0, 50, length) for length in (31, 12, 5, 1, 0)]
    losses = score_texts(ours, objective, texts, window=window, stride=stride)
    expected = [naive_nats(theirs, tokens.tolist(), window, stride) for tokens in texts]
    assert [float(loss.nats_E.mean()) for loss in losses] == pytest.approx(expected, rel=1e-5)
    assert [loss.tokens for loss in losses] == [30, 11, 4, 0, 0]


def test_a_uniform_model_of_bytes_needs_eight_bits_a_byte(subject: Callable[..., Subject]) -> None:
    one = subject({"prose": ["Grüße, 世界! " * 9, "and a second document"]}, **conftest.DENSE)
    with torch.no_grad():
        one.model.head_VD.zero_()
    scores = evaluate(one, outside=["prose"])
    bits = scores[scores["metric"] == "bits_per_byte"]
    assert bits["value"].to_numpy() == pytest.approx(8.0, abs=1e-6)
    # all bytes but each document's first
    assert bits["weight"].tolist() == [len(("Grüße, 世界! " * 9).encode()) - 1, 20]
    assert math.exp(mean(scores, "nats_per_token", "prose")) == pytest.approx(256, rel=1e-6)


@pytest.mark.parametrize("change", [{}, MULTI_TOKEN, DIFFUSION], ids=["moe", "multi_token", "diffusion"])
def test_batches_give_what_single_windows_give(
    subject: Callable[..., Subject], change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subject(
        {"prose": [f"{number} bottles on the wall, {number} bottles" * (number % 3) for number in range(12)]}, **change
    )
    together = evaluate(one, outside=["prose"])
    monkeypatch.setattr(sliding_windows, "TOKENS_AT_ONCE", 1)
    alone = evaluate(one, outside=["prose"])
    pd.testing.assert_frame_equal(together, alone, rtol=1e-5)


def test_within_a_window_the_stride_changes_nothing_and_beyond_it_more_context_is_seen(
    subject: Callable[..., Subject],
) -> None:
    one = subject({"short": ["0123456789abcdef"[:WINDOW]], "long": ["0123456789abcdef" * 4]})
    by_stride = {stride: evaluate(one, outside=["short", "long"], stride=stride) for stride in (1, 8, WINDOW)}
    shorts = [mean(scores, "nats_per_token", "short") for scores in by_stride.values()]
    assert shorts[1:] == shorts[:-1]
    tokens = np.frombuffer(b"0123456789abcdef", np.uint8)[:WINDOW].astype(np.int64)
    with torch.no_grad():
        logits = one.model(torch.from_numpy(tokens)[None])[0, :-1].log_softmax(-1)
    expected = -float(logits.gather(1, torch.from_numpy(tokens[1:, None])).mean())
    assert shorts[0] == pytest.approx(expected, rel=1e-5)
    assert len({mean(scores, "nats_per_token", "long") for scores in by_stride.values()}) == 3


def test_the_test_set_of_a_model_that_separates_documents_costs_what_the_run_reports(
    subject: Callable[..., Subject], mixture: pathlib.Path
) -> None:
    one = subject(model={"separate_documents": True})
    scores = evaluate(one, stride=WINDOW)
    blocks = read_block_set(mixture, "test")
    reported = nll_by_document(one.model, one.objective, blocks, one.token_bytes_V)
    nats = scores[scores["metric"] == "nats_per_token"].set_index("item")
    assert sorted(nats.index) == sorted(reported["id"])
    for row in reported.to_dict("records"):
        assert nats.loc[row["id"], "part"] == row["domain"]
        assert nats.loc[row["id"], "weight"] == row["tokens"]
        assert nats.loc[row["id"], "value"] * row["tokens"] == pytest.approx(row["nats"], rel=1e-5)
    bits = scores[scores["metric"] == "bits_per_byte"].set_index("item")
    for row in reported.to_dict("records"):
        # the report's bytes are rounded to whole ones
        assert bits.loc[row["id"], "weight"] == pytest.approx(row["bytes"], abs=0.5)
    assert set(scores["group"]) == set(reported["group"])


def test_the_pieces_of_a_test_document_that_packing_has_cut_are_one_document(
    subject: Callable[..., Subject], mixture: pathlib.Path
) -> None:
    one = subject(model={"separate_documents": True})
    blocks = read_block_set(mixture, "test")
    document = blocks.document.copy()
    document[2, :9] = document[0, 0]
    whole = evaluate(one).set_index(["metric", "item"])
    vars(one)["test"] = dataclasses.replace(blocks, document=document)
    cut = evaluate(one).set_index(["metric", "item"])
    first, second = (f"test{blocks.document[block, 0]}" for block in (0, 2))
    assert second not in cut.index.get_level_values("item")
    nats = {item: whole.loc[("nats_per_token", item)] for item in (first, second)}
    total = sum(row["value"] * row["weight"] for row in nats.values())
    row = cut.loc[("nats_per_token", first)]
    assert row["weight"] == 8 + 8
    assert row["value"] * row["weight"] == pytest.approx(total, rel=1e-6)


def test_each_further_head_is_scored_on_the_tokens_that_it_predicts(subject: Callable[..., Subject]) -> None:
    text = "0123456789abcdef"[:WINDOW]
    one = subject({"prose": [text, text * 3]}, **MULTI_TOKEN)
    scores = evaluate(one, outside=["prose"], stride=4)
    token_1T = torch.tensor([list(text.encode())])
    with torch.no_grad():
        losses = one.objective.head_losses(one.model, token_1T)  # over head 0's number of predictions
    first = scores[scores["item"] == "d0"].set_index("metric")
    assert first.loc["nats_per_token", "value"] == pytest.approx(float(losses[0]), rel=1e-5)
    for head in (1, 2):
        row = first.loc[f"nats_per_token_head_{head}"]
        assert row["weight"] == WINDOW - 1 - head
        assert row["value"] * row["weight"] == pytest.approx(float(losses[head]) * (WINDOW - 1), rel=1e-5)
    # windows share 12 tokens, so the head predicts every token of a long document but the first three
    second = scores[scores["item"] == "d1"].set_index("metric")
    assert second.loc["nats_per_token_head_2", "weight"] == 3 * WINDOW - 3
    naive = 0.0
    tokens = torch.tensor(list((text * 3).encode()))
    head = one.model.parts["head2"]
    for position in range(3, 3 * WINDOW):
        start = 0 if position < WINDOW else -(-(position - WINDOW + 1) // 4) * 4
        with torch.no_grad():
            batch = one.model.tokens(tokens[None, start : position - 2])
            logits = head.read(*one.model.trunk_and_hidden(batch), batch)[0, -1] @ head.weight(one.model).T
        naive -= float(logits.double().log_softmax(-1)[tokens[position]])
    assert second.loc["nats_per_token_head_2", "value"] == pytest.approx(naive / (3 * WINDOW - 3), rel=1e-5)


def test_the_error_of_a_bound_is_that_of_its_mean_over_all_draws_that_there_could_be() -> None:
    """Two documents, three estimates of each, every estimate one of three values: 27 x 27 outcomes, all counted."""
    values = (0.0, 1.0, 4.0)
    outcomes = [np.array(outcome) for outcome in itertools.product(values, repeat=3)]
    tokens = (5, 7)
    means, squares = [], []
    for first, second in itertools.product(outcomes, repeat=2):
        losses = [TextLoss(nats, count, {}, {}) for nats, count in zip((first, 10 * second), tokens, strict=True)]
        means.append((first.mean() + 10 * second.mean()) / 12)
        squares.append(likelihood.standard_error(losses) ** 2)
    assert np.mean(squares) == pytest.approx(np.var(means), rel=1e-9)


def test_a_masked_diffusion_model_gets_a_bound_with_its_error(subject: Callable[..., Subject]) -> None:
    one = subject({"prose": ["the quick brown fox jumps over the lazy dog", "a" * 40]}, **DIFFUSION)
    few, many = (evaluate(one, outside=["prose"], draws=draws) for draws in (8, 512))
    assert set(few["metric"]) == {"nats_per_token_bound", "bits_per_byte_bound", "bound_error"}
    assert few[few["metric"] == "nats_per_token_bound"]["weight"].tolist() == [42, 39]
    difference = abs(mean(few, "nats_per_token_bound", "prose") - mean(many, "nats_per_token_bound", "prose"))
    errors = [mean(scores, "bound_error", "prose") for scores in (few, many)]
    assert errors[1] < errors[0] / 4
    assert difference < 4 * math.hypot(*errors)
    # the objective's own number of masks is 8
    pd.testing.assert_frame_equal(few, evaluate(one, outside=["prose"]))


def test_a_document_of_fewer_than_two_tokens_is_left_out_and_counted(subject: Callable[..., Subject]) -> None:
    one = subject({"prose": ["ab", "a", "abc", "b"]})
    scores = evaluate(one, outside=["prose"])
    assert scores.loc[scores["metric"] == "documents_too_short", "value"].tolist() == [2]
    assert scores.loc[scores["metric"] == "nats_per_token", "item"].tolist() == ["d0", "d2"]
    with pytest.raises(ValueError, match="prose: none of its 2 documents has two tokens, so nothing is predicted"):
        evaluate(subject({"prose": ["a", "b"]}), outside=["prose"])


def test_only_as_many_documents_are_scored_as_asked_for(subject: Callable[..., Subject]) -> None:
    one = subject({"prose": ["abc", "def", "ghi"]})
    assert evaluate(one, outside=["prose"], max_documents=2)["item"].unique().tolist() == ["d0", "d1"]


def test_bytes_that_the_tokenizer_does_not_keep_are_shared_among_its_tokens(subject: Callable[..., Subject]) -> None:
    """Where tokens spell half of a document's bytes, each stands for twice as many."""
    one = subject({"prose": ["abcdef"]})
    half = dataclasses.replace(one, token_bytes_V=np.where(np.arange(256) % 2, 1, 0).astype(np.int32))
    bits = evaluate(half, outside=["prose"]).set_index("metric").loc["bits_per_byte"]
    # a, c, e have odd codes and are spelled; b to f, the predicted ones, have two of the three spelled bytes
    assert bits["weight"] == pytest.approx(6 * 2 / 3)


LOOKS_AHEAD = {"model": {"block": {"ffn": {"choice": {"kind": "expert", "non_causal": True}, "balance": "none"}}}}


@pytest.mark.parametrize(
    ("change", "settings", "says"),
    [
        ({}, {"window": 17}, "window: 17 tokens are more than the context of small, 16"),
        ({}, {"stride": 17}, "stride: 17 tokens are more than the window, 16, so some would not be predicted"),
        (LOOKS_AHEAD, {}, "model.moe.choice.expert looks at later tokens, so the loss of small is no likelihood"),
        (DIFFUSION, {"stride": 8}, "stride: the bound of a masked-diffusion model is one of whole windows"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    subject: Callable[..., Subject], change: dict[str, Any], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        evaluate(subject({"prose": ["abc"]}, **change), outside=["prose"], **settings)


def test_a_text_that_is_empty_or_could_not_be_read_says_why(
    subject: Callable[..., Subject], tmp_path: pathlib.Path
) -> None:
    one = subject({"prose": []})
    write_text(tmp_path / "prose", [], read=7, dropped={"in_training": 4, "too_short": 3})
    says = r"text prose: no documents are left \(texts read: 7; dropped: in_training 4, too_short 3\)"
    with pytest.raises(ValueError, match=says):
        evaluate(one, outside=["prose"])
    write_text(tmp_path / "prose", [], unavailable="source flask: pip cannot reach its package index")
    with pytest.raises(ValueError, match="text prose could not be read: source flask: pip cannot reach"):
        evaluate(one, outside=["prose"])
