"""Expand sweeps, a study file's short form for arms that differ in a few numbers or named choices.

    sweeps:
      balance:
        about: Router {rate} times as fast, balance of weight {weight}
        grid: {rate: [1, 3, 10, 30], weight: [0.001, 0.01]}
        change:
          model: {block: {ffn: {balance: {weight: "{weight}"}}}}
          optimizer: {lr_scales: {"*.router.*": "{rate}"}}

stands for eight arms, `balance_rate1_weight0_001` and so on. A text in `change` that is nothing but a parameter in
braces becomes the parameter's value, whatever its type. A parameter whose values are not numbers has a mapping of names
to values: `balance: {bias: {kind: bias, rate: 0.01}, none: none}`; its names stand in names and descriptions of arms.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field

from speciate.config.components import ConfigErrors, Strict, config_errors
from speciate.config.run import Name

Number = int | float
WHOLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
"""A text that is nothing but a parameter."""


class Sweep(Strict):
    """Arms that differ in the values of a grid's parameters."""

    about: str = Field(min_length=1)
    """One line about each arm; `{name}` stands for a parameter's value."""
    grid: dict[Name, list[Number] | dict[Name, Any]] = Field(min_length=1)
    """Parameter -> its numbers, or names of choices -> what each puts into `change`. Every combination is an arm."""
    change: dict[str, Any]
    """What each arm changes of `base`, with a parameter in braces where its value goes."""
    critical: Name | None = None
    """One of two parameters of positive numbers: at each value of the other, where along this one do half of the runs
    collapse? The probability is fitted over the logarithms of both; a value of 0 does not take part."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> "Sweep":
        for name, values in self.grid.items():
            if not values:
                raise _error(f"grid.{name}", "has no values")
            if isinstance(values, list) and len(set(values)) < len(values):
                raise _error(f"grid.{name}", f"{values} names a value twice")
        unknown = sorted(set(_parameters_in(self.change)) - set(self.grid))
        if unknown:
            raise _error("change", f"{{{unknown[0]}}} is no parameter of the grid, which has {', '.join(self.grid)}")
        unused = [name for name in self.grid if name not in set(_parameters_in(self.change))]
        if unused:
            raise _error(f"grid.{unused[0]}", f'nothing in change takes it; write "{{{unused[0]}}}" where it goes')
        try:
            self.about.format(**dict.fromkeys(self.grid, ""))
        except (KeyError, IndexError, ValueError) as error:
            raise _error("about", f"{error} is no parameter of the grid") from None
        if self.critical is not None:
            self._check_critical(self.critical)
        return self

    def _check_critical(self, critical: str) -> None:
        """Raise ConfigErrors unless collapse can be fitted over the grid's logarithms."""
        if critical not in self.grid:
            raise _error("critical", f"{critical} is no parameter of the grid, which has {', '.join(self.grid)}")
        if len(self.grid) != 2:
            raise _error("critical", f"takes a grid of two parameters, not of {len(self.grid)}")
        for name, values in self.grid.items():
            positive = [value for value in values if value > 0] if isinstance(values, list) else []
            if len(positive) < 2:
                raise _error("critical", f"grid.{name}: has no two positive numbers, so collapse has no slope over it")


class Cell(Strict):
    """One arm of a sweep, and where it is in the grid."""

    arm: Name
    values: Annotated[tuple[Number | str, ...], pydantic.Strict(False)]
    """The number of each parameter, or the name of its choice, in the order of `SweepPlan.parameters`."""


class SweepPlan(Strict):
    """What the analysis reads of a sweep."""

    name: Name
    parameters: Annotated[tuple[Name, ...], pydantic.Strict(False)]
    critical: Name | None
    cells: Annotated[tuple[Cell, ...], pydantic.Strict(False)]


def plan(name: str, sweep: Sweep) -> SweepPlan:
    """Return what the analysis reads of sweep `name`."""
    cells = tuple(Cell(arm=arm, values=tuple(labels.values())) for arm, labels, _ in _arms(name, sweep))
    return SweepPlan(name=name, parameters=tuple(sweep.grid), critical=sweep.critical, cells=cells)


def _arms(name: str, sweep: Sweep) -> Iterator[tuple[str, dict[str, Number | str], dict[str, Any]]]:
    """Yield each arm's name, its labels, and what it changes; the last parameter varies fastest."""
    choices = [
        [(parameter, label, value) for label, value in values.items()]
        if isinstance(values, Mapping)
        else [(parameter, value, value) for value in values]
        for parameter, values in sweep.grid.items()
    ]
    for chosen in itertools.product(*choices):
        labels = {parameter: label for parameter, label, _ in chosen}
        arm = "_".join([name, *(f"{parameter}{_plain(label)}" for parameter, label in labels.items())])
        yield arm, labels, _filled(sweep.change, {parameter: value for parameter, _, value in chosen})


def _error(field: str, why: str) -> ConfigErrors:
    """Return the error of one field of a sweep."""
    return ConfigErrors([(field, why)])


def expand_sweeps(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's plain data with the arms of its sweeps behind those that are written out.

    Raises:
        ConfigErrors: a sweep is wrong, or gives an arm a name that is taken.
    """
    sweeps, ablations = settings.get("sweeps"), settings.get("ablations") or {}
    if not isinstance(sweeps, Mapping) or not isinstance(ablations, Mapping):
        return dict(settings)
    arms: dict[str, Any] = {}
    for name, plain in sweeps.items():
        try:
            sweep = Sweep.model_validate(plain)
        except pydantic.ValidationError as error:
            where = f"sweeps.{name}"
            raise ConfigErrors(
                [(f"{where}.{path}" if path else where, why) for path, why in config_errors(error)]
            ) from None
        for arm, labels, change in _arms(str(name), sweep):
            if arm in arms or arm in ablations:
                raise ConfigErrors([(f"sweeps.{name}", f"its arm {arm} has the name of another")])
            arms[arm] = {"about": sweep.about.format(**labels), "change": change}
    return {**settings, "ablations": {**ablations, **arms}}


def _plain(label: Number | str) -> str:
    """Return a value as a part of an arm's name: 0.001 -> 0_001, -1 -> m1."""
    return str(label).replace(".", "_").replace("-", "m").replace("+", "").lower()


def _filled(change: Any, values: Mapping[str, Any]) -> Any:
    """Return `change` with each text that is nothing but a parameter replaced by the parameter's value."""
    if isinstance(change, Mapping):
        return {key: _filled(value, values) for key, value in change.items()}
    if isinstance(change, list):
        return [_filled(value, values) for value in change]
    match = WHOLE.fullmatch(change) if isinstance(change, str) else None
    return values.get(match[1], change) if match else change


def _parameters_in(change: Any) -> Iterator[str]:
    """Yield every parameter that `change` takes."""
    if isinstance(change, Mapping):
        for value in change.values():
            yield from _parameters_in(value)
    elif isinstance(change, list):
        for value in change:
            yield from _parameters_in(value)
    elif isinstance(change, str) and (match := WHOLE.fullmatch(change)):
        yield match[1]
