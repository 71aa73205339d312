"""The study as a graph of paths: its runs, tables, figures and report, on top of the data stages.

Runs live under the study's name, `results/<study>/runs/<ablation>/seed<k>/`. Each job gets its own small spec file,
named by its content, so that editing one ablation cannot make another stale, and no later plan can change the spec of
a job that waits or runs. A rule has the file's path as a parameter; Snakemake compares it, and no file is its input.
Hence planning writes nothing, and the files are written when jobs are about to start.
"""

import functools
import hashlib
import itertools
import os
import pathlib

from speciate.config.components import Strict, kinds_in, options_within
from speciate.config.contracts.figures import figure_options
from speciate.config.contracts.model import RouterOptions
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import (
    AgreeSpec,
    Arm,
    CardDomain,
    CardSpec,
    CompareSpec,
    CompareTasksSpec,
    DataFolders,
    DrawSpec,
    EvaluateTaskSpec,
    ExploreSpec,
    InterveneSpec,
    MeasureSpec,
    Prediction,
    ReportSpec,
    SwapSpec,
    incomparable,
)
from speciate.config.study import Study
from speciate.config.sweeps import plan
from speciate.graph.data_graph import DataGraph
from speciate.graph.file_content import FileContents
from speciate.graph.provenance import short_digest
from speciate.io import atomic_write

MODEL_SUFFIXES = (".json", ".safetensors", ".gguf")
"""Suffixes of the files that may make up a model in a user's folder."""


class StudyGraph(DataGraph):
    """The paths and specs of one study under one results folder."""

    def __init__(self, study: Study, results: pathlib.Path, contents: FileContents | None = None) -> None:
        """Plan a study.

        Args:
            study: the study.
            results: the folder of all results.
            contents: digests of the user's own files, where notes of earlier ones are kept.
        """
        super().__init__(study, results / "data", contents)
        self.results = results
        self.home = results / study.study

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """What the domains are called after mixing; a control's mixture may give other names than the study file."""
        domains = tuple(self.study.domains)
        return self.study.mixture.labels(domains)

    @property
    def languages(self) -> tuple[str, ...]:
        """The domains with a programming language; none where the mixture relabels documents."""
        if self.study.mixture.relabels:
            return ()
        return tuple(name for name, domain in self.study.domains.items() if domain.language)

    def figures(self, page: str = "report") -> list[str]:
        """Return the figures of a page, `report` or `data`, without those about components that no run uses."""
        asked = {"cost": self.study.cost, "interventions": self.intervenes, "sweeps": self.study.sweeps}
        asked = asked | {"tasks": bool(self.tasks)}
        available = {"card", "tables", *(name for name, settings in asked.items() if settings)}
        available |= {"types"} if self.languages else set()
        return [
            name
            for name in kinds_in("figures")
            for options in [figure_options(name)]
            if options.page == page
            and (not options.needs or self.used.intersection(options.needs))
            and options.reads in available
        ]

    def read_by(self, figure: str) -> str:
        """Return which tables a figure reads: the data `card`, the `cost` of mixers, or the study's own."""
        return figure_options(figure).reads

    @functools.cached_property
    def used(self) -> frozenset[str]:
        """The components that the study's runs use, such as `mixer.gsa`."""
        runs = [self.study.run(ablation, self.study.seeds[0]) for ablation in self.study.ablations]
        return frozenset(".".join(kind.module_name().split(".")[-2:]) for run in runs for kind in options_within(run))

    @functools.cached_property
    def cost_runs(self) -> list[RunSpec]:
        """The runs whose mixers are timed; none where the study asks for no cost."""
        ablations = () if self.study.cost is None else self.study.cost.ablations
        return [self.study.run(ablation, self.study.seeds[0]) for ablation in ablations]

    @functools.cached_property
    def arms(self) -> tuple[Arm, ...]:
        """What a reader should know of each arm."""
        arms = []
        for name, ablation in self.study.ablations.items():
            run = self.study.run(name, self.study.seeds[0])
            leaks = any(options.looks_ahead() for options in options_within(run))
            routers = [options for options in options_within(run) if isinstance(options, RouterOptions)]
            arm = Arm(
                name=name,
                about=ablation.about,
                published=ablation.published,
                leaks=leaks,
                bound=not run.model.causal,
                fixed=bool(routers) and not any("gradient" in router.balanced_by for router in routers),
            )
            arms.append(arm)
        return tuple(arms)

    def card_spec(self) -> CardSpec:
        """Return the spec of the data card."""
        study = self.study
        return CardSpec(
            study=study.study,
            domains=tuple(
                CardDomain(name=name, **{key: getattr(domain, key) for key in CardDomain.model_fields if key != "name"})
                for name, domain in study.domains.items()
            ),
            across_domains=study.duplicates.across_domains,
            split=study.split,
            tokenizer=study.tokenizer,
            packing=study.packing,
            mixture=study.mixture,
            block_length=study.block_length,
        )

    @functools.cache  # noqa: B019
    def run(self, ablation: str, seed: int) -> RunSpec:
        """Return one run. Raises ValueError where the study has no such ablation or seed."""
        if ablation not in self.study.ablations or seed not in self.study.seeds:
            raise ValueError(f"study {self.study.study} has no run {ablation}, seed {seed}")
        return self.study.run(ablation, seed)

    def run_folder(self, ablation: str, seed: int) -> pathlib.Path:
        """Return the folder of one run's outputs."""
        return self.home / "runs" / ablation / f"seed{seed}"

    def start(self, ablation: str, seed: int) -> str | None:
        """Return the file or user's folder that `train --start` gets; None: the run starts from scratch."""
        origin = self.run(ablation, seed).start.origin_options()
        return None if origin is None else origin.model_path(self.home / "runs", seed, self.start_archive)

    def start_inputs(self, ablation: str, seed: int) -> list[str]:
        """Return what a run starts from if the workflow makes it: another run's weights, or an archive."""
        start = self.start(ablation, seed)
        return [] if start is None or self._model_folder(ablation, seed) is not None else [start]

    def _model_folder(self, ablation: str, seed: int) -> str | None:
        """Return the user's folder that a run starts from; None for a run that starts from anything else."""
        origin = self.run(ablation, seed).start.origin_options()
        return None if origin is None else origin.model_folder()

    @functools.cache  # noqa: B019
    def start_content(self, ablation: str) -> str:
        """Return a digest of the user's own files that the runs of an ablation start from; empty where there are none.

        Raises:
            ValueError: as `local_start_files` does.
        """
        files = self.local_start_files(ablation)
        return self.contents.digest(files) if files else ""

    def local_start_files(self, ablation: str) -> list[str]:
        """Return the user's own files that the runs of an ablation start from.

        Raises:
            ValueError: the user's folder is not there, or holds no model; names the ablation.
        """
        folder = self._model_folder(ablation, self.study.seeds[0])
        if folder is None:
            return []
        files = [str(file) for file in sorted(pathlib.Path(folder).glob("*")) if file.suffix in MODEL_SUFFIXES]
        if not files:
            where = f"ablations.{ablation}.start.origin.path"
            raise ValueError(f"{where}: {folder} in {pathlib.Path.cwd()} holds no {', '.join(MODEL_SUFFIXES)} file")
        return files

    def folders(self) -> DataFolders:
        """Return where the data stages are, for runs that a person makes or uses by hand."""
        results = self.home.parent
        return DataFolders(
            mixture=str(self.folder("balance", "mixture").relative_to(results)),
            tokenizer=str(self.folder("fit", "tokenizer").relative_to(results)),
            starts={name: str(self.start_archive(name).relative_to(results)) for name in self.start_sources},
        )

    def measure_folder(self, ablation: str, seed: int) -> pathlib.Path:
        """Return the folder of one run's tables."""
        return self.home / "measures" / ablation / f"seed{seed}"

    def measure_spec(self, ablation: str, seed: int) -> MeasureSpec:
        """Return the spec by which one run is measured."""
        analysis = self.study.analysis
        return MeasureSpec(
            ablation=ablation,
            seed=seed,
            num_steps=self.run(ablation, seed).training.num_steps,
            languages=self.languages,
            permutations=analysis.permutations,
            resamples=analysis.resamples,
            confidence=analysis.confidence,
            armed_after=analysis.armed_after,
            draw_seed=analysis.seed,
        )

    @property
    def margin(self) -> float:
        """The cost above which a selector's choice matters, in nats per token; 0 without interventions."""
        return self.study.analysis.interventions.margin if self.intervenes else 0.0

    @property
    def intervenes(self) -> bool:
        """Whether the study asks for interventions on its runs."""
        return self.study.analysis.interventions.blocks > 0

    def intervene_folder(self, ablation: str, seed: int) -> pathlib.Path:
        """Return the folder of the table of one run's interventions."""
        return self.home / "interventions" / ablation / f"seed{seed}"

    def intervene_spec(self, ablation: str, seed: int) -> InterveneSpec:
        """Return the spec of the interventions on one run."""
        analysis = self.study.analysis
        return InterveneSpec(
            run=self.run(ablation, seed),
            blocks=analysis.interventions.blocks,
            max_slots=analysis.interventions.max_slots,
            resamples=analysis.resamples,
            confidence=analysis.confidence,
            draw_seed=analysis.seed,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks on which runs are evaluated, in the order of the study file."""
        return tuple(self.study.evaluation.tasks)

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The ablations whose runs are evaluated on the tasks."""
        return self.study.evaluation.ablations or tuple(self.study.ablations)

    def task_folder(self, ablation: str, seed: int) -> pathlib.Path:
        """Return the folder of one run's scores, with a file for each task."""
        return self.home / "tasks" / ablation / f"seed{seed}"

    def task_spec(self, ablation: str, seed: int, task: str) -> EvaluateTaskSpec:
        """Return the spec by which one run is put to one task."""
        return EvaluateTaskSpec(run=self.run(ablation, seed), task=task, options=self.study.evaluation.tasks[task])

    @functools.cache  # noqa: B019
    def task_content(self, task: str) -> str:
        """Return a digest of the user's own files that a task reads; empty for a task that reads none.

        A file that is missing is no error here: the task says so, and its scores are stale as soon as it is there.
        """
        files = self.study.evaluation.tasks[task].files()
        present = [file for file in files if os.path.isfile(file)]
        return short_digest(self.contents.digest(present), *files) if files else ""

    def task_texts(self, task: str) -> dict[str, pathlib.Path]:
        """Return the folders of the texts outside training that a task reads, by their names in the study file."""
        return {name: self.text_folder(name) for name in self.study.evaluation.tasks[task].texts()}

    def text_folder(self, text: str) -> pathlib.Path:
        """Return the folder with the cleaned documents of a text outside training."""
        raise ValueError(f"evaluation.texts.{text}: no stage of this version makes a text outside training")

    def text_files(self, text: str) -> list[str]:
        """Return the files in the folder of a text outside training."""
        return [str(self.text_folder(text) / "documents.parquet")]

    def compare_tasks_spec(self) -> CompareTasksSpec:
        """Return the spec of the comparison of what the arms score on the tasks."""
        analysis = self.study.analysis
        return CompareTasksSpec(
            tasks=self.tasks,
            arms=self.evaluated,
            seeds=self.study.seeds,
            reference=analysis.reference,
            resamples=analysis.resamples,
            confidence=analysis.confidence,
            draw_seed=analysis.seed,
        )

    def agree_spec(self) -> AgreeSpec:
        """Return the spec of the agreement between runs."""
        study = self.study
        return AgreeSpec(arms=tuple(study.ablations), seeds=study.seeds, reference=study.analysis.reference)

    @property
    def swaps(self) -> bool:
        """Whether the study asks for selectors of other runs in the place of a run's own."""
        return self.study.analysis.interventions.swaps

    @functools.cached_property
    def first_runs(self) -> list[RunSpec]:
        """The runs of the first seed: they have every component that a run of the study has."""
        return [self.study.run(ablation, self.study.seeds[0]) for ablation in self.study.ablations]

    def swap_spec(self) -> SwapSpec:
        """Return the spec of the swaps between runs."""
        study, analysis = self.study, self.study.analysis
        return SwapSpec(
            arms=tuple(study.ablations),
            seeds=study.seeds,
            reference=analysis.reference,
            blocks=analysis.interventions.blocks,
            resamples=analysis.resamples,
            confidence=analysis.confidence,
            draw_seed=analysis.seed,
        )

    def compare_spec(self) -> CompareSpec:
        """Return the spec of the comparison."""
        study, analysis = self.study, self.study.analysis
        return CompareSpec(
            domains=self.labels,
            arms=self.arms,
            seeds=study.seeds,
            reference=analysis.reference,
            controls=analysis.controls,
            confidence=analysis.confidence,
            margin=self.margin,
            hypotheses=tuple(
                Prediction(name=name, **hypothesis.model_dump()) for name, hypothesis in study.hypotheses.items()
            ),
            sweeps=tuple(plan(name, sweep) for name, sweep in study.sweeps.items()),
        )

    def draw_spec(self, figure: str) -> DrawSpec:
        """Return the spec of one figure, named by its file in `figures/`. Raises ValueError where there is none."""
        study, options = self.study, figure_options(figure)(kind=figure)
        if figure in self.figures("data"):
            return DrawSpec(figure=options)
        return DrawSpec(
            figure=options,
            arms=tuple(study.ablations),
            domains=self.labels,
            reference=study.analysis.reference,
            incomparable=incomparable(self.arms, study.analysis.reference),
            controls=study.analysis.controls,
            fixed=tuple(arm.name for arm in self.arms if arm.fixed),
            confidence=study.analysis.confidence,
            armed_after=study.analysis.armed_after,
            margin=self.margin,
        )

    def explore_spec(self) -> ExploreSpec:
        """Return the spec of the explorer."""
        steps = {run.ablation: run.training.num_steps for run in self.first_runs}
        return ExploreSpec(study=self.study.study, arms=self.arms, seeds=self.study.seeds, num_steps=steps)

    def report_spec(self) -> ReportSpec:
        """Return the spec of the report and the manifest."""
        study = self.study
        return ReportSpec(
            study=study.study,
            question=study.question,
            arms=self.arms,
            seeds=study.seeds,
            domains=self.labels,
            reference=study.analysis.reference,
            controls=study.analysis.controls,
            hypotheses=tuple(study.hypotheses),
            figures=tuple(self.figures()),
            confidence=study.analysis.confidence,
            armed_after=study.analysis.armed_after,
            margin=self.margin,
            permutations=study.analysis.permutations,
            resamples=study.analysis.resamples,
            swaps=self.swaps,
            tasks=self.tasks,
            config_digest=hashlib.sha256(canonical_json(study).encode()).hexdigest(),
        )

    def spec_file(self, spec: Strict) -> pathlib.Path:
        """Return the file of a spec of a run, its tables, a figure or a page; its name follows from its content."""
        return self.results / "specs" / f"{short_digest(canonical_json(spec))}.json"

    def specs(self) -> dict[pathlib.Path, Strict]:
        """Return every spec of the study, by the path of its file."""
        runs = [(ablation, seed) for ablation in self.study.ablations for seed in self.study.seeds]
        named: list[Strict] = [self.run(*run) for run in runs]
        named += [self.measure_spec(*run) for run in runs]
        if self.intervenes:
            named += [self.intervene_spec(*run) for run in runs]
        if self.swaps:
            named.append(self.swap_spec())
        if self.tasks:
            units = itertools.product(self.evaluated, self.study.seeds, self.tasks)
            named += [*(self.task_spec(*unit) for unit in units), self.compare_tasks_spec()]
        named += [self.draw_spec(figure) for figure in kinds_in("figures")]
        named += [self.agree_spec(), self.compare_spec(), self.card_spec(), self.explore_spec(), self.report_spec()]
        return self.data_specs() | {self.spec_file(spec): spec for spec in named}

    def handmade_specs(self) -> dict[pathlib.Path, Strict]:
        """Return what a person needs who trains a run by hand, by the path of its file.

        A run's plan.json is what the study file asks for now; its spec.json is what its weights were trained with.
        """
        runs = itertools.product(self.study.ablations, self.study.seeds)
        plans = {self.run_folder(*run) / "plan.json": self.run(*run) for run in runs}
        return {self.home / "specs" / "folders.json": self.folders(), **plans}

    def write_specs(self) -> None:
        """Write each spec file whose content differs. An unchanged file keeps its time stamp."""
        for file, spec in (self.specs() | self.handmade_specs()).items():
            text = canonical_json(spec)
            if not file.is_file() or file.read_text(encoding="utf-8") != text:
                with atomic_write(file) as temp_path:
                    temp_path.write_text(text, encoding="utf-8")
