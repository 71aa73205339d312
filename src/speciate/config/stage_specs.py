"""What each stage reads of a study: one small spec a stage, holding just the settings that it may depend on.

`plan.py` fills them in and writes each to its own file; a verb reads its own with `read_spec`. Sequences stand where
order counts, since the keys of a spec's JSON are sorted.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import pydantic

from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import (
    FilterOptions,
    MixtureOptions,
    PackingOptions,
    SourceOptions,
    TokenizerOptions,
)
from speciate.config.contracts.figures import FigureOptions
from speciate.config.data import Split
from speciate.config.run import Name, Names
from speciate.config.study import Hypothesis

CARDED = (
    *("data_sources", "data_domains", "data_drops", "data_edits", "data_lengths", "data_duplicates", "data_overlaps"),
    *("data_samples", "data_formatting", "data_warnings"),
)
"""The tables that `card` writes of a study's data."""
MEASURED = (
    *("runs", "selectors", "experts", "types", "losses", "verdicts", "curves", "measurements", "details"),
    *("missing", "draws"),
)
"""The tables that `measure` writes of one run; analysis/tables.py has their columns."""
COMPARED = (*MEASURED[:-1], "comparisons", "collapse", "hypotheses")
"""The tables that `compare` writes of a study."""


class CardDomain(Strict):
    """One domain, as its reader should know it."""

    name: Name
    shards: int
    duplicates: Literal["keep", "exact", "near"]
    language: str | None
    sources: dict[Name, Annotated[SourceOptions, OneOf("data/fetch/sources")]]
    licences: dict[Name, str]
    filters: Annotated[tuple[Annotated[FilterOptions, OneOf("data/clean/filters")], ...], pydantic.Strict(False)]
    max_bytes: int | None
    max_tokens: int | None


class CardSpec(Strict):
    """What `card` reads: all that was decided about the data."""

    study: Name
    domains: Annotated[tuple[CardDomain, ...], pydantic.Strict(False)]
    across_domains: bool
    split: Split
    tokenizer: Annotated[TokenizerOptions, OneOf("data/tokens/tokenizer")]
    packing: Annotated[PackingOptions, OneOf("data/packing")]
    mixture: Annotated[MixtureOptions, OneOf("data/mixture")]
    block_length: int


class MeasureSpec(Strict):
    """What `measure` reads: how one run is measured."""

    ablation: Name
    seed: int
    num_steps: int
    languages: Names
    """The domains with a programming language, whose tokens have lexical types."""
    permutations: int
    resamples: int
    confidence: float
    """Of intervals and null bands; 1 - confidence is the collapse alarm's guaranteed rate of false alarms."""
    armed_after: float
    draw_seed: int
    """Of permutations and resamples; the same for all runs of a study, so that draws are paired across them."""
    min_occurrences: int = 5
    """A token has a part in I(E;D|token) when it occurs so often in every domain."""


class Arm(Strict):
    """One arm of a study, as a reader knows it."""

    name: Name
    about: str
    published: bool = False
    """It does as a system's authors released it."""
    leaks: bool = False
    """A component of it looks at later tokens, so that its loss is no likelihood."""
    bound: bool = False
    """Its loss is an upper bound of the negative log-likelihood."""


def incomparable(arms: Sequence[Arm], reference: str) -> Names:
    """Arms whose loss is another thing than the reference's: a bound beside a likelihood, or one that looks ahead."""
    bound = next((arm.bound for arm in arms if arm.name == reference), False)
    return tuple(arm.name for arm in arms if arm.name != reference and (arm.leaks or arm.bound != bound))


class Prediction(Hypothesis):
    """A hypothesis with its name."""

    name: Name


class CompareSpec(Strict):
    """What `compare` reads: the arms and what is asked of them. Tuples, since the keys of a spec's JSON are sorted."""

    domains: Names
    arms: Annotated[tuple[Arm, ...], pydantic.Strict(False)]
    """In the order of the study file, as the hypotheses are."""
    seeds: Annotated[tuple[int, ...], pydantic.Strict(False)]
    reference: Name
    controls: Names
    confidence: float
    hypotheses: Annotated[tuple[Prediction, ...], pydantic.Strict(False)]


class DrawSpec(Strict):
    """What `draw` reads: one figure, and what it must know of the study that no table says.

    A figure of the data knows nothing of the runs; for it the rest stays as it is here.
    """

    figure: Annotated[FigureOptions, OneOf("figures")]
    arms: Names = ()
    """Every ablation, in the order of the study file."""
    domains: Names = ()
    reference: Name = "none"
    incomparable: Names = ()
    """Arms whose losses are not drawn beside the reference's."""
    controls: Names = ()
    confidence: float = 0.95
    armed_after: float = 0.0


class DataFolders(Strict):
    """Where a study's data stages are, relative to `results`: for a run that is made, or used, by hand."""

    mixture: str
    tokenizer: str
    starts: dict[Name, str]
    """The archives that runs start from, by the source's name."""


class ReportSpec(Strict):
    """What `report` and `manifest` read: the study's words, and which runs and figures there should be."""

    study: str
    question: str
    arms: Annotated[tuple[Arm, ...], pydantic.Strict(False)]
    seeds: Annotated[tuple[int, ...], pydantic.Strict(False)]
    domains: Names
    reference: Name
    controls: Names
    hypotheses: Names
    figures: Names
    confidence: float
    armed_after: float
    permutations: int
    resamples: int
    config_digest: str
    """sha256 of the study file with all it extends and all defaults, as canonical JSON."""
