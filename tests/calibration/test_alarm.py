"""Test what the page says of the alarm: small simulations, numbers by hand, and the page itself."""

import math
import pathlib

import numpy as np
import pytest
from scipy import stats

from speciate.analysis import alarm as rule
from speciate.calibration import alarm, page
from speciate.calibration.topic import LEVEL, LIMIT

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("fresh", [False, True])
def test_documents_have_the_shares_that_are_set(fresh: bool) -> None:
    setting = alarm.Setting("", alarm.own_slots(2, 4, 0.7), (150, 150))
    observed = setting.observe(np.random.default_rng(0), 20, fresh=fresh)
    share_KGS = observed.chosen_KGS / observed.chosen_KGS.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(share_KGS[:, :150].mean(axis=(0, 1)), [0.7, 0.1, 0.1, 0.1], atol=0.03)
    np.testing.assert_allclose(share_KGS[:, 150:].mean(axis=(0, 1)), [0.1, 0.7, 0.1, 0.1], atol=0.03)
    np.testing.assert_allclose(alarm.mean_share(observed).mean(axis=0), [0.4, 0.4, 0.1, 0.1], atol=0.03)
    # the same documents keep their taste, fresh ones do not
    between = share_KGS[:, :150, 0] - share_KGS[:, :150, 0].mean()
    within = float((between[:-1] * between[1:]).mean() / between.var())
    assert (within > 0.3) is not fresh


@pytest.mark.parametrize("setting", [alarm.HEALTHY[2], alarm.HEALTHY[3], alarm.HEALTHY[6]], ids=lambda one: one.name)
def test_runs_at_the_limit_seldom_raise_the_alarm(setting: alarm.Setting) -> None:
    draw, fired = np.random.default_rng(3), 0
    for _ in range(100):
        run = [setting.observe(draw, 17, fresh=False) for _ in range(setting.layers)]
        fired += not math.isnan(alarm.first_checks(run)["alarm"])
    assert fired <= stats.binom.ppf(0.999, 100, LEVEL)


def test_the_setting_of_unequal_domains_would_alarm_if_documents_weighed_alike() -> None:
    # 60 of 74 documents give .9 to the same slot, but each domain has a third of the weight: .37
    setting = next(one for one in alarm.HEALTHY if "most documents" in one.name)
    observed = setting.observe(np.random.default_rng(0), 17, fresh=False)
    assert math.isnan(alarm.first_checks([observed])["alarm"])
    alike = rule.Observations(observed.chosen_KGS, np.zeros(74, dtype=np.int64), observed.null_S)
    assert alarm.first_checks([alike])["alarm"] == 1


def test_a_collapse_keeps_its_documents_and_passes_its_limit() -> None:
    case = alarm.Collapse(8, 0.95, 0.0, (20, 20, 20))
    assert case.tops().tolist() == pytest.approx([1 / 8] * 8 + [0.95] * 16)
    observed = case.observe(np.random.default_rng(0))
    assert (observed.chosen_KGS[8] == observed.chosen_KGS[23]).all()
    assert alarm.first_checks([observed]) == {"alarm": 9, "rule_3_over_e": 9, "rule_60_percent": 11}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0, 4.0], "2"),
        ([math.nan] * 3, "never"),
        ([0.0, 1.0, math.nan], "1 (0.67)"),
        ([0.0, math.nan, math.nan], "later (0.33)"),
    ],
)
def test_delays_are_medians_over_all_runs(values: list[float], text: str) -> None:
    assert alarm.format_delay(values) == text


def test_the_fewest_documents_by_hand() -> None:
    # equal weights, stakes of .5, .75 and .95, two slots: n documents are worth the mean over stakes of
    # (1 + stake (1 - tau) / tau)^n / (1 + (1 + stake (1 - 2 tau) / tau)^n), and 24 / .05 are needed at one check
    tau = 2 ** (-1 / 3)

    def worth(num: int) -> float:
        members = []
        for stake in (0.5, 0.75, 0.95):
            low = (1 + stake * (1 - 2 * tau) / tau) ** num
            members.append(((1 + stake * (1 - tau) / tau) ** num + (1 - stake) ** num) / (1 + low))
        return sum(members) / 3

    least = next(num for num in range(1, 100) if worth(num) >= 24 / LEVEL)
    assert alarm.fewest_documents(2, 1, 1, 1) == least == 32
    # n documents choose one slot with probability tau^n, so no test of level .05 tells it from fewer than 13
    (row,) = (row for row in alarm.needs(1.0).rows if row[0] == "2, of which a decision chooses 1")
    assert row[1] == pytest.approx(0.794, abs=5e-4)
    assert (row[2], row[-1]) == ("32", "13")


def test_the_page_holds_what_the_alarm_promises() -> None:
    section = page.read_sections((ROOT / "docs" / "calibration.md").read_text(encoding="utf-8"))["alarm"]
    rates = page.read_table(section, "setting")
    assert len(rates) == len(alarm.HEALTHY) * 2 * len(alarm.CHECKS)
    for setting, row in rates.items():
        high = float(row["our alarm"].strip("*").rsplit(", ")[1].rstrip("]"))
        assert high <= LIMIT, setting
    delays = page.read_table(section, "collapse")
    assert list(delays) == [case.name for case in alarm.COLLAPSES]
    # a total collapse of two slots is told within a tenth of 24 checks, where the probe has twenty documents a domain
    assert float(delays["2 slots, to 1 at once, 60 documents"]["our alarm"]) <= 2
    needed = page.read_table(section, "slots")
    assert list(needed) == [f"{slots}, of which a decision chooses {chosen}" for slots, chosen in alarm.SIZES]
