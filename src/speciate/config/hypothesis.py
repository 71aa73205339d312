"""Predictions that a study writes down before its runs, and the tests that decide them."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

import pydantic
from pydantic import Field

from speciate.config.components import Strict
from speciate.config.contracts.statistics import NAMES, OF_DOMAIN, OF_LAYER, RULES, TOKEN_TYPES, TYPE_SHARE
from speciate.config.run import Name

Measured = Annotated[str, Field(pattern=r"^measured\.[a-z][a-z0-9_]*$")]
"""A metric that modules record besides their choices (selection/metrics.py): `measured.<name>`, its mean over a run's
modules."""
Fired = Annotated[str, Field(pattern=rf"^fired\.({'|'.join(RULES)})$")]
"""Whether a collapse rule fired in a run: 1 or 0, so that its mean is a share of runs."""
OfDomain = Annotated[str, Field(pattern=rf"^({'|'.join(OF_DOMAIN)})\.[a-z][a-z0-9_]*$")]
"""The loss of one domain: `loss.<domain>` or `bits_per_byte.<domain>`."""
OfLayer = Annotated[str, Field(pattern=rf"^({'|'.join(OF_LAYER)})\.layer[0-9]+$")]
"""A statistic of the selectors in one layer, counted from 0: `max_share.layer9`."""
OfType = Annotated[str, Field(pattern=rf"^{TYPE_SHARE}\.({'|'.join(TOKEN_TYPES)})(\.layer[0-9]+)?$")]
"""Largest share of a lexical type's tokens of Python that one slot gets, in any layer or in one:
`type_share.keyword.layer8`."""
if TYPE_CHECKING:
    Statistic = str
else:
    Statistic = Literal[NAMES]
    """What a hypothesis may be about: a number of each run in tables/runs (config/contracts/statistics.py)."""

NEEDS = {
    "difference": ("reference",),
    "value": ("value",),
    "proportion": (),
    "trend": ("over",),
}
"""Test -> the fields that it needs besides those that every hypothesis has."""
MAY_HAVE = {
    "difference": ("reference", "scale"),
    "value": ("value", "scale"),
    "proportion": ("reference", "value", "above", "below"),
    "trend": ("over", "minus", "per", "scale"),
}
"""Test -> the fields that mean something to it."""
OF_SOME_TESTS = ("reference", "value", "above", "below", "over", "minus", "per", "scale")


class Hypothesis(Strict):
    """A prediction, written down before the run, about a statistic of an arm's runs; a seed is one observation."""

    statement: str = Field(min_length=1)
    """The prediction in words."""
    statistic: Statistic | Measured | Fired | OfDomain | OfLayer | OfType
    """A numeric column of tables/runs, `measured.<name>` of tables/measurements, or `fired.<rule>`: 1 where a collapse
    rule (`rule_60_percent`, `rule_3_over_e`, `alarm`) fired, 0 where it did not. A part of a run has its own:
    `loss.<domain>`, `max_share.layer<n>` (any statistic of selectors, layers counted from 0), and `type_share.<type>`
    or `type_share.<type>.layer<n>`: the largest share of the keywords (names, numbers, ...) of Python that one slot
    gets."""
    test: Literal["difference", "value", "proportion", "trend"] = "difference"
    """What is compared with what. `difference`: the arm with `reference`, paired by seed (t interval). `value`: the arm
    with the number `value` (t interval). `proportion`: the share of the arm's runs whose statistic is `above` or
    `below` a limit, with the share `value` (Clopper-Pearson) or with that of `reference`, paired by seed (McNemar,
    exact). `trend`: the slope of the statistic, or of its difference from the arms of `minus`, over a number that the
    arms of `over` differ by, one slope for each seed (t interval)."""
    arm: Name
    """The ablation that the prediction is about; for a trend, one of `over`."""
    reference: Name | None = None
    """The ablation that it is compared with, paired by seed; for `difference`, and for `proportion` without `value`."""
    direction: Literal["greater", "less", "equivalent"]
    """What is predicted of the difference: arm minus reference, arm minus value, or slope."""
    margin: float = Field(0.0, ge=0)
    """Size of the predicted difference. `greater`: it exceeds the margin. `less`: it is below minus the margin.
    `equivalent`: it lies within plus or minus the margin (two one-sided tests)."""
    value: float | None = None
    """The number that the arm's mean (`value`) or share of runs (`proportion`) is compared with."""
    above: float | None = None
    """For `proportion`: a run counts if its statistic is above this."""
    below: float | None = None
    """For `proportion`: a run counts if its statistic is below this."""
    over: dict[Name, float] = {}
    """For `trend`: the arms, and the number that each of them stands for, such as its learning rate."""
    minus: dict[Name, Name] = {}
    """For `trend`: each arm of `over`, and the arm that is subtracted from it, seed by seed: does a difference between
    two arms grow?"""
    per: Literal["unit", "tenfold"] = "unit"
    """For `trend`: the slope is the change of the statistic per unit of that number, or per tenfold increase of it."""
    scale: Literal["plain", "fisher_z"] = "plain"
    """`fisher_z` compares correlations as artanh(r), whose spread does not depend on r. `value` remains a correlation;
    `margin` is then in units of z: 0.1 is a difference of about 0.1 between small correlations, and of less near 1."""

    @property
    def arms(self) -> list[str]:
        """Return every ablation that the hypothesis names."""
        return list(
            dict.fromkeys([self.arm, *([self.reference] if self.reference else []), *self.over, *self.minus.values()])
        )

    @property
    def domain(self) -> str | None:
        """The domain that the statistic is about, or None."""
        name, _, domain = self.statistic.partition(".")
        return domain if domain and name in OF_DOMAIN else None

    @property
    def layer(self) -> int | None:
        """The layer whose selectors the statistic is about, or None."""
        name, *part = self.statistic.split(".")
        of_layer = name in (*OF_LAYER, TYPE_SHARE) and part and part[-1].startswith("layer")
        return int(part[-1].removeprefix("layer")) if of_layer else None

    @property
    def is_about_types(self) -> bool:
        """Whether the statistic is about lexical types, which only a domain with a programming language has."""
        return self.statistic.startswith(f"{TYPE_SHARE}.")

    @pydantic.model_validator(mode="after")
    def _check_test(self) -> Self:
        fields = type(self).model_fields
        given = [name for name in OF_SOME_TESTS if getattr(self, name) != fields[name].default]
        missing = [name for name in NEEDS[self.test] if name not in given]
        if missing:
            raise ValueError(f"test {self.test} needs {', '.join(missing)}")
        strange = [name for name in given if name not in MAY_HAVE[self.test]]
        if strange:
            raise ValueError(f"{', '.join(strange)}: has no meaning for test {self.test}")
        if self.test == "proportion":
            self._check_proportion()
        if self.test == "trend":
            self._check_trend()
        if self.scale == "fisher_z" and not str(self.statistic).endswith("correlation"):
            raise ValueError(f"scale: fisher_z is for correlations, and {self.statistic} is none")
        if self.scale == "fisher_z" and self.value is not None and not -1 < self.value < 1:
            raise ValueError(f"value: a correlation is between -1 and 1, not {self.value:g}")
        return self

    def _check_proportion(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ValueError("test proportion needs either above or below, the limit that makes a run count")
        if (self.value is None) == (self.reference is None):
            raise ValueError("test proportion needs either value or reference, what the share of runs is compared with")
        if self.value is not None and not 0 <= self.value <= 1:
            raise ValueError(f"value: a share of runs is between 0 and 1, not {self.value:g}")

    def _check_trend(self) -> None:
        if self.arm not in self.over:
            raise ValueError(f"arm: {self.arm} is not in over, which names the arms of the trend")
        if len(set(self.over.values())) < 2:
            raise ValueError("over: a trend needs arms of at least two different numbers")
        if self.per == "tenfold" and min(self.over.values()) <= 0:
            raise ValueError("per: tenfold needs numbers above 0 in over")
        if self.minus and set(self.minus) != set(self.over):
            different = ", ".join(sorted(set(self.minus) ^ set(self.over)))
            raise ValueError(f"minus: needs exactly the arms of over, and differs in {different}")
        for arm, subtracted in self.minus.items():
            if arm == subtracted:
                raise ValueError(f"minus: subtracts {arm} from itself")
