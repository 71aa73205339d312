"""Test associative recall with a model that looks pairs up, one that guesses, and lengths that do not fit."""

import math

import pytest
import torch
from tests.evaluation.long_context.material import Constant, Copier, subject, tokenizer
from torch import Tensor, nn

from speciate.data.fetch.sources import recall as source
from speciate.data.recall_texts import VALUES
from speciate.evaluation.long_context import answering
from speciate.evaluation.task import recall
from speciate.model.token_batch import TokenBatch

ENTRIES = 257


class Lookup(nn.Module):
    """A model that answers each key with the value behind its first place in the text."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.context, self.head_VD = context, torch.eye(ENTRIES)

    def read(self, tokens: TokenBatch) -> Tensor:
        """Return ten at the value of each position's token, (B, T, V)."""
        rows = tokens.id_BT.tolist()
        return 10 * self.head_VD[torch.tensor([[row[row.index(token) + 1] for token in row] for row in rows])]

    def head(self, x: Tensor) -> Tensor:
        """Return the logits, which the hidden states are."""
        return x


def test_looking_pairs_up_is_right_everywhere() -> None:
    options = recall.Options(kind="recall", pairs=(2, 8), lengths=(47, 96), questions=20)
    table = recall.evaluate(options, subject(Lookup(100), ENTRIES))
    assert set(table["part"]) == {"pairs2", "pairs8"}
    assert set(table["length"]) == {47, 96}
    accuracy = table[table["metric"] == "accuracy"]
    assert (accuracy["value"] == 1).all()
    assert set(accuracy["chance"]) == {1 / 16}
    assert accuracy.groupby("part")["weight"].unique().to_dict() == {"pairs2": [2.0], "pairs8": [8.0]}


def test_what_copies_is_right_and_what_knows_the_values_alone_is_at_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    options = recall.Options(kind="recall", pairs=(8,), lengths=(63,), questions=400, num_values=10)
    logit_V = torch.full((ENTRIES,), -100.0)
    ids = tokenizer(ENTRIES).encode(VALUES[:10], add_special_tokens=False).ids
    logit_V[ids] = 0.0
    logit_V[ids[3]] = 1e-6  # the likeliest value, by a hair
    table = recall.evaluate(options, subject(Constant(logit_V, 64), ENTRIES))
    means = table.groupby("metric")["value"].mean()
    assert abs(means["accuracy"] - 0.1) < 4 * (0.1 * 0.9 / 3200) ** 0.5
    assert means["nats_per_token"] == pytest.approx(math.log(10), abs=1e-4)
    assert set(table.loc[table["metric"] == "accuracy", "chance"]) == {0.1}
    monkeypatch.setattr(answering, "CHUNK", 20)
    few = options.model_copy(update={"questions": 3})
    table = recall.evaluate(few, subject(Copier(ENTRIES, 64), ENTRIES))
    assert (table.loc[table["metric"] == "accuracy", "value"] == 1).all()


def test_texts_are_not_those_of_the_source(tmp_path: object) -> None:
    from numpy.random import Generator, Philox

    from speciate.data.recall_texts import draw_texts

    options = source.Options(kind="recall", num_pairs=8, length=63)
    of_source = draw_texts(options, 8, 63, 100, draw=Generator(Philox([0, 8])))[0]
    of_task = draw_texts(options, 8, 63, 100, draw=Generator(Philox([0, 8, 63, 1])))[0]
    assert not set(of_source) & set(of_task)


def test_what_does_not_fit_is_left_out_with_the_reason() -> None:
    model = subject(Lookup(64), ENTRIES)
    table = recall.evaluate(recall.Options(kind="recall", pairs=(2, 16), lengths=(47, 96), questions=2), model)
    assert set(zip(table["part"], table["length"], strict=True)) == {("pairs2", 47)}
    assert table.attrs["reason"] == (
        "length 96 is longer than the model's context 64;"
        " length: 16 pairs and their queries need 64 symbols, and a text has 47"
    )
    with pytest.raises(ValueError, match=r"tokenizer: must give each symbol one token"):
        recall.evaluate(recall.Options(kind="recall", questions=8), subject(Lookup(64), 1024))
