"""What a study and a run are: the only schema. Unknown keys, wrong types and impossible crossings are refused here.

A study file (`config.yaml`, `studies/*.yaml`) describes sources, data stages, one base run, ablations as differences
from it, seeds and hypotheses. `RunSpec` is one run: base + an ablation's changes + a seed. The Snakefile imports this
module too, so it needs only what both environments lock: pydantic and PyYAML.
"""

import copy
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
import yaml
from pydantic import Field

from speciate.kinds import Choice, Kind, Problems, Strict, kinds_within, problems

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Measured = Annotated[str, Field(pattern=r"^measured\.[a-z][a-z0-9_]*$")]
"""What modules note beside their choices (selection/meter.py): `measured.<name>`, the mean over a run's modules."""
Statistic = Literal[
    "loss",
    "bits_per_byte",
    "max_share",
    "max_violation",
    "effective_experts",
    "gini",
    "dead_experts",
    "revived_experts",
    "information_bits",
    "excess_information_bits",
    "token_explained_bits",
    "conditional_information_bits",
    "commitment_nats",
    "drift_nats",
    "information_nats",
]
"""What a hypothesis may be about: a number of each run in tables/runs (see analysis/tables.py)."""
Spec = TypeVar("Spec", bound=Strict)
Names = Annotated[tuple[Name, ...], pydantic.Strict(False)]


class Domain(Strict):
    """One domain of text: where it comes from and what is kept of it."""

    sources: dict[Name, Annotated[Kind, Choice("data/sources")]] = Field(min_length=1)
    """Source name -> where its documents come from."""
    licences: dict[Name, str] = {}
    """Source name -> the licence of its texts, for the data card."""
    filters: Annotated[tuple[Annotated[Kind, Choice("data/filters")], ...], pydantic.Strict(False)] = ()
    """Applied in this order; every drop is counted under its filter's reason."""
    duplicates: Literal["keep", "exact", "near"] = "exact"
    """Which documents are dropped as another one's duplicate: none, equal texts, or similar ones too."""
    max_bytes: int | None = Field(None, ge=1)
    """Bytes of kept text, in UTF-8, after which no more is read; null: all there is."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens of training text; documents beyond them are left out. Null: all there are."""
    shards: int = Field(1, ge=1)
    """Parts that every stage of this domain is spread over, one job each."""
    language: Literal["python"] | None = None
    """Programming language; with one, the probe's tokens are labelled by their lexical type."""


class Duplicates(Strict):
    """How duplicate documents are found (`domains.NAME.duplicates` says whose are dropped)."""

    across_domains: bool = False
    """Compare the documents of all domains; false: each domain by itself."""
    ngram: int = Field(5, ge=1)
    """Words in a shingle."""
    similarity: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of two documents' shingles from which they are near-duplicates."""
    permutations: int = Field(120, ge=8)
    """Values in a document's MinHash signature."""
    bands: int = Field(20, ge=1)
    """Bands that the signature is cut into; documents that agree on a whole band are compared. Divides permutations."""
    buckets: int = Field(1, ge=1)
    """Jobs that the bands are spread over."""

    @pydantic.model_validator(mode="after")
    def _divides(self) -> Self:
        if self.permutations % self.bands:
            raise ValueError(f"bands: {self.bands} does not divide {self.permutations} permutations")
        if self.buckets > self.bands:
            raise ValueError(f"buckets: {self.buckets} jobs for {self.bands} bands")
        return self


class Split(Strict):
    """Shares of the documents, taken by a hash of each document (or of its group), so no document is in two splits."""

    validation: float = Field(0.05, gt=0, lt=0.5)
    """Seen while training."""
    test: float = Field(0.1, gt=0, lt=0.5)
    """For the reported loss."""
    probe: float = Field(0.1, gt=0, lt=0.5)
    """For observing selectors."""
    seed: int = Field(0, ge=0)
    """Of the hash: another seed, another split."""


class HeldOut(Strict):
    """Fixed, balanced sets of held-out blocks, the same for every run of the study: so many blocks of each domain."""

    validation_blocks: int = Field(24, ge=1)
    """Seen while training."""
    test_blocks: int = Field(192, ge=1)
    """Seen by the finished model: its reported loss."""
    probe_blocks: int = Field(64, ge=1)
    """Where every selector of every run is observed."""
    seed: int = Field(0, ge=0)
    """Of what is drawn here."""


class Block(Strict):
    """One block of the decoder: block = mixer x ffn x depth."""

    mixer: Annotated[Kind, Choice("model/mixer")]
    """What mixes positions."""
    ffn: Annotated[Kind, Choice("model/ffn")]
    """What acts on each token by itself."""
    depth: Annotated[Kind, Choice("model/depth")]
    """Which tokens run through the block."""


class LayerException(Strict):
    """Layers whose block differs from the model's."""

    layers: Annotated[tuple[int, ...], pydantic.Strict(False)] = Field(min_length=1)
    """Layer indices, from 0."""
    block: Block
    """What each layer is."""


class Model(Strict):
    """A GPT-shaped decoder (Radford et al. 2019; with rms, rotary, swiglu and grouped queries: Touvron et al. 2023)."""

    width: int = Field(128, ge=1)
    """Dimensions of the residual stream."""
    num_layers: int = Field(4, ge=1)
    """Blocks."""
    context: int = Field(128, ge=2)
    """Longest sequence in tokens."""
    norm: Literal["layer", "rms"] = "layer"
    """Layer norm (GPT-2) or RMS norm (Llama)."""
    norm_epsilon: float = Field(1e-5, gt=0)
    """Added to the variance."""
    position: Literal["learned", "rotary"] = "learned"
    """Learned embeddings (GPT-2) or rotary (Llama)."""
    rotary_base: float = Field(10000.0, gt=1)
    """Base of the rotary wavelengths."""
    biases: bool = True
    """Biases in linear layers and layer norms (GPT-2 has them, Llama does not)."""
    causal: bool = True
    """Each position sees those before it; false: all of its block, or of its document where these are separated, as
    masked diffusion needs."""
    separate_documents: bool = False
    """Each document in a block is a context of its own: attention stays inside it and positions start again at 0. A
    document that packing split is one context in each of its blocks; `best_fit_truncate` splits none. A context's first
    token is predicted from nothing and so left out of every loss, which makes that loss one over fewer tokens than the
    loss of a model that does not separate."""
    tied_head: bool = True
    """The output layer shares the token embedding's weights."""
    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the initial weights; residual projections get it divided by sqrt(2 x layers) (GPT-2)."""
    embedding_std: float = Field(0.02, gt=0)
    """Standard deviation of the initial embeddings of tokens and positions."""
    block: Block
    """What each layer is."""
    exceptions: Annotated[tuple[LayerException, ...], pydantic.Strict(False)] = ()
    """Layers with another block."""

    @pydantic.model_validator(mode="after")
    def _crossings(self) -> Self:
        for exception in self.exceptions:
            beyond = [layer for layer in exception.layers if not 0 <= layer < self.num_layers]
            if beyond:
                raise ValueError(f"exceptions: layers {beyond} do not exist in a model of {self.num_layers}")
        for options in kinds_within(self):
            if not self.causal and getattr(options, "causal_only", False):
                raise ValueError(f"causal: {options.kind} sees only what came before; it cannot serve causal: false")
            options.check(self)
        return self

    def block_of(self, layer: int) -> Block:
        """The block of `layer` (from 0): the last exception that names it, or the model's own."""
        for exception in reversed(self.exceptions):
            if layer in exception.layers:
                return exception.block
        return self.block

    def unlike(self, other: "Model") -> str:
        """Where `other`'s weights would mean something else in this model, feed-forward layers aside; empty: nowhere.

        Shapes tell the rest. Rotary positions have no weights, so their context may differ.
        """
        names = ["width", "num_layers", "causal", "norm", "norm_epsilon", "position", "biases", "tied_head"]
        names.append("rotary_base" if self.position == "rotary" else "context")
        pairs = {f"model.{name}": (getattr(self, name), getattr(other, name)) for name in names}
        for layer in range(min(self.num_layers, other.num_layers)):
            mine, theirs = self.block_of(layer), other.block_of(layer)
            for part, old in (("mixer", theirs.mixer.model_dump()), ("depth", theirs.depth.model_dump())):
                new = getattr(mine, part).model_dump()
                for key in sorted(set(new) | set(old)):
                    pairs[f"layer {layer}: {part}.{key}"] = (new.get(key), old.get(key))
        for field, (here, there) in pairs.items():
            numbers = isinstance(here, float) and isinstance(there, float)
            defaulted = here is None or there is None
            if here != there and not defaulted and not (numbers and math.isclose(here, there, rel_tol=1e-6)):
                return f"{field} is {here!r} here, {there!r} there"
        return ""


class Training(Strict):
    """How long and in what portions."""

    num_steps: int = Field(250, ge=1)
    """Optimizer steps."""
    blocks_per_step: int = Field(16, ge=1)
    """Blocks in one optimizer step, over all its micro-batches."""
    accumulation: int = Field(1, ge=1)
    """Micro-batches in one step; must divide blocks_per_step."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the whole gradient."""
    threads: int = Field(1, ge=1)
    """Torch threads of a process; part of the spec because 1 and 2 threads give different bits."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it trains; auto: on a GPU where torch sees one."""
    processes: int = Field(1, ge=1)
    """Processes that train together, each on its part of every step's blocks; on GPUs, one a GPU."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What they share: ddp: each holds the whole model; fsdp: each holds its part of every block's weights, and of the
    optimizer's state."""
    checkpoint_every: int = Field(100, ge=1)
    """Steps between checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints of an unfinished run that are kept; an older one serves where the newest is damaged."""
    keep_steps: Annotated[tuple[int, ...], pydantic.Strict(False)] = ()
    """Steps whose weights are kept beside the finished ones, as snapshots/step<n>.safetensors."""
    keep_best: bool = False
    """Keep the weights of the lowest validation loss too, as best.safetensors."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """A step whose loss or gradient is not finite ends the run before its update, or is left out and counted; ten left
    out in a row end it too."""
    diverged_at: float = Field(10.0, gt=1)
    """A run has diverged, and ends, once the median of its last 20 losses is so many times ln(vocabulary), the loss of
    guessing; with 1000000 it hardly ever does."""
    on_failure: Literal["report", "stop"] = "report"
    """A run that ended so is reported as failed and the rest of the study goes on without it, or its job fails."""
    oom_retry: bool = False
    """Out of memory, try the step again with at least twice the accumulation, and keep that; the same predictions
    count, but sums in another order have other last bits."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products while training and observing; weights, routing and loss are float32, and so is evaluation."""
    activation_checkpointing: bool = False
    """Keep only each block's input for the backward pass and compute the rest again: less memory, more time."""
    compile: bool = False
    """Compile, by torch.compile, what holds no selector; other bits than without, and observations stay uncompiled."""
    deterministic: bool = False
    """Let torch take only algorithms whose bits repeat, or fail; a CPU run repeats without it."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay a step of a moving average of the weights, kept beside them; null: none."""
    ema_warmup: bool = False
    """The decay of step n, from 1, is at most (1 + n) / (10 + n)."""
    evaluate_ema: bool = False
    """The average is the run's model (model.safetensors): what is evaluated, exported and started from."""

    @pydantic.model_validator(mode="after")
    def _kept(self) -> Self:
        beyond = [step for step in self.keep_steps if not 1 <= step <= self.num_steps]
        if beyond:
            raise ValueError(f"keep_steps: there are no steps {beyond} in a run of {self.num_steps}")
        return self

    @pydantic.model_validator(mode="after")
    def _average(self) -> Self:
        if self.ema is None and (self.ema_warmup or self.evaluate_ema):
            key = "ema_warmup" if self.ema_warmup else "evaluate_ema"
            raise ValueError(f"{key}: there is no average of the weights; set ema to its decay")
        return self

    @pydantic.model_validator(mode="after")
    def _divides(self) -> Self:
        if self.blocks_per_step % self.accumulation:
            raise ValueError(
                f"accumulation: {self.accumulation} does not divide {self.blocks_per_step} blocks_per_step"
            )
        if self.blocks_per_step % (self.processes * self.accumulation):
            each = f"{self.accumulation} micro-batches of each of {self.processes} processes"
            raise ValueError(f"processes: {each} do not divide {self.blocks_per_step} blocks_per_step")
        return self


class Telemetry(Strict):
    """When a training run is observed; the observer never touches the training batch, its randomness or gradients."""

    every: int = Field(10, ge=1)
    """Steps between observations."""
    early_every: int = Field(5, ge=1)
    """Steps between observations while collapse is young."""
    early_until: int = Field(50, ge=0)
    """The step up to which observations are early ones."""
    probe_blocks: int = Field(12, ge=1)
    """Probe blocks of each domain seen each time (the finished model sees all of them)."""
    validation_every: int = Field(50, ge=1)
    """Steps between measurements of the validation loss, and of what modules note beside their choices."""
    gradient_norms: bool = False
    """Write the norm of each selector's own gradient, before clipping, with every step's loss."""


class RunSpec(Strict):
    """One training run, whole. Its JSON is the run's identity."""

    ablation: Name
    """The arm."""
    seed: int = Field(ge=0)
    """Of initial weights, noise and data order."""
    model: Model
    """The network."""
    objective: Annotated[Kind, Choice("training/objective")]
    """What is minimised."""
    optimizer: Annotated[Kind, Choice("training/optimizer")]
    """How."""
    schedule: Annotated[Kind, Choice("training/schedule")]
    """The learning rate over the steps."""
    training: Training = Training()
    """Steps, batch, clipping, threads."""
    telemetry: Telemetry = Telemetry()
    """When it is observed."""
    start: Annotated[Kind, Choice("training/start")] = Field(default={"kind": "scratch"}, validate_default=True)
    """What its weights are before the first step."""

    @pydantic.model_validator(mode="after")
    def _shards(self) -> Self:
        if self.training.parallel == "fsdp" and not getattr(self.optimizer, "takes_shards", True):
            raise ValueError(f"training.parallel: fsdp splits matrices, and {self.optimizer.kind} needs them whole")
        return self

    @pydantic.model_validator(mode="after")
    def _crossings(self) -> Self:
        needed = getattr(self.objective, "causal", True)
        if self.model.causal != needed:
            sees = "only what came before" if needed else "the whole block"
            raise ValueError(f"model.causal: {self.objective.kind} needs a model that sees {sees}, so {needed} here")
        for options in kinds_within(self):
            options.check_run(self)
        return self

    @property
    def parent(self) -> str | None:
        """The ablation whose run of the same seed this one starts from, if it does."""
        return getattr(getattr(self.start, "origin", None), "ablation", None)


class Ablation(Strict):
    """One arm of a study: a difference from the base run."""

    about: str = Field(min_length=1)
    """One line for the reader of figures and tables."""
    published: bool = False
    """The arm does as a system's authors released it, and a failure of it is predicted: the report says whether each of
    its hypotheses came true, and there must be one."""
    change: dict[str, Any] = {}
    """Merged into `base`; a mapping whose `kind` changes replaces the base's whole."""


class Hypothesis(Strict):
    """A prediction, written down before the run: `statistic` of `arm` minus `reference`, against `margin`."""

    statement: str = Field(min_length=1)
    """The prediction in words."""
    statistic: Statistic | Measured
    """A column of tables/runs, or `measured.<name>` of tables/measurements."""
    arm: Name
    """The ablation it is about."""
    reference: Name
    """The ablation it is compared with, paired by seed."""
    direction: Literal["greater", "less", "equivalent"]
    """Of the difference, arm minus reference."""
    margin: float = Field(0.0, ge=0)
    """greater: the difference exceeds it; less: it is below -margin; equivalent: it lies within +-margin (TOST)."""


class Analysis(Strict):
    """How the runs are compared."""

    reference: Name
    """The ablation that the others are compared with, paired by seed."""
    controls: Names = ()
    """Ablations whose selectors do not learn; specialisation is counted as the excess over them."""
    permutations: int = Field(999, ge=19)
    """Draws of the document-level permutation null."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of intervals; 1 - confidence is also the alarm's guaranteed rate of false alarms."""
    resamples: int = Field(999, ge=19)
    """Bootstrap draws over documents."""
    armed_after: float = Field(0.1, ge=0, lt=1)
    """Share of the training after which collapse rules may fire: a random init already exceeds them."""
    seed: int = Field(0, ge=0)
    """Of what is drawn here."""


class Cost(Strict):
    """Whose mixers are timed as blocks grow longer; a time is this machine's, and no other table has one."""

    ablations: Names = Field(min_length=1)
    """The ablations whose first layer's mixer is measured."""
    lengths: Annotated[tuple[Annotated[int, Field(ge=2)], ...], pydantic.Strict(False)] = (512, 1024, 2048, 4096)
    """Tokens of a block."""
    rounds: int = Field(3, ge=1)
    """Rounds to take the median of."""


class Study(Strict):
    """A whole study, as written in a study file."""

    study: Name
    """The study's name; its results go to results/<study>."""
    question: str = ""
    """What the study asks; the title of its report."""
    domains: dict[Name, Domain] = Field(min_length=1)
    """Domain name -> its sources and filters."""
    duplicates: Duplicates = Duplicates()
    """How duplicate documents are found."""
    split: Split = Split()
    """Shares of held-out documents."""
    tokenizer: Annotated[Kind, Choice("data/tokenizer")]
    """Text to token ids."""
    packing: Annotated[Kind, Choice("data/packing")]
    """How documents fill blocks."""
    block_length: int = Field(128, ge=2)
    """Tokens in a block."""
    mixture: Annotated[Kind, Choice("data/mixture")]
    """How the domains' blocks are mixed."""
    held_out: HeldOut = HeldOut()
    """Sizes of the validation, test and probe sets."""
    base: dict[str, Any]
    """The run that ablations differ from: a RunSpec without ablation and seed."""
    ablations: dict[Name, Ablation] = Field(min_length=1)
    """The arms, by name, in the order of every figure and table."""
    seeds: Annotated[tuple[int, ...], pydantic.Strict(False)] = Field(min_length=1)
    """Each seed is a run of every arm; it decides initial weights and data order."""
    analysis: Analysis
    """Reference, controls, draws, intervals."""
    hypotheses: dict[Name, Hypothesis] = {}
    """Predictions, written down before the runs."""
    cost: Cost | None = None
    """What mixers cost by the length of a block; null: not measured."""

    @pydantic.model_validator(mode="after")
    def _names(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} names one twice")
        used = {"analysis.reference": [self.analysis.reference], "analysis.controls": list(self.analysis.controls)}
        used["cost.ablations"] = [] if self.cost is None else list(self.cost.ablations)
        for name, hypothesis in self.hypotheses.items():
            used[f"hypotheses.{name}"] = [hypothesis.arm, hypothesis.reference]
        for where, names in used.items():
            missing = [name for name in names if name not in self.ablations]
            if missing:
                raise ValueError(f"{where}: no ablation is called {', '.join(missing)}")
        predicted = {hypothesis.arm for hypothesis in self.hypotheses.values()}
        for arm, difference in self.ablations.items():
            if difference.published and arm not in predicted:
                raise ValueError(f"ablations.{arm}: is as published, and no hypothesis predicts how it fails")
        check_domains = getattr(self.mixture, "check_domains", None)
        if check_domains is not None:
            check_domains(tuple(self.domains))
        for ablation in self.ablations:
            run = self.run(ablation, self.seeds[0])
            if run.model.context < self.block_length:
                shorter = f"model.context {run.model.context} is shorter than block_length {self.block_length}"
                raise ValueError(f"ablations.{ablation}: {shorter}")
            for options in kinds_within(run):
                try:
                    getattr(options, "check_domains", lambda domains: None)(tuple(self.domains))
                except ValueError as error:
                    raise ValueError(f"ablations.{ablation}: {error}") from None
            try:
                getattr(run.objective, "check_length", lambda length: None)(self.block_length)
            except ValueError as error:
                raise ValueError(f"ablations.{ablation}.objective: {error}") from None
            self._check_start(run)
        return self

    def _check_start(self, run: RunSpec) -> None:
        """Raises ValueError where a run starts from a run that there is not, from itself, or from an unlike one."""
        where, line = f"ablations.{run.ablation}.start.origin.ablation", [run.ablation]
        while run.parent is not None:
            if run.parent not in self.ablations:
                raise ValueError(f"{where}: no ablation is called {run.parent}")
            line.append(run.parent)
            if run.parent in line[:-1]:
                raise ValueError(f"{where}: leads back to itself: {' from '.join(line)}")
            older = self.run(run.parent, self.seeds[0])
            own = getattr(run.start, "unlike", None)  # what starts is not the model itself
            unlike = run.model.unlike(older.model) if own is None else own(run.model, older.model)
            if unlike:
                raise ValueError(f"{where}: {line[-2]} cannot start from {line[-1]}: {unlike}")
            run = older

    def run(self, ablation: str, seed: int) -> RunSpec:
        """The run of one ablation and one seed.

        Raises:
            ValueError: naming the ablation and the field that is wrong.
        """
        settings = merge(self.base, self.ablations[ablation].change)
        try:
            return RunSpec.model_validate({**settings, "ablation": ablation, "seed": seed})
        except pydantic.ValidationError as error:
            where = f"ablations.{ablation}"
            raise Problems([(f"{where}.{path}" if path else where, why) for path, why in problems(error)]) from None

    def runs(self) -> list[RunSpec]:
        """Every run of the study: ablations x seeds, in the order of the study file."""
        return [self.run(ablation, seed) for ablation in self.ablations for seed in self.seeds]


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, key by key; neither is altered.

    A value of None removes the key. A mapping that names another `kind` than the base's replaces it whole, since the
    options of one kind mean nothing to another; a bare string against a mapping of kinds does the same.
    """
    merged = dict(copy.deepcopy(base))
    for key, value in change.items():
        old = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping) and value.get("kind") in (None, old.get("kind")):
            merged[key] = merge(old, value)
        elif isinstance(value, Mapping) and isinstance(old, str) and value.get("kind") in (None, old):
            merged[key] = {"kind": old, **copy.deepcopy(value)}
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def read_yaml(file: pathlib.Path, above: tuple[pathlib.Path, ...] = ()) -> dict[str, Any]:
    """A study file as plain data, with the files that it `extends` underneath.

    Args:
        file: the study file.
        above: the files that extend it.

    Raises:
        ValueError: no such file, broken YAML, a file that is not a mapping, or files that extend each other in a
            circle; the message names the file.
    """
    if file.resolve() in above:
        raise ValueError(f"{file}: extends: leads back to itself")
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{file}: must be a mapping of keys to values")
    return extend(settings, file.parent, (*above, file.resolve()))


def extend(settings: Mapping[str, Any], folder: pathlib.Path, above: tuple[pathlib.Path, ...] = ()) -> dict[str, Any]:
    """`settings` laid over the study file that its key `extends` names (relative to `folder`), if there is one.

    With a list of files each is laid over those before it.

    Raises:
        ValueError: as `read_yaml` does, or `extends` is neither a file nor a list of them.
    """
    rest = {key: value for key, value in settings.items() if key != "extends"}
    named = settings.get("extends", [])
    merged: dict[str, Any] = {}
    files = [named] if isinstance(named, str) else named
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise ValueError(f"extends: must be a file or a list of files, not {named!r}")
    for name in files:
        merged = merge(merged, read_yaml(folder / name, above))
    return merge(merged, rest)


def parse_study(settings: Mapping[str, Any], origin: str) -> Study:
    """The study that `settings` describe, every ablation's merge checked.

    Args:
        settings: plain data, `extends` already resolved.
        origin: the file's name, for messages.

    Raises:
        ValueError: one line a problem, each naming the field.
    """
    try:
        return Study.model_validate(dict(settings))
    except pydantic.ValidationError as error:
        lines = [f"{origin}: {path}: {why}" if path else f"{origin}: {why}" for path, why in problems(error)]
        raise ValueError("\n".join(dict.fromkeys(lines))) from None


def read_study(file: pathlib.Path) -> Study:
    """The study in `file`. Raises ValueError as `read_yaml` and `parse_study` do."""
    return parse_study(read_yaml(file), str(file))


def read_spec(cls: type[Spec], file: pathlib.Path) -> Spec:
    """One stage's spec, as the workflow wrote it. Raises ValueError naming the file and the field."""
    try:
        return cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except pydantic.ValidationError as error:
        raise ValueError("\n".join(f"{file}: {path}: {why}" for path, why in problems(error))) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: is no spec: {error}") from None


def dump(spec: Strict) -> str:
    """The canonical JSON of a spec: every key, sorted, so that equal specs have equal bytes."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"
