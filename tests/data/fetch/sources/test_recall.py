"""Test that the texts of recall hold their pairs, ask each once, and place queries as stated."""

import json
import pathlib
from collections import Counter

import numpy as np
import pydantic
import pytest

from speciate.data.fetch.sources import recall
from speciate.data.recall_texts import KEYS, VALUES, draw_texts
from speciate.data.shard import Shard


@pytest.mark.parametrize(
    ("num_pairs", "length", "gaps"), [(8, 63, "power_law"), (3, 40, "uniform"), (4, 16, "uniform")]
)
def test_each_text_lists_its_pairs_and_asks_each_key_once(num_pairs: int, length: int, gaps: str) -> None:
    options = recall.Options(kind="recall", num_pairs=num_pairs, length=length, gaps=gaps)
    texts, answer_ND = draw_texts(options, num_pairs, length, 200, draw=np.random.default_rng(0))
    assert answer_ND.shape == (200, num_pairs)
    for text, answers in zip(texts, answer_ND.tolist(), strict=True):
        assert len(text) == length
        pairs = dict(zip(text[: 2 * num_pairs : 2], text[1 : 2 * num_pairs : 2], strict=True))
        assert len(pairs) == num_pairs
        assert set(pairs) <= set(KEYS[:26])
        assert set(pairs.values()) <= set(VALUES[:16])
        assert {text[at - 1]: text[at] for at in answers} == pairs
        rest = [symbol for at, symbol in enumerate(text) if at >= 2 * num_pairs and not {at, at + 1} & set(answers)]
        assert set(rest) <= {"."}
        assert answers == sorted(answers)


def test_places_of_queries_follow_the_power_law_and_values_are_even() -> None:
    options = recall.Options(kind="recall", num_pairs=1, length=10, power=0.5)
    texts, answer_N1 = draw_texts(options, 1, 10, 20000, draw=np.random.default_rng(0))
    expected = np.arange(1, 5) ** -0.5
    seen = np.bincount((answer_N1[:, 0] - 3) // 2, minlength=4) / 20000
    np.testing.assert_allclose(seen, expected / expected.sum(), atol=0.015)
    values = Counter(text[1] for text in texts)
    assert set(values) == set(VALUES[:16])
    np.testing.assert_allclose(np.array(list(values.values())) / 20000, 1 / 16, atol=0.01)


def test_draws_without_replacement_are_those_of_the_paper() -> None:
    """The first two places of three, drawn one after the other, have the probabilities of numpy's choice."""
    options = recall.Options(kind="recall", num_pairs=2, length=10, power=0.2)
    texts, _ = draw_texts(options, 2, 10, 30000, draw=np.random.default_rng(1))
    seen = Counter((text.index(text[0], 4) - 4, text.index(text[2], 4) - 4) for text in texts)
    p = np.arange(1, 4) ** -0.8
    p /= p.sum()
    for first in range(3):
        for second in range(3):
            expected = 0 if first == second else p[first] * p[second] / (1 - p[first])
            assert seen[2 * first, 2 * second] / 30000 == pytest.approx(expected, abs=0.01)


def test_the_source_writes_the_same_texts_each_time(tmp_path: pathlib.Path) -> None:
    options = recall.Options(kind="recall", num_texts=50)
    for name in ("one", "two"):
        recall.fetch(options, "texts", tmp_path / name, Shard(0, 1))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    passages = list(recall.read(options, "texts", tmp_path / "one"))
    assert [passage.text for passage in passages] == [
        json.loads(line) for line in (tmp_path / "one").read_text().splitlines()
    ]
    assert len({passage.text for passage in passages}) == 50


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_pairs": 20}, "length: 20 pairs and their queries need 80 symbols, and a text has 63"),
        ({"num_pairs": 27, "length": 200}, "num_pairs: 27 pairs need as many different keys, and num_keys is 26"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=says):
        recall.Options.model_validate({"kind": "recall", **changes})
