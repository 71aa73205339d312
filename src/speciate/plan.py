"""Which spec each stage reads and where it writes: the study as a graph of paths, without Snakemake.

Data stages live in `results/data/<stage>/<name>-<key>/`, where the key stands for everything that made them (their own
settings and all upstream of them), so that studies share them and a changed pin can never meet an old file. Runs live
under the study's name, `results/<study>/runs/<ablation>/seed<k>/`. Each stage gets its own small spec file, holding
just the settings it may depend on, so that editing one ablation cannot make another stale.
"""

import functools
import hashlib
import pathlib
from typing import Annotated

import pydantic

from speciate.kinds import Choice, Kind, Strict, kinds_in, options_of
from speciate.provenance import short_digest
from speciate.spec import HeldOut, Hypothesis, Name, Names, RunSpec, Split, Study, dump
from speciate.verb import writing

SPLITS = ("train", "validation", "test", "probe")
MEASURED = ("runs", "selectors", "experts", "types", "losses", "verdicts", "curves", "draws")
"""The tables that `measure` writes of one run; analysis/tables.py has their columns."""
COMPARED = (*MEASURED[:-1], "comparisons", "collapse", "hypotheses", "missing")
"""The tables that `compare` writes of a study."""


class FetchSpec(Strict):
    """What `fetch` reads: one source."""

    name: Name
    source: Annotated[Kind, Choice("data/sources")]


class CleanSpec(Strict):
    """What `clean` reads: one domain."""

    domain: Name
    sources: dict[Name, Annotated[Kind, Choice("data/sources")]]
    filters: Annotated[tuple[Annotated[Kind, Choice("data/filters")], ...], pydantic.Strict(False)]


class SplitSpec(Strict):
    """What `split` reads."""

    domain: Name
    split: Split


class FitSpec(Strict):
    """What `fit` reads: the tokenizer."""

    tokenizer: Annotated[Kind, Choice("data/tokenizer")]


class EncodeSpec(Strict):
    """What `encode` reads."""

    domain: Name
    language: str | None


class PackSpec(Strict):
    """What `pack` reads."""

    domain: Name
    packing: Annotated[Kind, Choice("data/packing")]
    block_length: int


class BalanceSpec(Strict):
    """What `balance` reads."""

    domains: Names
    mixture: Annotated[Kind, Choice("data/mixture")]
    held_out: HeldOut


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


class Plan:
    """The paths and specs of one study under one results folder."""

    MIXTURE_FILES = (
        "mixture.json",
        "train.npy",
        *(f"{held_out}.{part}.npy" for held_out in SPLITS[1:] for part in ("tokens", "document", "domain")),
        *(f"{held_out}.documents.parquet" for held_out in SPLITS[1:]),
        "probe.types.npy",
    )
    """What the balance stage writes."""

    def __init__(self, study: Study, results: pathlib.Path) -> None:
        self.study = study
        self.data = results / "data"
        self.home = results / study.study

    @functools.cached_property
    def sources(self) -> dict[str, Kind]:
        """Every source that the study fetches, by name: its domains', and a published tokenizer's.

        Raises:
            ValueError: one name means two different sources.
        """
        found: dict[str, Kind] = {}
        given = [(name, options) for domain in self.study.domains.values() for name, options in domain.sources.items()]
        published = getattr(self.study.tokenizer, "archive", None)
        if published is not None:
            given.append(("tokenizer", published))
        for name, options in given:
            if found.setdefault(name, options) != options:
                raise ValueError(f"domains: two different sources are called {name}")
        return found

    @property
    def figures(self) -> list[str]:
        """Every figure: the files of `figures/`."""
        return kinds_in("figures")

    def draw_spec(self, figure: str) -> "DrawSpec":
        """What `draw` reads for one figure."""
        return draw_spec(self.study, figure)

    @property
    def tokenizer_archive(self) -> list[pathlib.Path]:
        """The archive of a published tokenizer; none for one that is fitted here."""
        published = getattr(self.study.tokenizer, "archive", None)
        return [] if published is None else [self.folder("fetch", "tokenizer") / "archive"]

    @functools.cache  # noqa: B019 (one Plan lives as long as its process)
    def folder(self, stage: str, name: str) -> pathlib.Path:
        """The folder of a data stage.

        Args:
            stage: fetch, clean, split, fit, encode, pack or balance.
            name: a source for fetch, 'tokenizer' for fit, 'mixture' for balance, else a domain.
        """
        upstream: list[pathlib.Path] = []
        if stage == "clean":
            upstream = [self.folder("fetch", source) for source in self.study.domains[name].sources]
        elif stage == "split":
            upstream = [self.folder("clean", name)]
        elif stage == "fit":
            upstream = [self.folder("split", domain) for domain in self.study.domains]
            upstream += [archive.parent for archive in self.tokenizer_archive]
        elif stage == "encode":
            upstream = [self.folder("split", name), self.folder("fit", "tokenizer")]
        elif stage == "pack":
            upstream = [self.folder("encode", name)]
        elif stage == "balance":
            upstream = [self.folder("pack", domain) for domain in self.study.domains]
        key = short_digest(dump(self.spec(stage, name)), *(folder.name for folder in upstream))
        return self.data / stage / f"{name}-{key}"

    def spec(self, stage: str, name: str) -> Strict:
        """The spec that a data stage reads."""
        study = self.study
        if stage == "fetch":
            return FetchSpec(name=name, source=self.sources[name])
        if stage == "clean":
            return CleanSpec(domain=name, sources=study.domains[name].sources, filters=study.domains[name].filters)
        if stage == "split":
            return SplitSpec(domain=name, split=study.split)
        if stage == "fit":
            return FitSpec(tokenizer=study.tokenizer)
        if stage == "encode":
            return EncodeSpec(domain=name, language=study.domains[name].language)
        if stage == "pack":
            return PackSpec(domain=name, packing=study.packing, block_length=study.block_length)
        if stage == "balance":
            return BalanceSpec(domains=tuple(study.domains), mixture=study.mixture, held_out=study.held_out)
        raise ValueError(f"no data stage is called {stage}")

    @functools.cache  # noqa: B019
    def run(self, ablation: str, seed: int) -> RunSpec:
        """One run. Raises ValueError where the study has no such ablation or seed."""
        if ablation not in self.study.ablations or seed not in self.study.seeds:
            raise ValueError(f"study {self.study.study} has no run {ablation}, seed {seed}")
        return self.study.run(ablation, seed)

    def run_folder(self, ablation: str, seed: int) -> pathlib.Path:
        """Where one run's outputs are."""
        return self.home / "runs" / ablation / f"seed{seed}"

    def measure_folder(self, ablation: str, seed: int) -> pathlib.Path:
        """Where the tables of one run are."""
        return self.home / "measures" / ablation / f"seed{seed}"

    def measure_spec(self, ablation: str, seed: int) -> MeasureSpec:
        """What `measure` reads of the study for one run."""
        analysis = self.study.analysis
        return MeasureSpec(
            ablation=ablation,
            seed=seed,
            num_steps=self.run(ablation, seed).training.num_steps,
            languages=tuple(name for name, domain in self.study.domains.items() if domain.language),
            permutations=analysis.permutations,
            resamples=analysis.resamples,
            confidence=analysis.confidence,
            armed_after=analysis.armed_after,
            draw_seed=analysis.seed,
        )

    def compare_spec(self) -> CompareSpec:
        """What `compare` reads of the study."""
        study, analysis = self.study, self.study.analysis
        return CompareSpec(
            domains=tuple(study.domains),
            arms=tuple(Arm(name=name, about=ablation.about) for name, ablation in study.ablations.items()),
            seeds=study.seeds,
            reference=analysis.reference,
            controls=analysis.controls,
            confidence=analysis.confidence,
            hypotheses=tuple(
                Prediction(name=name, **hypothesis.model_dump()) for name, hypothesis in study.hypotheses.items()
            ),
        )

    def specs(self) -> dict[pathlib.Path, Strict]:
        """Every spec file of the study, by its path."""
        found = {self.folder("fetch", source) / "spec.json": self.spec("fetch", source) for source in self.sources}
        for stage in ("clean", "split", "encode", "pack"):
            for domain in self.study.domains:
                found[self.folder(stage, domain) / "spec.json"] = self.spec(stage, domain)
        found[self.folder("fit", "tokenizer") / "spec.json"] = self.spec("fit", "tokenizer")
        found[self.folder("balance", "mixture") / "spec.json"] = self.spec("balance", "mixture")
        for ablation in self.study.ablations:
            for seed in self.study.seeds:
                found[self.run_folder(ablation, seed) / "spec.json"] = self.run(ablation, seed)
                found[self.measure_folder(ablation, seed) / "spec.json"] = self.measure_spec(ablation, seed)
        found[self.home / "specs" / "compare.json"] = self.compare_spec()
        for figure in self.figures:
            found[self.home / "specs" / "draw" / f"{figure}.json"] = draw_spec(self.study, figure)
        found[self.home / "specs" / "report.json"] = report_spec(self.study)
        return found

    def write_specs(self) -> None:
        """Writes each spec file whose content differs; an unchanged one keeps its time stamp, so nothing goes stale."""
        for file, spec in self.specs().items():
            text = dump(spec)
            if not file.is_file() or file.read_text(encoding="utf-8") != text:
                with writing(file) as aside:
                    aside.write_text(text, encoding="utf-8")


class DrawSpec(Strict):
    """What `draw` reads: one figure, and what it must know of the study that no table says."""

    figure: Annotated[Kind, Choice("figures")]
    arms: Names
    """Every ablation, in the order of the study file."""
    domains: Names
    reference: Name
    controls: Names
    confidence: float
    armed_after: float


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


def draw_spec(study: Study, figure: str) -> DrawSpec:
    """The spec of one figure, named by its file in `figures/`. Raises ValueError where there is none of that name."""
    return DrawSpec(
        figure=options_of("figures", figure)(kind=figure),
        arms=tuple(study.ablations),
        domains=tuple(study.domains),
        reference=study.analysis.reference,
        controls=study.analysis.controls,
        confidence=study.analysis.confidence,
        armed_after=study.analysis.armed_after,
    )


def report_spec(study: Study) -> ReportSpec:
    """The spec of the study's report and manifest."""
    return ReportSpec(
        study=study.study,
        question=study.question,
        arms=tuple(Arm(name=name, about=ablation.about) for name, ablation in study.ablations.items()),
        seeds=study.seeds,
        domains=tuple(study.domains),
        reference=study.analysis.reference,
        controls=study.analysis.controls,
        hypotheses=tuple(study.hypotheses),
        figures=tuple(kinds_in("figures")),
        confidence=study.analysis.confidence,
        armed_after=study.analysis.armed_after,
        permutations=study.analysis.permutations,
        resamples=study.analysis.resamples,
        config_digest=hashlib.sha256(dump(study).encode()).hexdigest(),
    )
