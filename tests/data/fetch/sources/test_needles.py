"""Test that each text tells its numbers and asks for each of them once, with the right answer."""

import pathlib
import re

from speciate.data.fetch.sources import needles
from speciate.data.shard import Shard


def test_each_text_tells_its_numbers_and_asks_for_each_once(tmp_path: pathlib.Path) -> None:
    options = needles.Options(kind="needles", num_needles=3, num_texts=40)
    for name in ("one", "two"):
        needles.fetch(options, "told", tmp_path / name, Shard(0, 1))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    passages = list(needles.read(options, "told", tmp_path / "one"))
    assert len({passage.id for passage in passages}) == 40
    orders = set()
    for passage in passages:
        told, asked = str(passage.text).split(" Question: ", 1)
        pairs = re.findall(r"The secret code is (\w+) (\d{4})\.", told)
        answers = re.findall(r"Which number has (\w+)\? Answer: The secret code is \1 (\d{4})\.", asked)
        assert len(set(dict(pairs))) == len(set(dict(pairs).values())) == 3
        assert sorted(pairs) == sorted(answers)
        orders.add(tuple(pairs.index(answer) for answer in answers))
    assert len(orders) == 6
