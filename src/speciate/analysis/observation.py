"""Observations of one run: its selectors' choices on fixed texts, by group of documents.

Shape suffixes: P positions of the probe set, R its documents, G groups of documents, K checks, S slots.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.analysis import alarm, load
from speciate.analysis.draws import Integers, sum_into
from speciate.selection.module_path import layer_of as layer_of
from speciate.selection.tally import Array, Tally


@dataclass(frozen=True)
class Settings:
    """Settings by which one run is measured."""

    num_steps: int
    """Length of the training run, in optimizer steps."""
    seed: int
    """Seed of permutations and resamples; the same for every run of a study, so that draws are paired."""
    permutations: int
    resamples: int
    confidence: float
    armed_after: float
    """Share of the training before which no rule fires and no death of a slot counts."""
    min_occurrences: int
    """How often a token must occur in every domain to count in I(E;D|V)."""

    @property
    def armed_step(self) -> float:
        """Return the first step at which rules may fire."""
        return self.armed_after * self.num_steps


@dataclass(frozen=True, eq=False)
class Groups:
    """Documents gathered into exchangeable groups."""

    domains: tuple[str, ...]
    group_R: Integers
    """The group of each document."""
    domain_G: Integers
    """The domain of each group, as an index into `domains`."""

    def sum(self, value_R: Array, axis: int = 0) -> Array:
        """Sum over the documents of each group, along `axis`."""
        return sum_into(self.group_R, len(self.domain_G), value_R, axis)


def group_documents(documents: pd.DataFrame, domains: tuple[str, ...]) -> Groups:
    """Gather documents by (domain, group), in order of first appearance.

    Args:
        documents: a row for each document, with columns domain and group.
        domains: the domains, in the study's order.

    Raises:
        ValueError: a document has a domain that the study does not have.
    """
    unknown = sorted(set(documents["domain"]) - set(domains))
    if unknown:
        raise ValueError(f"documents of unknown domains: {', '.join(unknown)}")
    keys = list(zip(documents["domain"], documents["group"], strict=True))
    number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return Groups(
        domains=domains,
        group_R=np.array([number[key] for key in keys], dtype=np.int64),
        domain_G=np.array([domains.index(domain) for domain, _ in number], dtype=np.int64),
    )


@dataclass(frozen=True, eq=False)
class Texts:
    """The probe set: the texts on which every selector of every run is observed."""

    groups: Groups
    token_P: Integers
    group_P: Integers
    """The group of each position, -1 where it belongs to no document (padding)."""
    document_P: Integers
    """The document of each position, -1 for padding."""
    block_length: int
    type_P: Integers
    """Lexical type of each token, an index into TYPES."""
    languages: tuple[str, ...]
    """The domains whose tokens have a lexical type."""


TYPES = ("other", "keyword", "name", "number", "string", "operator", "comment")


@dataclass(frozen=True, eq=False)
class ObservedSelector:
    """Observations of one selector of one run."""

    path: str
    """The selector's module path: its name."""
    steps_K: Integers
    early: tuple[Tally, ...]
    """For each check, the Tally over groups on the small prefix of the probe set."""
    final: Tally
    """The finished model on the whole probe set."""
    choice_PS: npt.NDArray[np.uint8]
    """1 on each chosen slot of each position; all 0 where the selector made no decision."""
    early_bits_KPB: npt.NDArray[np.uint8]
    """The same for each check and each position of the prefix, in bytes of eight slots."""

    @property
    def layer(self) -> int:
        """Return the selector's layer; -1 where it has none."""
        return layer_of(self.path)

    @property
    def num_slots(self) -> int:
        return int(self.final.chosen_GS.shape[1])

    @property
    def num_chosen(self) -> float:
        """Return k, the mean number of slots chosen in a decision."""
        count_P = self.choice_PS.sum(axis=1, dtype=np.int64)
        return float(count_P[count_P > 0].mean())

    @property
    def early_KGS(self) -> Array:
        """Return the choices by check, group and slot."""
        return np.stack([tally.chosen_GS for tally in self.early])

    def early_choice_PS(self, check: int) -> npt.NDArray[np.uint8]:
        """Return the choices of a check, as `choice_PS` has those of the finished model."""
        return np.unpackbits(self.early_bits_KPB[check], axis=1, count=self.num_slots)

    @property
    def share_KS(self) -> Array:
        """Return f on hard choices at each check, relative to the null."""
        null_KS = np.stack([tally.null_GS.sum(axis=0) for tally in self.early])
        return shares_against_null(self.early_KGS.sum(axis=1), null_KS)

    @property
    def null_S(self) -> Array:
        """Return the shares of an unlearned selector on the texts of the checks."""
        null_S = np.sum([tally.null_GS.sum(axis=0) for tally in self.early], axis=0)
        result: Array = null_S / null_S.sum()
        return result

    @property
    def limit_chosen(self) -> float:
        """Return the k of the limits of collapse: 1 where the null is uneven, so that a share has no bound but 1."""
        return self.num_chosen if load.is_even(self.null_S) else 1.0

    def for_alarm(self, groups: Groups) -> alarm.Observations:
        """Return what the alarm needs of the checks."""
        return alarm.Observations(self.early_KGS, groups.domain_G, self.null_S, self.limit_chosen)


def shares_against_null(chosen: Array, null: Array) -> Array:
    """Return shares of the choices relative to an unlearned selector: f_s / q_s, renormalised over the slots.

    Where the null is even, that is f itself. Where it is not (a Mixture-of-Depths that runs one token in eight, an
    indexer's buckets of distance), even shares mean as even as the null, and a slot that takes everything takes more
    than its due. One set of load measures thus serves every kind of selector.

    Args:
        chosen: sums of choices, (..., S).
        null: sums of null probabilities, (..., S).

    Returns:
        (..., S), rows sum to one; NaN where nothing was chosen.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = chosen / chosen.sum(axis=-1, keepdims=True)
        even = null / null.sum(axis=-1, keepdims=True)
        if load.is_even(even):
            return share  # type: ignore[no-any-return]
        relative = np.where(even >= load.NULL_FLOOR, share / even, 0.0)
        result: Array = relative / relative.sum(axis=-1, keepdims=True)
    return result


def group_tally_fields(path: str, arrays: dict[str, npt.NDArray[np.generic]], groups: Groups, axis: int) -> list[Array]:
    """Sum the fields of a stored Tally of documents over their groups, in the Tally's order.

    Args:
        path: module path of the selector.
        arrays: stored arrays, named `path/field`.
        groups: groups of the documents.
        axis: the documents' axis: 0 in a final tally, 1 where the first axis is that of the checks.

    Raises:
        ValueError: a field is missing, or has another number of documents.
    """
    fields: list[Array] = []
    for name in Tally.__dataclass_fields__:
        value = arrays.get(f"{path}/{name}")
        if value is None or value.shape[axis] != len(groups.group_R):
            problem = "is missing" if value is None else f"has {value.shape[axis]} documents, not {len(groups.group_R)}"
            raise ValueError(f"selector {path}: {name} {problem}")
        fields.append(groups.sum(value.astype(np.float64), axis))
    return fields
