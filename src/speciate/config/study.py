"""A study: texts, one base run, ablations as differences from it, seeds, analysis and hypotheses.

A study file (`config.yaml`, `studies/*.yaml`) is one, merged over the files that it extends (extends.py).
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Self

import pydantic
from pydantic import Field

from speciate.config.components import ConfigErrors, OneOf, Strict, config_errors, options_within
from speciate.config.contracts.data import MixtureOptions, PackingOptions, TokenizerOptions
from speciate.config.contracts.evaluation import TaskOptions
from speciate.config.data import Domain, Duplicates, HeldOut, Split
from speciate.config.extends import merge, read_yaml
from speciate.config.hypothesis import Hypothesis
from speciate.config.layer_groups import expand_layer_groups
from speciate.config.pretrained.fill import fill_from_checkpoints
from speciate.config.run import Name, Names, RunSpec
from speciate.config.sweeps import Sweep, expand_sweeps

CHECKED = "checked"
"""Context of a validation of settings that an earlier process has validated."""

NOT_OF_TEXTS = {
    "max_tokens": "limits training text, and nothing is trained on this one",
    "probe_share": "no selector is observed on a text outside training",
    "shards": "a text outside training is made by one job",
    "language": "no token of a text outside training gets a lexical type",
}
"""Key of a domain that a text of `evaluation.texts` cannot have -> why."""


class Ablation(Strict):
    """One arm of a study, as a difference from the base run."""

    about: str = Field(min_length=1)
    """One line about the arm, for readers of figures and tables."""
    published: bool = False
    """Whether the arm does what a system's authors released. Its failure is predicted: at least one hypothesis must be
    about it, and the report says whether each came true."""
    change: dict[str, Any] = {}
    """What differs from `base`, merged into it key by key. A mapping with another `kind` replaces the base's whole."""


class Interventions(Strict):
    """How much of a finished model is overridden to see what each selector's choice is worth."""

    blocks: int = Field(8, ge=0)
    """Probe blocks of each domain on which selectors are overridden; all of them where the probe set has fewer. With 0
    there are no interventions, and no run counts as specialised. The interventions then take at most a third of the
    time that training takes, in the studies of this repository."""
    max_slots: int = Field(16, ge=1)
    """Largest number of slots of a selector that are masked one by one, spread evenly over their order by load."""
    swaps: bool = False
    """Whether selectors of other runs stand in for a run's own on these blocks: those of another seed, of the
    reference, and its own of earlier steps. Each takes a pass over the blocks for each selector and one for all."""
    margin: float = Field(0.05, ge=0)
    """Cost of load-matched random choice, in nats per token, above which a selector's choice matters, and below which
    the selector is idle."""

    @pydantic.model_validator(mode="after")
    def _check_blocks(self) -> Self:
        if self.swaps and not self.blocks:
            raise ValueError("swaps: needs text to compare losses on; set blocks to at least 1, or swaps: false")
        return self


class Analysis(Strict):
    """How the runs are compared."""

    reference: Name
    """The ablation that the others are compared with, paired by seed."""
    controls: Names = ()
    """Ablations whose selectors do not learn. Specialisation counts only in excess of theirs."""
    permutations: int = Field(999, ge=19)
    """Number of permutations of the documents' domains, and of patterns of signs, in the tests of I(E;D)."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of intervals. A run that is healthy in the texts of the probe raises the collapse alarm with a
    probability of at most 1 - confidence."""
    resamples: int = Field(999, ge=19)
    """Number of bootstrap draws over documents."""
    interventions: Interventions = Interventions()
    """Interventions on the selectors of every finished run."""
    armed_after: float = Field(0.1, ge=0, lt=1)
    """Share of the training after which the collapse rules may fire. A random initialisation already exceeds their
    limits."""
    seed: int = Field(0, ge=0)
    """Seed of the permutations and bootstrap draws."""


class Cost(Strict):
    """Which mixers are timed at which block lengths. Only the table `cost` has such times; they belong to the machine
    that measured them.
    """

    ablations: Names = Field(min_length=1)
    """The ablations whose mixer in the first layer is measured."""
    lengths: Annotated[tuple[Annotated[int, Field(ge=2)], ...], pydantic.Strict(False)] = (512, 1024, 2048, 4096)
    """Block lengths, in tokens."""
    rounds: int = Field(3, ge=1)
    """Number of rounds; the median is reported."""


class Evaluation(Strict):
    """What finished runs are asked, besides the loss on the study's own test set."""

    texts: dict[Name, Domain] = {}
    """Text outside training: name of a text -> its sources and filters, as for a domain. Nothing of it is trained on,
    and documents that are in the training text too are left out of it."""
    max_overlap: float = Field(0, ge=0, le=1)
    """Greatest share of a text's runs of 13 words that may occur in the training text. A document above it is left out;
    with 0 a single shared run does that."""
    tasks: dict[Name, Annotated[TaskOptions, OneOf("evaluation/task")]] = {}
    """Name of a task -> what kind it is and what it asks. Each run has a job for each task."""
    ablations: Names = ()
    """The ablations whose runs are evaluated on the tasks; without any, all of them."""

    @pydantic.model_validator(mode="after")
    def _check_texts(self) -> Self:
        for name, text in self.texts.items():
            for key, why in NOT_OF_TEXTS.items():
                if getattr(text, key) != Domain.model_fields[key].default:
                    raise ValueError(f"texts.{name}.{key}: {why}; leave it out")
            if text.duplicates == "near":
                raise ValueError(f"texts.{name}.duplicates: only equal texts are looked for; write exact or keep")
        for name, task in self.tasks.items():
            missing = [text for text in task.texts() if text not in self.texts]
            if missing:
                raise ValueError(f"tasks.{name}: no text of evaluation.texts is called {', '.join(missing)}")
        return self


class Study(Strict):
    """A whole study, as a study file describes it."""

    study: Name
    """Name of the study. Its results go to results/<study>."""
    question: str = ""
    """What the study asks: the title of its report."""
    domains: dict[Name, Domain] = Field(min_length=1)
    """Name of a domain -> its sources and filters."""
    duplicates: Duplicates = Duplicates()
    """How duplicate documents are found."""
    split: Split = Split()
    """Shares of held-out documents."""
    tokenizer: Annotated[TokenizerOptions, OneOf("data/tokens/tokenizer")]
    """How text becomes token ids."""
    packing: Annotated[PackingOptions, OneOf("data/packing")]
    """How documents fill blocks."""
    block_length: int = Field(128, ge=2)
    """Number of tokens in a block."""
    mixture: Annotated[MixtureOptions, OneOf("data/mixture")]
    """How the domains' blocks are mixed."""
    held_out: HeldOut = HeldOut()
    """Sizes of the validation, test and probe sets."""
    base: dict[str, Any]
    """The run that ablations differ from: a RunSpec without ablation and seed."""
    ablations: dict[Name, Ablation] = Field(min_length=1)
    """The arms by name, in the order of every figure and table."""
    sweeps: dict[Name, Sweep] = {}
    """Grids of further arms, behind those that are written out."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], pydantic.Strict(False)] = Field(min_length=1)
    """Seeds. Every arm is run with each of them; a seed decides initial weights and data order."""
    analysis: Analysis
    """Reference, controls, draws and intervals."""
    hypotheses: dict[Name, Hypothesis] = {}
    """Predictions, written down before the runs."""
    cost: Cost | None = None
    """What mixers cost at different block lengths. With null it is not measured."""
    evaluation: Evaluation = Evaluation()
    """Texts and tasks on which finished runs are evaluated."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _expand(cls, settings: Any) -> Any:
        return expand_layer_groups(expand_sweeps(settings)) if isinstance(settings, Mapping) else settings

    @pydantic.model_validator(mode="after")
    def _check_names(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} names a seed twice")
        used = {"analysis.reference": [self.analysis.reference], "analysis.controls": list(self.analysis.controls)}
        used["cost.ablations"] = [] if self.cost is None else list(self.cost.ablations)
        used["evaluation.ablations"] = list(self.evaluation.ablations)
        for name, hypothesis in self.hypotheses.items():
            used[f"hypotheses.{name}"] = hypothesis.arms
        for where, names in used.items():
            missing = [name for name in names if name not in self.ablations]
            if missing:
                raise ValueError(f"{where}: no ablation is called {', '.join(missing)}")
        predicted = {arm for hypothesis in self.hypotheses.values() for arm in (hypothesis.arm, *hypothesis.over)}
        for arm, difference in self.ablations.items():
            if difference.published and arm not in predicted:
                raise ValueError(f"ablations.{arm}: is marked published, and no hypothesis predicts how it fails")
        return self

    @pydantic.model_validator(mode="after")
    def _check_runs(self, info: pydantic.ValidationInfo) -> Self:
        if info.context == CHECKED:
            return self
        self.mixture.check_domains(tuple(self.domains))
        for ablation in self.ablations:
            run = self.run(ablation, self.seeds[0])
            if run.model.context < self.block_length:
                problem = f"model.context {run.model.context} is shorter than block_length {self.block_length}"
                raise ValueError(f"ablations.{ablation}: {problem}")
            for options in options_within(run):
                try:
                    options.check_domains(tuple(self.domains))
                except ValueError as error:
                    raise ValueError(f"ablations.{ablation}: {error}") from None
            try:
                run.objective.check_length(self.block_length)
            except ValueError as error:
                raise ValueError(f"ablations.{ablation}.objective: {error}") from None
            self._check_start(run)
        for name, hypothesis in self.hypotheses.items():
            try:
                self._check_part(hypothesis)
            except ValueError as error:
                raise ValueError(f"hypotheses.{name}.statistic: {hypothesis.statistic}: {error}") from None
        return self

    def _check_part(self, hypothesis: Hypothesis) -> None:
        """Raise ValueError where a hypothesis is about a domain, a layer or lexical types that the study lacks."""
        if hypothesis.domain is not None and hypothesis.domain not in self.domains:
            raise ValueError(f"no domain is called {hypothesis.domain}")
        if hypothesis.is_about_types and not any(domain.language for domain in self.domains.values()):
            raise ValueError("lexical types need a domain with language: python")
        layers = min(self.run(arm, self.seeds[0]).model.num_layers for arm in hypothesis.arms)
        if hypothesis.layer is not None and hypothesis.layer >= layers:
            raise ValueError(f"there is no layer {hypothesis.layer} in a model of {layers}")

    def _check_start(self, run: RunSpec) -> None:
        """Raise ValueError where a run starts from a missing run, from itself, or from one whose weights do not fit."""
        where, chain = f"ablations.{run.ablation}.start.origin.ablation", [run.ablation]
        while run.parent is not None:
            if run.parent not in self.ablations:
                raise ValueError(f"{where}: no ablation is called {run.parent}")
            chain.append(run.parent)
            if run.parent in chain[:-1]:
                raise ValueError(f"{where}: leads back to itself: {' from '.join(chain)}")
            parent = self.run(run.parent, self.seeds[0])
            difference = run.start.difference(run.model, parent.model)
            if difference:
                raise ValueError(f"{where}: {chain[-2]} cannot start from {chain[-1]}: {difference}")
            run = parent

    def run(self, ablation: str, seed: int) -> RunSpec:
        """Return the run of one ablation and one seed. An ablation is parsed once, whatever the number of its seeds.

        Raises:
            ValueError: naming the ablation and the field that is wrong.
        """
        first = self._first_runs.get(ablation)
        if first is None:
            first = self._first_runs[ablation] = self._parse_run(ablation)
        return first if seed == first.seed else first.model_copy(update={"seed": seed})

    @functools.cached_property
    def _first_runs(self) -> dict[str, RunSpec]:
        """The runs of the first seed that were parsed so far, by ablation."""
        return {}

    def _parse_run(self, ablation: str) -> RunSpec:
        settings = merge(self.base, self.ablations[ablation].change)
        try:
            return RunSpec.model_validate({**settings, "ablation": ablation, "seed": self.seeds[0]})
        except pydantic.ValidationError as error:
            where = f"ablations.{ablation}"
            raise ConfigErrors(
                [(f"{where}.{path}" if path else where, why) for path, why in config_errors(error)]
            ) from None

    def runs(self) -> list[RunSpec]:
        """Return every run of the study: ablations x seeds, in the order of the study file."""
        return [self.run(ablation, seed) for ablation in self.ablations for seed in self.seeds]


def parse_study(settings: Mapping[str, Any], origin: str, *, checked: bool = False) -> Study:
    """Return the study that `settings` describe, with every ablation's run checked.

    Args:
        settings: plain data, `extends` already resolved.
        origin: the file's name, for messages.
        checked: these settings have been parsed before, so runs are parsed only when they are asked for.

    Raises:
        ValueError: one line a problem, each naming the field.
    """
    try:
        return Study.model_validate(dict(settings), context=CHECKED if checked else None)
    except pydantic.ValidationError as error:
        lines = [f"{origin}: {path}: {why}" if path else f"{origin}: {why}" for path, why in config_errors(error)]
        raise ValueError("\n".join(dict.fromkeys(lines))) from None


def read_study(file: pathlib.Path) -> Study:
    """Read the study in `file`, with models filled from the checkpoints that they start from.

    Raises:
        ValueError: as `read_yaml`, `fill_from_checkpoints` and `parse_study` do.
    """
    return parse_study(fill_from_checkpoints(read_yaml(file), str(file)).settings, str(file))
