"""Test clusters and the documents dropped from them against the same rule applied one document at a time."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.arrays import scratch
from speciate.data.dedup import clusters, union_find
from speciate.data.dedup.clusters import EXACT, KEEP, NEAR, Clusters, cluster_documents

Edges = set[tuple[int, int]]


def first_of(texts: list[int]) -> npt.NDArray[np.int64]:
    """Return, for each document, the first document with the same text."""
    return np.array([texts.index(text) for text in texts], np.int64)


def run(texts: list[int], alike: Edges, policies: list[int], links: Edges | None = None) -> Clusters:
    """Cluster documents of numbered texts; `alike` holds pairs of texts."""
    firsts = first_of(texts)
    both = alike | {(two, one) for one, two in alike}
    pairs = [
        (texts.index(one), texts.index(two))
        for one, two in sorted(alike if links is None else links)
        if one in texts and two in texts
    ]
    return cluster_documents(
        firsts,
        np.array(pairs, np.int64).reshape(len(pairs), 1, 2),  # one portion each
        np.array(policies, np.int8),
        lambda asked: np.array([(texts[one], texts[two]) in both for one, two in asked.tolist()], bool),
    )


def one_by_one(texts: list[int], alike: Edges, policies: list[int]) -> list[int]:
    """Apply the rule itself: drop a document if its policy allows it and an earlier kept document is a reason to."""
    both = alike | {(two, one) for one, two in alike}
    of: list[int] = []
    for document, (text, policy) in enumerate(zip(texts, policies, strict=True)):
        kept = [other for other in range(document) if of[other] < 0]
        why = [
            other
            for other in kept
            if (policy != KEEP and texts[other] == text) or (policy == NEAR and (texts[other], text) in both)
        ]
        of.append(why[0] if why else -1)
    return of


TEXTS = st.lists(st.integers(0, 9), max_size=20)
EDGES = st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda pair: pair[0] < pair[1]), max_size=14)


@given(TEXTS, EDGES, st.lists(st.sampled_from([KEEP, EXACT, NEAR]), min_size=20, max_size=20))
def test_documents_are_dropped_as_if_gone_through_one_by_one(
    texts: list[int], alike: Edges, policies: list[int]
) -> None:
    policies = policies[: len(texts)]
    result = run(texts, alike, policies)
    assert result.replacement_D.tolist() == one_by_one(texts, alike, policies)
    dropped = result.dropped
    assert result.is_exact(dropped).tolist() == [
        texts[index] == texts[result.replacement_D[index]] for index in dropped.tolist()
    ]


@given(TEXTS, EDGES)
def test_clusters_are_what_hangs_together_and_numbered_by_their_first_documents(texts: list[int], alike: Edges) -> None:
    result = run(texts, alike, [KEEP] * len(texts))
    groups = [{document} for document in range(len(texts))]
    for one in range(len(texts)):
        for two in range(one):
            if texts[one] == texts[two] or tuple(sorted((texts[one], texts[two]))) in alike:
                joined = groups[one] | groups[two]
                for member in joined:
                    groups[member] = joined
    expected = sorted({tuple(sorted(group)) for group in groups if len(group) > 1})
    assert [tuple(np.flatnonzero(result.clusters_D == index).tolist()) for index in range(len(expected))] == expected
    assert set(result.clusters_D.tolist()) - {-1} == set(range(len(expected)))
    assert result.sizes().tolist() == [len(group) for group in expected]
    assert result.has_one_text().tolist() == [len({texts[index] for index in group}) == 1 for group in expected]
    assert not len(result.dropped)


def test_portions_and_parts_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    texts = draw.integers(0, 300, 500).tolist()
    alike = {tuple(sorted(pair)) for pair in draw.integers(0, 300, (150, 2)).tolist() if pair[0] != pair[1]}
    policies = draw.integers(0, 3, 500).tolist()
    reference = run(texts, alike, policies)
    reported = reference.sizes(), reference.has_one_text(), reference.domain_membership(lambda each: each % 3, 3)
    for module, name, size in (
        (clusters, "CHUNK_ROWS", 7),
        (union_find, "CHUNK_ROWS", 9),
        (scratch, "PARTITION_ROWS", 20),
    ):
        monkeypatch.setattr(module, name, size)
    result = run(texts, alike, policies)
    assert len(result.dropped) > 100
    assert np.array_equal(result.replacement_D, reference.replacement_D) and np.array_equal(
        result.clusters_D, reference.clusters_D
    )
    for one, other in zip(
        (result.sizes(), result.has_one_text(), result.domain_membership(lambda each: each % 3, 3)),
        reported,
        strict=True,
    ):
        assert np.array_equal(one, other)


def test_a_chains_far_end_is_kept() -> None:
    result = run([0, 1, 2], {(0, 1), (1, 2)}, [NEAR] * 3)
    assert result.clusters_D.tolist() == [0, 0, 0]
    assert result.replacement_D.tolist() == [-1, 0, -1]


def test_a_link_that_was_not_needed_to_connect_is_asked_for() -> None:
    """`bucket` leaves out pairs that are already connected; documents are compared again with the one that is kept."""
    alike = {(0, 1), (1, 2), (0, 2)}
    assert run([0, 1, 2], alike, [NEAR] * 3, links={(0, 1), (1, 2)}).replacement_D.tolist() == [-1, 0, 0]


def test_a_copy_of_a_dropped_document_goes_where_only_near_ones_may() -> None:
    texts, alike = [0, 1, 1, 1], {(0, 1)}
    result = run(texts, alike, [NEAR, NEAR, EXACT, EXACT])
    assert result.replacement_D.tolist() == [
        -1,
        0,
        -1,
        2,
    ]  # the first copy stays in a domain that drops only equal texts
    assert result.is_exact(result.dropped).tolist() == [False, True]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_no_duplicates_no_clusters(count: int) -> None:
    result = run(list(range(count)), set(), [NEAR] * count)
    assert result.replacement_D.tolist() == result.clusters_D.tolist() == [-1] * count
    assert (
        not len(result.sizes())
        and not len(result.has_one_text())
        and result.domain_membership(np.zeros_like, 2).shape == (0, 2)
    )


def test_many_copies_of_many_texts_take_few_comparisons() -> None:
    requests: list[int] = []
    texts = np.sort(np.random.default_rng(0).integers(0, 50, 5000))
    firsts = np.searchsorted(texts, texts)
    links = np.stack([firsts[:1].repeat(len(firsts)), firsts], axis=1)
    result = cluster_documents(
        firsts,
        [links],
        np.full(5000, NEAR, np.int8),
        lambda pairs: requests.append(len(pairs)) or np.ones(len(pairs), bool),  # type: ignore[func-returns-value]
    )
    assert requests == [49]
    assert len(result.dropped) == 4999
