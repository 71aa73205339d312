"""Test needles and RULER-style tasks with a model that copies, one that knows nothing, and lengths that do not fit."""

import dataclasses
import pathlib

import numpy as np
import pytest
import torch
from tests.evaluation.long_context.material import Constant, Copier, own_test_set, run_spec, subject, texts, tokenizer

from speciate.data.documents import Document, write_documents
from speciate.evaluation.subject import SCORES
from speciate.evaluation.task import needle, ruler

ENTRIES = 1024


def test_a_model_that_copies_finds_every_needle() -> None:
    options = needle.Options(kind="needle", lengths=(200, 300), depths=(0.0, 0.5, 1.0), questions=2)
    table = needle.evaluate(options, subject(Copier(ENTRIES, 512), ENTRIES))
    assert list(table.columns) == list(SCORES)
    assert len(table) == 2 * 3 * 2 * 2
    assert set(table["metric"]) == {"accuracy", "choice_accuracy"}
    assert (table["value"] == 1).all()
    assert set(table.loc[table["metric"] == "choice_accuracy", "chance"]) == {1 / 8}
    assert set(table.loc[table["metric"] == "accuracy", "chance"]) == {0.0}
    assert not table.duplicated(["metric", "part", "item", "length", "depth"]).any()
    assert table["group"].nunique() == 2  # one needle at every depth and length


def test_a_model_that_copies_finds_the_right_one_of_several_needles() -> None:
    options = ruler.Options(kind="ruler", variants=("single", "multi_key"), lengths=(400,), questions=4)
    table = ruler.evaluate(options, subject(Copier(ENTRIES, 512), ENTRIES))
    assert set(table["part"]) == {"single", "multi_key"}
    assert (table["value"] == 1).all()
    assert table["depth"].isna().all()


def test_a_model_that_reads_nothing_is_at_chance() -> None:
    """Whatever a number's tokens are worth to it, the right candidate is any of eight with the same probability."""
    logit_V = torch.randn(ENTRIES, generator=torch.Generator().manual_seed(0))
    options = needle.Options(kind="needle", lengths=(200,), depths=(0.5,), questions=400)
    table = needle.evaluate(options, subject(Constant(logit_V, 256), ENTRIES))
    means = table.groupby("metric")["value"].mean()
    assert means["accuracy"] == 0
    assert abs(means["choice_accuracy"] - 1 / 8) < 4 * (1 / 8 * 7 / 8 / 400) ** 0.5


def test_a_length_that_does_not_fit_is_left_out_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    model = subject(Constant(torch.zeros(ENTRIES), 300), ENTRIES)
    table = needle.evaluate(needle.Options(kind="needle", lengths=(30, 200, 512), questions=1), model)
    assert set(table["length"]) == {200}
    reason = table.attrs["reason"]
    assert reason.startswith("length 30 has no room: needles, question and answer take ")
    assert reason.endswith("; length 512 is longer than the model's context 300")
    assert reason in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"^length 512 is longer than the model's context 300$"):
        ruler.evaluate(ruler.Options(kind="ruler", lengths=(512,)), model)


def test_without_a_haystack_or_with_a_model_that_fills_masks_there_is_a_reason(tmp_path: pathlib.Path) -> None:
    model = subject(Constant(torch.zeros(ENTRIES), 300), ENTRIES)
    short = dataclasses.replace(own_test_set(ENTRIES), tokens=np.ones((1, 8), int), document=np.zeros((1, 8), int))
    model.__dict__["test"] = short
    options = needle.Options(kind="needle", lengths=(200,))
    with pytest.raises(ValueError, match=r"the study's test set: has 8 tokens of text, and a haystack needs 64"):
        needle.evaluate(options, model)
    outside = needle.Options(kind="needle", lengths=(200,), text="pages")
    assert outside.texts() == ("pages",)
    model = dataclasses.replace(model, texts={"pages": tmp_path})
    with pytest.raises(ValueError, match=r"has no documents\.parquet"):
        needle.evaluate(outside, model)
    (tmp_path / "0").mkdir()
    documents = [Document(str(number), "pages", str(number), text) for number, text in enumerate(texts())]
    write_documents(tmp_path / "0" / "documents.parquet", documents)
    assert len(needle.evaluate(outside, model)) == 5 * 16 * 2
    run = run_spec()
    masked = run.model_copy(update={"model": run.model.model_copy(update={"causal": False})})
    with pytest.raises(ValueError, match=r"objective: causal fills masks, and an answer follows a context"):
        needle.evaluate(options, dataclasses.replace(model, run=masked))


def test_the_haystack_is_the_test_set_without_its_ends_of_text() -> None:
    from speciate.evaluation.long_context.haystack import own_haystack

    hay = own_haystack(own_test_set(ENTRIES), tokenizer(ENTRIES))
    decoded = tokenizer(ENTRIES).decode(hay.token_N.tolist(), skip_special_tokens=False)
    assert "".join(texts()).startswith(decoded)
    assert len(decoded) > 0.9 * len("".join(texts()))
