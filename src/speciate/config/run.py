"""The spec of one training run, and how specs are read and written.

`RunSpec` is a study's base with an ablation's changes (study.py) and a seed. Unknown keys, wrong types and impossible
combinations are refused here. The Snakefile imports this package, so it needs only what both environments lock:
pydantic and PyYAML.
"""

import json
import math
import pathlib
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
from pydantic import Field

from speciate.config.components import NAME_PATTERN, OneOf, Strict, config_errors, options_within
from speciate.config.contracts.model import DepthOptions, FfnOptions, MixerOptions
from speciate.config.contracts.training import ObjectiveOptions, OptimizerOptions, ScheduleOptions, StartOptions

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
"""A name that is part of paths."""
Names = Annotated[tuple[Name, ...], pydantic.Strict(False)]
Spec = TypeVar("Spec", bound=Strict)


class BlockSpec(Strict):
    """One block of the decoder: mixer, feed-forward layer, and depth."""

    mixer: Annotated[MixerOptions, OneOf("model/mixer")]
    """The component that mixes positions: attention, sparse attention, Mamba or Routing Mamba."""
    ffn: Annotated[FfnOptions, OneOf("model/ffn")]
    """The component that acts on each token by itself: one dense layer, or a mixture of experts."""
    depth: Annotated[DepthOptions, OneOf("model/depth")]
    """Which tokens run through the block: all of them, or those that a Mixture-of-Depths router selects."""


class LayerException(Strict):
    """Layers whose block differs from the model's."""

    layers: Annotated[tuple[int, ...], pydantic.Strict(False)] = Field(min_length=1)
    """Indices of the layers, counted from 0."""
    block: BlockSpec
    """The block of each of these layers."""


class LayerGroup(Strict):
    """Layers whose block differs from the model's in some keys: the short form of an exception, for study files.

    `base.model.layer_groups` maps names to groups. An ablation's `change.model.layer_groups` is merged over it key by
    key: `{rom: {block: {mixer: {routed: shared}}}}` changes one key of one group. Specs hold `exceptions` instead.
    """

    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], pydantic.Strict(False)] = Field(min_length=1)
    """Layer indices, from 0. No layer is in two groups."""
    block: dict[str, Any] = {}
    """What differs from `model.block`, merged over it key by key; a component of another `kind` replaces it whole."""


class RotaryScaling(Strict):
    """How a rotary encoding is slowed down so that a model reads longer contexts than those that it began with."""

    kind: Literal["linear", "llama3"]
    """`linear`: every frequency is divided by the factor (Chen et al. 2023). `llama3`: only the low ones are (Llama 3,
    Grattafiori et al. 2024)."""
    factor: float = Field(ge=1)
    """Number by which frequencies are divided."""
    low_frequency: float = Field(1.0, gt=0)
    """Number of turns within the original context up to which a frequency is divided by the whole factor (llama3)."""
    high_frequency: float = Field(4.0, gt=0)
    """Number of turns within the original context from which on a frequency stays as it is (llama3)."""
    original_context: int = Field(8192, ge=1)
    """Length of the contexts that the model began with, in tokens (llama3)."""

    @pydantic.model_validator(mode="after")
    def _check_frequencies(self) -> Self:
        if self.low_frequency >= self.high_frequency:
            raise ValueError(f"low_frequency: {self.low_frequency:g} is not below high_frequency")
        return self


class ModelSpec(Strict):
    """A GPT-shaped decoder (Radford et al. 2019). With RMS norm, rotary positions, SwiGLU and grouped queries it is
    Llama's (Touvron et al. 2023).
    """

    width: int = Field(128, ge=1)
    """Dimensions of the residual stream."""
    num_layers: int = Field(4, ge=1)
    """Number of blocks."""
    context: int = Field(128, ge=2)
    """Length of the longest sequence, in tokens."""
    norm: Literal["layer", "rms"] = "layer"
    """Normalisation before each sublayer: layer norm (GPT-2) or RMS norm (Llama)."""
    norm_epsilon: float = Field(1e-5, gt=0)
    """Number added to the variance in each norm."""
    position: Literal["learned", "rotary"] = "learned"
    """Position encoding: learned embeddings (GPT-2) or rotary (Llama)."""
    rotary_base: float = Field(10000.0, gt=1)
    """Base of the wavelengths of the rotary encoding."""
    rotary_scaling: RotaryScaling | None = None
    """How the rotary encoding is stretched to longer contexts. With null it is not."""
    biases: bool = True
    """Whether linear layers and layer norms have biases. GPT-2 has them, Llama does not."""
    causal: bool = True
    """Whether each position sees only the positions before it. With false it sees its whole block, or its whole
    document where documents are separated; masked diffusion needs this."""
    separate_documents: bool = False
    """Whether each document in a block is a separate context: attention stays inside the document, positions start
    again at 0, and experts with a capacity count each document by itself. A document that packing cut in two is one
    context in each of its blocks; the packing `best_fit_truncate` cuts none. Nothing predicts the first token of a
    context, so every loss leaves it out. Such a loss is a mean over fewer tokens than that of a model which does not
    separate documents."""
    tied_head: bool = True
    """Whether the output layer shares the weights of the token embedding."""
    embedding_scale: float = Field(1.0, gt=0)
    """Factor of the token embeddings where they enter the residual stream; Gemma's is sqrt(width)."""
    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the initial weights. Projections into the residual stream get it divided by sqrt(2 x
    num_layers), as in GPT-2."""
    embedding_std: float = Field(0.02, gt=0)
    """Standard deviation of the initial embeddings of tokens and positions."""
    block: BlockSpec
    """The block of every layer."""
    exceptions: Annotated[tuple[LayerException, ...], pydantic.Strict(False)] = ()
    """Layers with another block. A study file may say this shorter, in `layer_groups`."""

    @pydantic.model_validator(mode="after")
    def _check_components(self) -> Self:
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
        """Return the block of `layer` (from 0): that of the last exception that names it, or the model's own."""
        for exception in reversed(self.exceptions):
            if layer in exception.layers:
                return exception.block
        return self.block

    def difference(self, other: "ModelSpec") -> str:
        """Return the first setting that gives the weights of `other` another meaning in this model; empty: none does.

        Feed-forward layers are not compared. Shapes show the other differences. Rotary positions have no weights, so
        contexts may differ.
        """
        names = ["width", "num_layers", "causal", "norm", "norm_epsilon", "position", "biases", "tied_head"]
        names.append("embedding_scale")
        names.append("rotary_base" if self.position == "rotary" else "context")
        pairs = {f"model.{name}": (getattr(self, name), getattr(other, name)) for name in names}
        if self.position == "rotary" and self.rotary_scaling != other.rotary_scaling:
            own, theirs = (spec.rotary_scaling and spec.rotary_scaling.model_dump() for spec in (self, other))
            pairs["model.rotary_scaling"] = (str(own), str(theirs))
        for layer in range(min(self.num_layers, other.num_layers)):
            block, other_block = self.block_of(layer), other.block_of(layer)
            for slot in ("mixer", "depth"):
                options, other_options = (getattr(spec, slot).model_dump() for spec in (block, other_block))
                for key in sorted(set(options) | set(other_options)):
                    pairs[f"layer {layer}: {slot}.{key}"] = (options.get(key), other_options.get(key))
        for field, (value, other_value) in pairs.items():
            numbers = isinstance(value, float) and isinstance(other_value, float)
            defaulted = value is None or other_value is None
            if (
                value != other_value
                and not defaulted
                and not (numbers and math.isclose(value, other_value, rel_tol=1e-6))
            ):
                return f"{field} is {value!r} here, {other_value!r} there"
        return ""


class TrainingSpec(Strict):
    """Length of the training, batch, numerics, checkpoints."""

    num_steps: int = Field(250, ge=1)
    """Number of optimizer steps."""
    blocks_per_step: int = Field(16, ge=1)
    """Number of blocks in an optimizer step, summed over its micro-batches and processes."""
    grad_accumulation: int = Field(1, ge=1)
    """Number of micro-batches in a step. It must divide blocks_per_step."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Largest norm of the whole gradient; a larger gradient is scaled down to it."""
    threads: int = Field(1, ge=1)
    """Torch threads of a process. It is part of the spec because one thread and two give different bits."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the run trains. `auto` takes a GPU where torch sees one, otherwise the CPU."""
    processes: int = Field(1, ge=1)
    """Number of processes that train together, each on its part of every step's blocks. On GPUs each process has one
    GPU."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How processes share the model. `ddp`: each process holds the whole model. `fsdp`: each process holds its part of
    every block's weights and of the optimizer's state."""
    checkpoint_every: int = Field(100, ge=1)
    """Number of steps between checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Number of checkpoints kept of an unfinished run. An older one serves where the newest is damaged."""
    keep_steps: Annotated[tuple[int, ...], pydantic.Strict(False)] = ()
    """Steps after which the weights are kept next to the finished ones, as snapshots/step<n>.safetensors."""
    keep_best: bool = False
    """Whether the weights with the lowest validation loss are kept too, as best.safetensors."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What happens when the loss or the gradient of a step is not finite. `stop`: the run ends before the update.
    `skip`: the step is skipped and counted; ten skipped steps in a row end the run too."""
    diverged_at: float = Field(10.0, gt=1)
    """A run has diverged, and ends, when the median of its last 20 losses exceeds this multiple of ln(vocabulary), the
    loss of guessing. With 1000000 it hardly ever does."""
    on_failure: Literal["report", "stop"] = "report"
    """What becomes of a study when this run fails in its numbers. `report`: the run is reported as failed and the study
    goes on without it. `stop`: the job fails."""
    oom_retry: bool = False
    """Whether a step that runs out of memory is tried again with at least twice the gradient accumulation, which then
    stays. The same predictions count, but their sum is taken in another order, so the last bits differ."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products in training and observation. Weights, routing and losses are always float32, and so
    is evaluation."""
    activation_checkpointing: bool = False
    """Whether only each block's input is kept for the backward pass and the rest is computed again: less memory, more
    time."""
    compile: bool = False
    """Whether torch.compile compiles the modules that hold no selector. The bits differ from those of uncompiled code.
    Observations stay uncompiled."""
    deterministic: bool = False
    """Whether torch may use only algorithms whose bits repeat, and fails where it has none. A run on a CPU repeats
    without it."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, kept next to them. With null there is none."""
    ema_warmup: bool = False
    """Whether the decay of step n (from 1) is at most (1 + n) / (10 + n)."""
    evaluate_ema: bool = False
    """Whether the average is the run's model (model.safetensors): what is evaluated, exported and started from."""

    @pydantic.model_validator(mode="after")
    def _check_keep_steps(self) -> Self:
        beyond = [step for step in self.keep_steps if not 1 <= step <= self.num_steps]
        if beyond:
            raise ValueError(f"keep_steps: there are no steps {beyond} in a run of {self.num_steps}")
        return self

    @pydantic.model_validator(mode="after")
    def _check_ema(self) -> Self:
        if self.ema is None and (self.ema_warmup or self.evaluate_ema):
            key = "ema_warmup" if self.ema_warmup else "evaluate_ema"
            raise ValueError(f"{key}: there is no average of the weights; set ema to its decay")
        return self

    @pydantic.model_validator(mode="after")
    def _check_batch(self) -> Self:
        if self.blocks_per_step % self.grad_accumulation:
            raise ValueError(
                f"grad_accumulation: {self.grad_accumulation} does not divide {self.blocks_per_step} blocks_per_step"
            )
        if self.blocks_per_step % (self.processes * self.grad_accumulation):
            micro_batches = f"{self.grad_accumulation} micro-batches of each of {self.processes} processes"
            raise ValueError(f"processes: {micro_batches} do not divide {self.blocks_per_step} blocks_per_step")
        return self


class TelemetrySpec(Strict):
    """When a training run is observed. The observer never touches the training batch, its random numbers or its
    gradients.
    """

    every: int = Field(10, ge=1)
    """Number of steps between observations."""
    early_every: int = Field(5, ge=1)
    """Number of steps between observations early in the run, while collapse is young."""
    early_until: int = Field(50, ge=0)
    """Last step of the early observations."""
    probe_blocks: int = Field(12, ge=1)
    """Number of probe blocks of each domain in each observation. The finished model is observed on all of them. The
    alarm takes their documents as its evidence: with few it is late, or impossible."""
    validation_every: int = Field(50, ge=1)
    """Number of steps between measurements of the validation loss and of the metrics that modules record besides
    their choices."""
    gradient_norms: bool = False
    """Whether metrics.jsonl holds, for every step, the norm of each selector's own gradient before clipping."""


class RunSpec(Strict):
    """One training run, complete. Its JSON is the run's identity."""

    ablation: Name
    """Name of the arm."""
    seed: int = Field(ge=0)
    """Seed of initial weights, noise and data order."""
    model: ModelSpec
    """The network."""
    objective: Annotated[ObjectiveOptions, OneOf("training/objective")]
    """What training minimises."""
    optimizer: Annotated[OptimizerOptions, OneOf("training/optimizer")]
    """The optimizer."""
    schedule: Annotated[ScheduleOptions, OneOf("training/schedule")]
    """The learning rate over the steps."""
    training: TrainingSpec = TrainingSpec()
    """Length, batch, numerics, checkpoints."""
    telemetry: TelemetrySpec = TelemetrySpec()
    """When the run is observed."""
    start: Annotated[StartOptions, OneOf("training/init/start")] = Field(
        default={"kind": "scratch"}, validate_default=True
    )
    """What the weights are before the first step."""

    @pydantic.model_validator(mode="after")
    def _check_sharding(self) -> Self:
        if self.training.parallel == "fsdp" and not self.optimizer.supports_sharding:
            raise ValueError(f"training.parallel: fsdp splits matrices, and {self.optimizer.kind} needs them whole")
        return self

    @pydantic.model_validator(mode="after")
    def _check_components(self) -> Self:
        needed = self.objective.causal
        if self.model.causal != needed:
            sees = "only what came before" if needed else "the whole block"
            raise ValueError(f"model.causal: {self.objective.kind} needs a model that sees {sees}, so {needed} here")
        for options in options_within(self):
            options.check_run(self)
        return self

    @property
    def parent(self) -> str | None:
        """The ablation whose run of the same seed this run starts from, or None."""
        origin = self.start.origin_options()
        return None if origin is None else origin.parent_ablation()


specs_read: dict[pathlib.Path, Strict] = {}
"""The specs that this process has read, by their files, for the record of what made a stage's files."""


def read_spec(cls: type[Spec], file: pathlib.Path) -> Spec:
    """Read a stage's spec, as the workflow wrote it. Raises ValueError that names the file and the field."""
    try:
        spec = cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
        specs_read[file] = spec
        return spec
    except pydantic.ValidationError as error:
        raise ValueError("\n".join(f"{file}: {path}: {why}" for path, why in config_errors(error))) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: is not a spec: {error}") from None


def canonical_json(spec: Strict) -> str:
    """Return the canonical JSON of a spec: all keys, sorted, so that equal specs have equal bytes."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"
