import numpy as np
import pytest

from speciate.analysis import draws

DOMAIN_G = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])


def test_draws_depend_on_seed_and_purpose_alone() -> None:
    assert draws.generator(3, "a").random() == draws.generator(3, "a").random()
    values = {draws.generator(seed, purpose).random() for seed in (0, 1) for purpose in ("a", "b")}
    assert len(values) == 4
    np.testing.assert_array_equal(draws.permuted_labels(DOMAIN_G, 5, 1), draws.permuted_labels(DOMAIN_G, 5, 1))


def test_philox_is_pinned() -> None:
    # bits of a counter-based generator are the same on every machine; a change would change every p-value
    assert draws.generator(0, "permutations").integers(0, 1000, 4).tolist() == [630, 853, 609, 754]


def test_permutations_keep_the_number_of_groups_of_each_domain() -> None:
    labels = draws.permuted_labels(DOMAIN_G, 200, 0)
    assert labels.shape == (201, 9)
    assert labels[0].tolist() == DOMAIN_G.tolist()
    assert (np.sort(labels, axis=1) == np.sort(DOMAIN_G)).all()
    # each group gets each domain as often as the domain has groups
    np.testing.assert_allclose((labels[1:] == 0).mean(axis=0), 4 / 9, atol=0.12)


def test_resamples_draw_within_domains() -> None:
    times = draws.resample_counts(DOMAIN_G, 500, 0)
    for domain, size in ((0, 4), (1, 3), (2, 2)):
        assert (times[:, domain == DOMAIN_G].sum(axis=1) == size).all()
    np.testing.assert_allclose(times.mean(axis=0), 1, atol=0.15)
    np.testing.assert_allclose(times[:, :4].var(axis=0), 1 - 1 / 4, atol=0.15)


def test_halves_split_every_domain() -> None:
    second = draws.assign_halves(DOMAIN_G, 0)
    assert [int(second[domain == DOMAIN_G].sum()) for domain in range(3)] == [2, 1, 1]


def test_sums_are_those_of_a_loop() -> None:
    value_GX = np.random.default_rng(0).random((9, 2, 3))
    labels, times = draws.permuted_labels(DOMAIN_G, 4, 0), draws.resample_counts(DOMAIN_G, 4, 0)
    by_label, by_resample = np.zeros((5, 3, 2, 3)), np.zeros((4, 3, 2, 3))
    for group in range(9):
        for b in range(5):
            by_label[b, labels[b, group]] += value_GX[group]
        for b in range(4):
            by_resample[b, DOMAIN_G[group]] += times[b, group] * value_GX[group]
    np.testing.assert_allclose(draws.sums_by_label(labels, 3, value_GX), by_label)
    np.testing.assert_allclose(draws.sums_by_resample(times, DOMAIN_G, 3, value_GX), by_resample)


def test_units_by_hand() -> None:
    # effective groups: 8 / 1 + ... = 4 equal ones; 100 / 38 = 2.6; 36 / 14 = 2.6: three units of each domain
    size_G = np.array([2.0, 2, 2, 2, 5, 3, 2, 3, 2, 1])
    domain_G = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    result = draws.gather_units(size_G, domain_G)
    assert result.domain_U.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert result.unit_G.tolist() == [0, 1, 2, 0, 3, 4, 5, 6, 7, 8]
    assert result.sum(size_G).tolist() == [4, 2, 2, 5, 3, 2, 3, 2, 1]
    assert result.sum(np.stack([size_G, size_G]), axis=1).shape == (2, 9)


def test_units_are_even_and_as_many_as_the_poorest_domain_has() -> None:
    size_G = np.array([*[10.0] * 40, *[90.0, 110, 100, 100], 0.0])
    domain_G = np.array([*[0] * 40, *[1] * 4, 2])
    result = draws.gather_units(size_G, domain_G)
    assert result.domain_U.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]  # domain 2 was never seen and has no units
    assert result.unit_G[-1] == -1
    assert result.sum(size_G).tolist() == [100, 100, 100, 100, 110, 100, 100, 90]


def test_units_are_the_groups_where_these_are_equal() -> None:
    result = draws.gather_units(np.full(6, 7.0), np.array([0, 1, 0, 1, 0, 1]))
    assert sorted(result.unit_G.tolist()) == list(range(6))


def test_units_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="made no decision"):
        draws.gather_units(np.zeros(3), np.array([0, 1, 2]))
