import numpy as np
import pytest

from speciate.analysis import load

EVEN = np.full(8, 1 / 8)
ONE = np.eye(8)[3]
HAND = np.array([0.5, 0.25, 0.25, 0.0])
# layer 9 of the no-balance run of moe-emergence when it was stopped, with statistics published with it or derived
S1 = np.array([0.034, 0.745, 0.045, 0.021, 0.018, 0.052, 0.076, 0.010])


def test_shares_of_counts() -> None:
    assert load.shares(np.array([[2.0, 1, 1, 0], [0, 0, 0, 5]])).tolist() == [[0.5, 0.25, 0.25, 0], [0, 0, 0, 1]]
    assert np.isnan(load.shares(np.zeros(4))).all()


@pytest.mark.parametrize(
    ("statistic", "even", "one", "hand"),
    [
        (load.max_violation, 0, 7, 1),
        (load.effective_slots, 8, 1, 2**1.5),
        (load.gini, 0, 7 / 8, 0.375),
        (load.cv_squared, 0, 7, 0.5),
    ],
)
def test_by_hand(statistic, even: float, one: float, hand: float) -> None:
    assert statistic(EVEN) == pytest.approx(even, abs=1e-12)
    assert statistic(ONE) == pytest.approx(one)
    assert statistic(HAND) == pytest.approx(hand)
    assert statistic(np.stack([EVEN, ONE])).shape == (2,)


def test_a_published_collapse() -> None:
    assert load.max_violation(S1) == pytest.approx(4.96, abs=0.005)
    assert load.effective_slots(S1 / S1.sum()) == pytest.approx(2.77, abs=0.02)
    assert np.log(load.effective_slots(S1 / S1.sum())) / np.log(8) == pytest.approx(0.49, abs=0.005)
    assert load.gini(S1) == pytest.approx(0.69, abs=0.005)


def test_gini_is_half_the_relative_mean_difference() -> None:
    share = np.random.default_rng(0).dirichlet(np.ones(6), size=10)
    pairs = np.abs(share[:, :, None] - share[:, None, :]).mean(axis=(1, 2))
    np.testing.assert_allclose(load.gini(share), pairs / (2 * share.mean(axis=1)))


def test_inverse_simpson_and_cv_squared_agree() -> None:
    share = np.random.default_rng(1).dirichlet(np.ones(6), size=10)
    np.testing.assert_allclose(1 / (share**2).sum(axis=1), 6 / (1 + load.cv_squared(share)))


def test_noise_floor_is_what_chance_gives() -> None:
    assert load.noise_floor(8, 512, 1) == pytest.approx(0.2385, abs=1e-4)
    assert load.noise_floor(8, 512, 2) == pytest.approx(0.2385 / np.sqrt(2), abs=1e-4)
    counts = np.random.default_rng(2).multinomial(4096, np.full(64, 1 / 64), size=2000)
    drawn = load.shares(counts.astype(float))
    floor = load.noise_floor(64, 4096.0, 1)
    # sqrt(2 ln E) standard deviations bounds the largest of E normal variables from above, within a fifth at E = 64
    assert 0.8 * floor < load.max_violation(drawn).mean() < floor
    assert load.cv_squared(drawn).mean() == pytest.approx(63 / 4096, rel=0.02)


def test_dead_is_strictly_below_a_tenth_of_the_even_share() -> None:
    share = np.array([0.0124, 0.0125, 0.9751, 0, 0, 0, 0, 0])
    assert load.is_dead(share).tolist() == [True, False, False, True, True, True, True, True]


STEPS = np.array([0, 10, 20, 30, 40])
# slot 0 lives, slot 1 dies at 10 and recovers at 30, slot 2 is dead from the first check, slot 3 dies twice
LIFE = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0], [1, 1, 0, 0]], dtype=float)


def test_revivals_by_hand() -> None:
    result = load.revivals(load.shares(LIFE), STEPS)
    assert result["slot"].tolist() == [1, 2, 3, 3]
    assert result["died"].tolist() == [10, 0, 10, 30]
    assert result["revived"].fillna(-1).tolist() == [30, -1, 20, -1]
    later = load.revivals(load.shares(LIFE), STEPS, armed_step=15)
    assert later[["slot", "died"]].to_numpy().tolist() == [[1, 20], [2, 20], [3, 30]]
    assert load.revivals(np.ones((5, 2)) / 2, STEPS).empty


def test_revived_counts_slots_that_were_dead_and_live() -> None:
    assert load.num_revived(load.shares(LIFE), STEPS).tolist() == [0, 0, 1, 1, 1]
    assert load.num_revived(load.shares(LIFE), STEPS, armed_step=25).tolist() == [0, 0, 0, 0, 0]
