"""Compare every packing with an exact, slow reference on plain lists."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.config.components import kinds_in, options_of
from speciate.data.packing import best_fit, best_fit_truncate, concat, fill_blocks, mapped_segments, segments
from speciate.data.packing.best_fit_decreasing import best_fit_decreasing
from speciate.data.packing.summary import PackingSummary

END = 9999
KINDS = {"concat": concat, "best_fit": best_fit, "best_fit_truncate": best_fit_truncate}
LOSSLESS = ["concat", "best_fit"]
LENGTHS = st.lists(st.integers(0, 40), max_size=30)
BLOCK = st.integers(2, 17)


def pack(kind: str, lengths: list[int], block_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pack documents whose tokens are all different: document d has 100 d, 100 d + 1, ..."""
    lengths_D = np.array(lengths, np.int64)
    plan = segments.concatenate_plan(
        KINDS[kind].plan(options_of("data/packing", kind)(kind=kind), lengths_D, block_length)
    )
    num_blocks = int(plan[-1, 0]) + 1 if len(plan) else 0
    values = np.array([100 * d + i for d, length in enumerate(lengths) for i in range(length)], np.uint32)
    blocks = np.full((num_blocks, block_length), 12345678, np.uint32)
    fill_blocks.fill_blocks(values, np.cumsum(lengths_D) - lengths_D, lengths_D, plan, end=END, blocks_BT=blocks)
    return blocks, plan, lengths_D


def summary(lengths_D: np.ndarray, plan: np.ndarray, block_length: int) -> dict[str, int]:
    done = PackingSummary(lengths_D, block_length)
    done.add(plan)
    return done.counts()


def expected_runs(lengths: list[int]) -> list[list[int]]:
    return [[*(100 * d + i for i in range(length)), END] for d, length in enumerate(lengths)]


def test_every_packing_is_tested_here() -> None:
    assert sorted(KINDS) == kinds_in("data/packing")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(lengths=LENGTHS, block_length=BLOCK)
def test_every_packing(kind: str, lengths: list[int], block_length: int) -> None:
    """Blocks are full, no token occurs twice, documents stay in order, and the counts add up."""
    blocks, plan, lengths_D = pack(kind, lengths, block_length)
    rebuilt: dict[int, dict[int, int]] = {document: {} for document in range(len(lengths))}
    starts = [*(plan[:, 0] * block_length + plan[:, 1]), blocks.size]
    assert not len(plan) or starts[0] == 0
    for (_, _, document, position), (start, stop) in zip(plan.tolist(), itertools.pairwise(starts), strict=True):
        assert 0 < stop - start <= block_length - start % block_length, "a segment lies in one block"
        for index, token in enumerate(blocks.reshape(-1)[start:stop].tolist()):
            assert position + index not in rebuilt[document]
            rebuilt[document][position + index] = token
    runs = expected_runs(lengths)
    for document, run in enumerate(runs):
        assert set(rebuilt[document]) <= set(range(len(run)))
        for position, token in rebuilt[document].items():
            assert token == run[position]
    assert (blocks == END).sum() == sum(len(run) - 1 in rebuilt[document] for document, run in enumerate(runs))
    assert segments.documents_at(plan, block_length).shape == blocks.shape

    kept = [len(rebuilt[document]) for document in range(len(lengths))]
    dropped = [document for document in rebuilt if not kept[document]]
    cut = [document for document in rebuilt if 0 < kept[document] < len(runs[document])]
    split = [document for document in rebuilt if (plan[:, 2] == document).sum() > 1]
    counts = summary(lengths_D, plan, block_length)
    assert counts == {
        "documents": len(lengths),
        "tokens_in": sum(lengths) + len(lengths),
        "tokens_packed": blocks.size,
        "tokens_truncated": sum(len(runs[document]) - kept[document] for document in cut),
        "tokens_dropped": sum(len(runs[document]) for document in dropped),
        "documents_split": len(split),
        "short_documents_split": sum(lengths[document] + 1 <= block_length for document in split),
        "documents_cut": len(cut),
        "documents_dropped": len(dropped),
        "pieces": len(plan),
        "blocks": len(blocks),
    }
    assert counts["tokens_in"] == sum(counts[f"tokens_{part}"] for part in ("packed", "truncated", "dropped"))


@pytest.mark.parametrize("kind", LOSSLESS)
@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, block_length=BLOCK)
def test_only_a_tail_of_less_than_a_block_is_lost(kind: str, lengths: list[int], block_length: int) -> None:
    blocks, _, _ = pack(kind, lengths, block_length)
    assert len(blocks) == (sum(lengths) + len(lengths)) // block_length


@settings(max_examples=300, deadline=None)
@given(lengths=LENGTHS, block_length=BLOCK)
def test_truncating_leaves_each_document_in_one_segment_from_its_start(lengths: list[int], block_length: int) -> None:
    blocks, plan, lengths_D = pack("best_fit_truncate", lengths, block_length)
    assert (plan[:, segments.POSITION] == 0).all()
    assert len(set(plan[:, segments.DOCUMENT].tolist())) == len(plan)
    counts = summary(lengths_D, plan, block_length)
    assert counts["documents_split"] == 0
    assert counts["tokens_dropped"] < block_length, "the tail could have filled a block"
    # at most the last segment of a block is truncated, so a block uses up fewer than 2 T of the tokens that could fit
    fitting = np.minimum(lengths_D + 1, block_length).sum()
    assert fitting < (2 * len(blocks) + 1) * block_length
    for block in range(len(blocks)):
        of_block = plan[plan[:, segments.BLOCK] == block]
        sizes = np.minimum(lengths_D + 1, block_length)[of_block[:, segments.DOCUMENT]]
        assert (np.diff(of_block[:, segments.OFFSET]) == sizes[:-1]).all()


def slow_cover(gaps: list[int], sizes: list[int]) -> list[int] | None:
    """Fill gap by gap, the longest first; return the sorted losses of the documents used, None if a gap is left."""
    lost, gaps = [], sorted(gaps)
    while gaps and gaps[-1]:
        gap = gaps.pop()
        if not sizes:
            return None
        size = min((size for size in sizes if size >= gap), default=max(sizes))
        sizes = sorted(sizes)
        sizes.remove(size)
        lost.append(max(0, size - gap))
        gaps = sorted([*gaps, max(0, gap - size)])
    return sorted(lost)


@settings(max_examples=500, deadline=None)
@given(gaps=st.lists(st.integers(0, 12), max_size=12), sizes=st.lists(st.integers(1, 12), max_size=25))
def test_gaps_are_filled_as_one_by_one(gaps: list[int], sizes: list[int]) -> None:
    block, offset, complete = best_fit_truncate.cover_gaps(np.array(gaps, np.int64), np.array(sizes, np.int64), 12)
    expected = slow_cover(gaps, sizes)
    assert complete == (expected is not None)
    if expected is None:
        return
    lost = []
    for index, gap in enumerate(gaps):
        offset_in_block = 12 - gap
        for start, size in sorted((offset[j], sizes[j]) for j in np.flatnonzero(block == index)):
            assert start == offset_in_block
            offset_in_block = min(12, start + size)
            lost.append(start + size - offset_in_block)
        assert offset_in_block == 12
    assert sorted(lost) == expected


@settings(max_examples=300, deadline=None)
@given(lengths=LENGTHS, block_length=BLOCK)
def test_concat_is_the_stream_cut_into_blocks(lengths: list[int], block_length: int) -> None:
    blocks, _, _ = pack("concat", lengths, block_length)
    stream = list(itertools.chain.from_iterable(expected_runs(lengths)))
    assert blocks.reshape(-1).tolist() == stream[: len(stream) // block_length * block_length]


def slow_best_fit_decreasing(sizes: list[int], capacity: int) -> list[list[int]]:
    """Place item by item into the fullest bin that holds it, else into a new one; return the sizes in each bin."""
    bins: list[list[int]] = []
    for size in sorted(sizes, reverse=True):
        fitting = [index for index, held in enumerate(bins) if capacity - sum(held) >= size]
        if fitting:
            bins[min(fitting, key=lambda index: capacity - sum(bins[index]))].append(size)
        else:
            bins.append([size])
    return sorted(map(sorted, bins))


@settings(max_examples=500, deadline=None)
@given(data=st.data(), capacity=st.integers(1, 24))
def test_placing_equal_sizes_at_once_is_best_fit_decreasing(data: st.DataObject, capacity: int) -> None:
    sizes = data.draw(st.lists(st.integers(1, capacity), max_size=60))
    bins, offsets = best_fit_decreasing(np.array(sizes, np.int64), capacity)
    held: dict[int, list[tuple[int, int]]] = {}
    for size, index, offset in zip(sizes, bins.tolist(), offsets.tolist(), strict=True):
        held.setdefault(index, []).append((offset, size))
    for items in held.values():  # no overlap, and no hole before the end of the last item
        stop = 0
        for offset, size in sorted(items):
            assert offset == stop
            stop += size
        assert stop <= capacity
    assert sorted(held) == list(range(len(held)))
    # two bins of equal space are equal for best fit, so an item may go to either; the bins' contents must agree
    filled = sorted(sum(size for _, size in items) for items in held.values())
    assert filled == sorted(sum(held) for held in slow_best_fit_decreasing(sizes, capacity))


def test_small_cases_of_best_fit_exhaustively() -> None:
    for sizes in itertools.product(range(1, 6), repeat=5):
        bins, _ = best_fit_decreasing(np.array(sizes, np.int64), 5)
        assert bins.max() + 1 == len(slow_best_fit_decreasing(list(sizes), 5))


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, block_length=BLOCK)
def test_best_fit_cuts_no_more_often_than_concat_must(lengths: list[int], block_length: int) -> None:
    """Step 3 makes at most one cut per gap, which bounds the number of segments."""
    _, plan, lengths_D = pack("best_fit", lengths, block_length)
    blocks = (int(lengths_D.sum()) + len(lengths)) // block_length
    full = int(((lengths_D + 1) // block_length).sum())
    items = int(((lengths_D + 1) % block_length > 0).sum())
    assert len(plan) <= full + items + (blocks - full)


def test_best_fit_by_hand() -> None:
    # T = 10; with end-of-text the documents have 25, 6, 4, 7, 3 and 4 tokens: 49, so 4 blocks and a tail of 9
    blocks, plan, _ = pack("best_fit", [24, 5, 3, 6, 2, 3], 10)
    counts = summary(np.array([24, 5, 3, 6, 2, 3]), plan, 10)
    assert blocks.tolist() == [
        list(range(10)),
        list(range(10, 20)),
        [300, 301, 302, 303, 304, 305, END, 400, 401, END],
        [100, 101, 102, 103, 104, END, 200, 201, 202, END],
    ]  # 7 + 3 and 6 + 4; the bin of 5 + 4 is the tail
    assert (counts["tokens_truncated"], counts["documents_cut"]) == (5, 1)
    assert (counts["tokens_dropped"], counts["documents_dropped"]) == (4, 1)
    assert counts["short_documents_split"] == 0


def test_truncating_best_fit_by_hand() -> None:
    # T = 10; with end-of-text 25, 6, 4, 7, 3, 4, 8 and 3 tokens; bins: 10 of the 25 | 8 | 7 + 3 | 6 + 4 | 4 + 3.
    # Fullest first: the gap of 2 next to the 8 goes to the head of the last bin's 3, and 4 tokens are left over
    blocks, plan, lengths_D = pack("best_fit_truncate", [24, 5, 3, 6, 2, 3, 7, 2], 10)
    assert blocks.tolist() == [
        list(range(10)),
        [300, 301, 302, 303, 304, 305, END, 400, 401, END],
        [100, 101, 102, 103, 104, END, 200, 201, 202, END],
        [600, 601, 602, 603, 604, 605, 606, END, 700, 701],
    ]
    counts = summary(lengths_D, plan, 10)
    assert (counts["tokens_truncated"], counts["documents_cut"]) == (15 + 1, 2)
    assert (counts["tokens_dropped"], counts["documents_dropped"]) == (4, 1)


def test_a_gap_longer_than_any_document_is_filled_by_several() -> None:
    # T = 10; 6 alone, and items of 5 and 5 share a bin; then 9 tokens in three documents of one bin
    block, offset, complete = best_fit_truncate.cover_gaps(np.array([9]), np.array([4, 3, 4]), 10)
    assert complete
    assert (block.tolist(), offset.tolist()) == ([0, 0, 0], [1, 9, 5])


def test_gaps_are_filled_by_the_emptiest_block() -> None:
    # T = 10; ten documents of 7 tokens: ten bins with 3 tokens of space each, 70 tokens, 7 blocks, 3 documents cut up
    _, plan, lengths_D = pack("best_fit", [6] * 10, 10)
    counts = summary(lengths_D, plan, 10)
    assert counts["blocks"] == 7
    assert counts["tokens_dropped"] == 0
    assert counts["documents_split"] == 3
    _, cut, _ = pack("concat", [6] * 10, 10)
    assert summary(lengths_D, cut, 10)["documents_split"] == 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [8], [9], [10], [19, 19], [0] * 25])
def test_edges(kind: str, lengths: list[int]) -> None:
    blocks, _, _ = pack(kind, lengths, 10)
    fitting = [length + 1 if kind in LOSSLESS else min(length + 1, 10) for length in lengths]
    assert len(blocks) == sum(fitting) // 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_window_size_does_not_change_the_blocks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.random.default_rng(0).integers(0, 90, 60).tolist()
    expected, _, _ = pack(kind, lengths, 16)
    for window in (1, 7, 64, 1000):
        monkeypatch.setattr(fill_blocks, "WINDOW", window)
        assert (pack(kind, lengths, 16)[0] == expected).all()


@pytest.mark.parametrize("kind", KINDS)
def test_planning_in_chunks_does_not_change_the_plan(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(0, 70, 80).tolist()
        _, plan, lengths_D = pack(kind, lengths, 16)
        with monkeypatch.context() as patched:
            for module, name in ((best_fit, "CHUNK_ROWS"), (best_fit_truncate, "CHUNK_ROWS"), (concat, "DOCUMENTS")):
                patched.setattr(module, name, 3)
            parts = list(KINDS[kind].plan(options_of("data/packing", kind)(kind=kind), lengths_D, 16))
        assert len(parts) > 1 and (np.concatenate(parts) == plan).all()
        done = PackingSummary(lengths_D, 16)
        for part in parts:
            done.add(part)
        assert done.counts() == summary(lengths_D, plan, 16)


def test_segments_of_other_blocks_are_not_consistent(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, plan, lengths_D = pack("best_fit", [13, 2, 40, 0, 7, 7], 8)
    for portion in (1, 4, 1000):
        monkeypatch.setattr(mapped_segments, "CHUNK_ROWS", portion)
        assert mapped_segments.is_consistent(plan, len(blocks), 8, len(lengths_D))
        assert not mapped_segments.is_consistent(plan, len(blocks) + 1, 8, len(lengths_D))
        assert not mapped_segments.is_consistent(plan, len(blocks), 8, int(plan[:, segments.DOCUMENT].max()))
        assert not mapped_segments.is_consistent(plan[1:], len(blocks), 8, len(lengths_D))
        assert not mapped_segments.is_consistent(plan[::-1], len(blocks), 8, len(lengths_D))
        assert (segments.concatenate_plan(mapped_segments.whole_block_chunks(plan, 8)) == plan).all()
        assert (
            mapped_segments.find_block_starts(plan, np.arange(len(blocks) + 1)).tolist()
            == segments.block_edges(plan, len(blocks)).tolist()
        )
    assert mapped_segments.is_consistent(plan[:0], 0, 8, 0) and not mapped_segments.is_consistent(plan[:0], 1, 8, 0)


def test_selected_blocks_keep_their_segments() -> None:
    lengths = [13, 2, 40, 0, 7, 7]
    blocks, plan, lengths_D = pack("best_fit", lengths, 8)
    rows = np.array([4, 0, 7])
    chosen = segments.select_blocks(plan, segments.block_edges(plan, len(blocks)), rows)
    values = np.array([100 * d + i for d, length in enumerate(lengths) for i in range(length)], np.uint32)
    again = np.zeros((3, 8), np.uint32)
    fill_blocks.fill_blocks(values, np.cumsum(lengths_D) - lengths_D, lengths_D, chosen, end=END, blocks_BT=again)
    assert (again == blocks[rows]).all()
    assert (segments.documents_at(chosen, 8) == segments.documents_at(plan, 8)[rows]).all()
