"""Test that sketches merge into the sketch of the union, and that estimates match exact shares within their errors."""

import math

import numpy as np
import pytest

from speciate.data.card.overlap import containment, similarity
from speciate.data.card.sketch import GrowingSketch, Sketch
from speciate.data.dedup.shingles import shingle_hashes, splitmix64


def hashes(start: int, stop: int) -> np.ndarray:
    """Return distinct hashes of the numbers from `start` to `stop`."""
    return splitmix64(np.arange(start, stop, dtype=np.uint64))


def sketch_of(values: np.ndarray, size: int = 256) -> Sketch:
    growing = GrowingSketch(size)
    growing.add(values)
    return growing.sketch()


def test_a_sketch_holds_the_smallest_distinct_hashes() -> None:
    values = hashes(0, 5000)
    again = np.concatenate([values, values[::-1], values[:100]])
    assert sketch_of(again).hashes_K.tolist() == sorted(set(values.tolist()))[:256]


def test_the_order_and_the_chunks_do_not_matter() -> None:
    values = hashes(0, 20000)
    growing = GrowingSketch(256)
    for portion in np.array_split(np.random.default_rng(0).permutation(values), 37):
        growing.add(portion)
        assert len(growing._kept) + growing._num_pending <= 6 * 256  # the sketch never grows
    assert growing.sketch().hashes_K.tolist() == sketch_of(values).hashes_K.tolist()


def test_sketches_of_shards_merge_into_the_sketch_of_the_whole() -> None:
    all_hashes, shards = hashes(0, 3000), [hashes(start, start + 1100) for start in (0, 950, 1900)]
    merged = sketch_of(shards[0])
    for shard in shards[1:]:
        merged = merged.merge(sketch_of(shard))
    assert merged.hashes_K.tolist() == sketch_of(all_hashes).hashes_K.tolist()


def test_small_sets_are_compared_exactly() -> None:
    one, other = sketch_of(hashes(0, 100)), sketch_of(hashes(60, 200))
    assert containment(one, other).share == 0.4
    assert containment(one, other).error == 0
    assert containment(one, other).compared == 100
    assert containment(other, one).share == pytest.approx(40 / 140)
    assert similarity(one, other).share == 40 / 200


def test_an_empty_set_has_no_share() -> None:
    estimate = containment(sketch_of(hashes(0, 0)), sketch_of(hashes(0, 10)))
    assert math.isnan(estimate.share)
    assert estimate.compared == 0
    assert containment(sketch_of(hashes(0, 10)), sketch_of(hashes(0, 0))).share == 0


@pytest.mark.parametrize(("size_a", "size_b"), [(9000, 9000), (9000, 700), (700, 9000)])
def test_estimates_lie_about_the_exact_shares_by_their_standard_error(size_a: int, size_b: int) -> None:
    shared = 400
    off: dict[str, list[float]] = {"containment": [], "similarity": []}
    for trial in range(120):
        first = trial * 1_000_000
        one = sketch_of(hashes(first, first + size_a))
        other = sketch_of(hashes(first + size_a - shared, first + size_a - shared + size_b))
        exact = {"containment": shared / size_a, "similarity": shared / (size_a + size_b - shared)}
        for name, function in (("containment", containment), ("similarity", similarity)):
            estimate = function(one, other)
            seen = 256 / min(9000, max(size_a, size_b))  # about the fraction of all elements that the sketches hold
            expected = math.sqrt(exact[name] * (1 - exact[name]) * (1 - seen) / estimate.compared)
            off[name].append((estimate.share - exact[name]) / expected)
    for name, values in off.items():
        assert abs(np.mean(values)) < 4 / math.sqrt(len(values)), name  # unbiased
        assert 0.8 < np.std(values) < 1.2, name  # the standard error is neither too small nor too large


def test_the_error_of_a_nearly_whole_sketch_is_nearly_nothing() -> None:
    one, other = sketch_of(hashes(0, 520), 512), sketch_of(hashes(260, 780), 512)
    estimate = containment(one, other)
    assert 0 < estimate.error < 0.01 < math.sqrt(0.25 / estimate.compared)


def test_texts_that_share_a_paragraph_share_its_runs_of_words() -> None:
    words = [f"word{number}" for number in range(4000)]
    one, other = " ".join(words[:2400]), " ".join(words[2000:])
    exact_one, exact_other = (set(shingle_hashes(text, 13).tolist()) for text in (one, other))
    both = len(exact_one & exact_other)
    assert both == 400 - 12
    estimate = containment(sketch_of(shingle_hashes(one, 13), 1024), sketch_of(shingle_hashes(other, 13), 1024))
    assert abs(estimate.share - both / len(exact_one)) < 4 * estimate.error
