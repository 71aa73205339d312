"""Specs of the stages that read a whole study: card, measure, compare, draw, explore, report.

A spec holds only the settings that its stage may depend on. graph/study_graph.py fills it in and writes it to a file of
its own, which the stage reads with `read_spec`. Data stages declare their specs in their own files (`stages/`).
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
from speciate.config.contracts.evaluation import TaskOptions
from speciate.config.contracts.figures import FigureOptions
from speciate.config.data import Split
from speciate.config.hypothesis import Hypothesis
from speciate.config.run import Name, Names, RunSpec
from speciate.config.sweeps import SweepPlan

CARDED = (
    *("data_sources", "data_domains", "data_drops", "data_edits", "data_lengths", "data_duplicates", "data_overlaps"),
    *("data_samples", "data_formatting", "data_warnings"),
)
"""The tables that `card` writes of a study's data."""
MEASURED = (
    *(
        "runs",
        "selectors",
        "experts",
        "types",
        "losses",
        "verdicts",
        "stability",
        "telling",
        "predictors",
        "curves",
        "measurements",
        "details",
    ),
    *("missing", "draws"),
)
"""The tables that `measure` writes of one run; analysis/tables.py has their columns."""
INTERVENED = "interventions"
"""The table that `intervene` writes of one run."""
SCORED_TASKS = ("tasks", "task_differences")
"""The tables that `compare_tasks` writes of a study that evaluates its runs on tasks."""
AGREED = "agreement"
"""The table that `agree` writes of a study."""
SWAPPED = "swaps"
"""The table that `swap` writes of a study whose analysis asks for it."""
COMPARED = (
    *(*MEASURED[:-1], INTERVENED, "effects", "comparisons", "collapse", "hypotheses"),
    *("cells", "sweeps", "critical"),
)
"""The tables that `compare` writes of a study."""


class CardDomain(Strict):
    """What a reader of the data card should know of one domain."""

    name: Name
    shards: int
    duplicates: Literal["keep", "exact", "near"]
    language: str | None
    sources: dict[Name, Annotated[SourceOptions, OneOf("data/fetch/sources")]]
    licences: dict[Name, str]
    filters: Annotated[tuple[Annotated[FilterOptions, OneOf("data/clean/filters")], ...], pydantic.Strict(False)]
    max_bytes: int | None
    max_tokens: int | None
    probe_share: float | None


class CardSpec(Strict):
    """What `card` reads: every decision about the data."""

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
    """Domains with a programming language; their tokens have lexical types."""
    permutations: int
    resamples: int
    confidence: float
    """Confidence level of intervals and null bands. The collapse alarm guarantees a false-alarm rate of at most 1 -
    confidence."""
    armed_after: float
    draw_seed: int
    """Seed of permutations and bootstrap draws. All runs of a study share it, so that draws are paired across runs."""
    min_occurrences: int = 5
    """A token counts in I(E;D|token) if it occurs at least this often in every domain."""


class InterveneSpec(Strict):
    """What `intervene` reads: on how much of one run's model, and how its intervals are made."""

    run: RunSpec
    blocks: int
    max_slots: int
    resamples: int
    confidence: float
    draw_seed: int
    """Seed of random choices and bootstrap draws, shared by all runs of a study."""


class EvaluateTaskSpec(Strict):
    """What `evaluate_tasks` reads: a run, and the task that it is put to."""

    run: RunSpec
    task: Name
    options: Annotated[TaskOptions, OneOf("evaluation/task")]


class CompareTasksSpec(Strict):
    """What `compare_tasks` reads: the runs that were evaluated, and how intervals are made."""

    tasks: Names
    arms: Names
    """The ablations whose runs were evaluated."""
    seeds: Annotated[tuple[int, ...], pydantic.Strict(False)]
    reference: Name
    resamples: int
    confidence: float
    draw_seed: int


class AgreeSpec(Strict):
    """What `agree` reads: which runs it compares."""

    arms: Names
    seeds: Annotated[tuple[int, ...], pydantic.Strict(False)]
    reference: Name


class SwapSpec(Strict):
    """What `swap` reads: which runs exchange their selectors, on how much text, and how intervals are made."""

    arms: Names
    seeds: Annotated[tuple[int, ...], pydantic.Strict(False)]
    reference: Name
    blocks: int
    resamples: int
    confidence: float
    draw_seed: int


class Arm(Strict):
    """What a reader should know of one arm."""

    name: Name
    about: str
    published: bool = False
    """Whether it does what a system's authors released."""
    leaks: bool = False
    """Whether one of its components looks at later tokens, so that its loss is not a likelihood."""
    bound: bool = False
    """Whether its loss is an upper bound of the negative log-likelihood."""
    fixed: bool = False
    """Whether it has routers, and none of them can learn: frozen, hash, oracle."""


def incomparable(arms: Sequence[Arm], reference: str) -> Names:
    """Return the arms whose loss cannot be compared with the reference's: a bound, or a loss that sees later tokens."""
    bound = next((arm.bound for arm in arms if arm.name == reference), False)
    return tuple(arm.name for arm in arms if arm.name != reference and (arm.leaks or arm.bound != bound))


class Prediction(Hypothesis):
    """A hypothesis with its name."""

    name: Name


class CompareSpec(Strict):
    """What `compare` reads: the arms, and what is asked of them. Tuples keep an order that JSON with sorted keys would
    lose.
    """

    domains: Names
    arms: Annotated[tuple[Arm, ...], pydantic.Strict(False)]
    """Arms, in the order of the study file; so are the hypotheses."""
    seeds: Annotated[tuple[int, ...], pydantic.Strict(False)]
    reference: Name
    controls: Names
    confidence: float
    margin: float = 0.0
    """Cost of load-matched random choice above which a selector's choice matters, in nats per token."""
    hypotheses: Annotated[tuple[Prediction, ...], pydantic.Strict(False)]
    sweeps: Annotated[tuple[SweepPlan, ...], pydantic.Strict(False)] = ()


class DrawSpec(Strict):
    """What `draw` reads: one figure, and what it must know of the study that no table says.

    A figure of the data knows nothing of the runs; for it the other fields keep their defaults.
    """

    figure: Annotated[FigureOptions, OneOf("figures")]
    arms: Names = ()
    """All ablations, in the order of the study file."""
    domains: Names = ()
    reference: Name = "none"
    incomparable: Names = ()
    """Arms whose losses are not drawn next to the reference's."""
    controls: Names = ()
    fixed: Names = ()
    """Arms whose routers cannot learn, controls or not."""
    confidence: float = 0.95
    armed_after: float = 0.0
    margin: float = 0.0
    """Cost above which a selector's choice matters, in nats per token."""


class ExploreSpec(Strict):
    """What `explore` reads: which runs its page shows, and how much of them."""

    study: str
    arms: Annotated[tuple[Arm, ...], pydantic.Strict(False)]
    seeds: Annotated[tuple[int, ...], pydantic.Strict(False)]
    num_steps: dict[Name, int]
    """Arm -> length of its training, in optimizer steps."""
    most_choices: int = 8_000_000
    """Choices in the page, a byte each before they are compressed, and a quarter more for single keys of sparse
    attention. If they could not be compressed at all, the page would have 14 MB; the choices among eight experts take
    about half of that."""


class DataFolders(Strict):
    """Where a study's data stages are, relative to `results`, for a run that a person makes or uses by hand."""

    mixture: str
    tokenizer: str
    starts: dict[Name, str]
    """Name of a source -> the archive that runs start from."""


class ReportSpec(Strict):
    """What `report` and `manifest` read: the study's texts, and which runs and figures there should be."""

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
    margin: float
    """Cost above which a selector's choice matters, in nats per token; 0 in a study without interventions."""
    permutations: int
    resamples: int
    swaps: bool = False
    """Whether the study has a table `swaps`."""
    tasks: Names = ()
    """The tasks on which its runs are evaluated."""
    config_digest: str
    """sha256 of the study, with all that it extends and all defaults, as canonical JSON."""
