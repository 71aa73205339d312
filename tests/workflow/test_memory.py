"""Test that a job asks for more memory only after a kill for lack of it."""

import pytest
from memory import Memory

RUN = {"ablation": "dense", "seed": "0"}


@pytest.mark.parametrize(
    ("kills", "limit", "asked"), [(0, None, 3000), (1, None, 6000), (2, None, 12000), (2, 8000, 8000)]
)
def test_memory_doubles_with_every_kill_up_to_a_limit(kills: int, limit: int | None, asked: int) -> None:
    memory = Memory()
    for _ in range(kills):
        memory.note_kill("train", RUN)
    assert memory.grown("train", RUN, 3000, limit) == asked
    assert memory.grown("train", {**RUN, "seed": "1"}, 3000, limit) == 3000
    assert memory.grown("evaluate", RUN, 3000, limit) == 3000


def test_the_order_of_wildcards_does_not_matter() -> None:
    memory = Memory()
    memory.note_kill("train", RUN)
    assert memory.grown("train", dict(reversed(RUN.items())), 5, None) == 10
