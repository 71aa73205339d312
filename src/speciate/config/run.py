"""What a run is, and how specs are read and written. Unknown keys, wrong types, impossible crossings are refused here.

`RunSpec` is one run: a study's base with an ablation's changes (study.py) and a seed. The Snakefile imports this module
and the three beside it, so they need only what both environments lock: pydantic and PyYAML.
"""

import json
import math
import pathlib
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
from pydantic import Field

from speciate.config.components import OneOf, Strict, config_errors, options_within
from speciate.config.contracts.model import DepthOptions, FfnOptions, MixerOptions
from speciate.config.contracts.training import ObjectiveOptions, OptimizerOptions, ScheduleOptions, StartOptions

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Names = Annotated[tuple[Name, ...], pydantic.Strict(False)]
Spec = TypeVar("Spec", bound=Strict)


class BlockSpec(Strict):
    """One block of the decoder: block = mixer x ffn x depth."""

    mixer: Annotated[MixerOptions, OneOf("model/mixer")]
    """What mixes positions."""
    ffn: Annotated[FfnOptions, OneOf("model/ffn")]
    """What acts on each token by itself."""
    depth: Annotated[DepthOptions, OneOf("model/depth")]
    """Which tokens run through the block."""


class LayerException(Strict):
    """Layers whose block differs from the model's."""

    layers: Annotated[tuple[int, ...], pydantic.Strict(False)] = Field(min_length=1)
    """Layer indices, from 0."""
    block: BlockSpec
    """What each layer is."""


class LayerGroup(Strict):
    """Layers whose block differs from the model's in some keys: the short form of an exception, for study files.

    `base.model.layer_groups` maps names to groups. An ablation's `change.model.layer_groups` is merged over it key by
    key: `{rom: {block: {mixer: {routed: shared}}}}` changes one key of one group. Specs hold `exceptions` instead.
    """

    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], pydantic.Strict(False)] = Field(min_length=1)
    """Layer indices, from 0. No layer is in two groups."""
    block: dict[str, Any] = {}
    """What differs from `model.block`, merged over it key by key; a component of another `kind` replaces it whole."""


class ModelSpec(Strict):
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
    block: BlockSpec
    """What each layer is."""
    exceptions: Annotated[tuple[LayerException, ...], pydantic.Strict(False)] = ()
    """Layers with another block."""

    @pydantic.model_validator(mode="after")
    def _crossings(self) -> Self:
        for exception in self.exceptions:
            beyond = [layer for layer in exception.layers if not 0 <= layer < self.num_layers]
            if beyond:
                raise ValueError(f"exceptions: layers {beyond} do not exist in a model of {self.num_layers}")
        for options in options_within(self):
            if not self.causal and options.causal_only:
                raise ValueError(f"causal: {options.kind} sees only what came before; it cannot serve causal: false")
            options.check(self)
        return self

    def block_of(self, layer: int) -> BlockSpec:
        """The block of `layer` (from 0): the last exception that names it, or the model's own."""
        for exception in reversed(self.exceptions):
            if layer in exception.layers:
                return exception.block
        return self.block

    def difference(self, other: "ModelSpec") -> str:
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


class TrainingSpec(Strict):
    """How long and in what portions."""

    num_steps: int = Field(250, ge=1)
    """Optimizer steps."""
    blocks_per_step: int = Field(16, ge=1)
    """Blocks in one optimizer step, over all its micro-batches."""
    grad_accumulation: int = Field(1, ge=1)
    """Micro-batches in one step; must divide blocks_per_step."""
    max_grad_norm: float = Field(1.0, gt=0)
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
        if self.blocks_per_step % self.grad_accumulation:
            raise ValueError(
                f"grad_accumulation: {self.grad_accumulation} does not divide {self.blocks_per_step} blocks_per_step"
            )
        if self.blocks_per_step % (self.processes * self.grad_accumulation):
            each = f"{self.grad_accumulation} micro-batches of each of {self.processes} processes"
            raise ValueError(f"processes: {each} do not divide {self.blocks_per_step} blocks_per_step")
        return self


class TelemetrySpec(Strict):
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
    model: ModelSpec
    """The network."""
    objective: Annotated[ObjectiveOptions, OneOf("training/objective")]
    """What is minimised."""
    optimizer: Annotated[OptimizerOptions, OneOf("training/optimizer")]
    """How."""
    schedule: Annotated[ScheduleOptions, OneOf("training/schedule")]
    """The learning rate over the steps."""
    training: TrainingSpec = TrainingSpec()
    """Steps, batch, clipping, threads."""
    telemetry: TelemetrySpec = TelemetrySpec()
    """When it is observed."""
    start: Annotated[StartOptions, OneOf("training/init/start")] = Field(
        default={"kind": "scratch"}, validate_default=True
    )
    """What its weights are before the first step."""

    @pydantic.model_validator(mode="after")
    def _shards(self) -> Self:
        if self.training.parallel == "fsdp" and not self.optimizer.supports_sharding:
            raise ValueError(f"training.parallel: fsdp splits matrices, and {self.optimizer.kind} needs them whole")
        return self

    @pydantic.model_validator(mode="after")
    def _crossings(self) -> Self:
        needed = self.objective.causal
        if self.model.causal != needed:
            sees = "only what came before" if needed else "the whole block"
            raise ValueError(f"model.causal: {self.objective.kind} needs a model that sees {sees}, so {needed} here")
        for options in options_within(self):
            options.check_run(self)
        return self

    @property
    def parent(self) -> str | None:
        """The ablation whose run of the same seed this one starts from, if it does."""
        origin = self.start.origin_options()
        return None if origin is None else origin.parent_ablation()


def read_spec(cls: type[Spec], file: pathlib.Path) -> Spec:
    """One stage's spec, as the workflow wrote it. Raises ValueError naming the file and the field."""
    try:
        return cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except pydantic.ValidationError as error:
        raise ValueError("\n".join(f"{file}: {path}: {why}" for path, why in config_errors(error))) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: is no spec: {error}") from None


def canonical_json(spec: Strict) -> str:
    """The canonical JSON of a spec: every key, sorted, so that equal specs have equal bytes."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"
