"""Masked diffusion (MDLM, Sahoo et al. 2024), with or without an importance that decides the masks (ATAT).

    loss = 1/n sum over blocks, sum_{i masked} (s'(u) d log p_i / d s) (-log p(x_i | visible)),   u stratified in (0, 1]

over the n tokens that may be masked. s(u) is the schedule's share of masked tokens (training/diffusion/noise). p_i is
the probability that token i is masked then: s itself, or a function of an importance
(training/diffusion/adaptive_masking.py), whose estimator has its own loss. Evaluation is the same for every arm,
whatever it was trained on: the uniform-mask bound on fixed masks (training/diffusion/mdlm.py gives the reason). [MASK]
is the last token id.

B blocks of T tokens, S = T - 1 predictions each, N masked tokens.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

import pandas as pd
import torch
from pydantic import Field, Strict, model_validator
from torch import Tensor, nn

from speciate.config.components import OneOf
from speciate.config.contracts.training import ImportanceOptions, NoiseOptions, ObjectiveOptions
from speciate.data.blocks import BlockSet
from speciate.model.token_batch import BuildContext
from speciate.model.transformer import Transformer
from speciate.selection.selection import mark_recomputation
from speciate.training.diffusion import mask_probabilities, mdlm
from speciate.training.diffusion.adaptive_masking import AdaptiveMasker, MaskProbs
from speciate.training.diffusion.adaptive_masking_published import PublishedAdaptiveMasker
from speciate.training.diffusion.fixed_uniforms import uniforms
from speciate.training.diffusion.mdlm import NoisyBlocks
from speciate.training.diffusion.time_embedding import TimeEmbedding
from speciate.training.loss.cross_entropy import weighted_nll
from speciate.training.objective_base import Objective as BaseObjective

PROBE_LEVELS = 8
"""Noise levels at which probe blocks are observed."""
LEVEL_KEY, DRAW_KEY = -2, -3
"""Keys of the probe's fixed draws: of its noise levels, and of its masks."""
SHOWN_BLOCKS = 8
"""Probe blocks whose single tokens are shown."""


class Options(ObjectiveOptions):
    """Options of masked diffusion: schedule, importance, evaluation."""

    noise: Annotated[NoiseOptions, OneOf("training/diffusion/noise")] = Field(
        default={"kind": "linear"}, validate_default=True
    )
    """Share of masked tokens over time. The bound does not depend on it; the variance of its estimate does."""
    time_conditioning: bool = False
    """Tell the denoiser the share of masked tokens, by an embedding that is added to x; MDLM does not."""
    importance: Annotated[ImportanceOptions, OneOf("training/diffusion/importance")] = Field(
        default={"kind": "none"}, validate_default=True
    )
    """Estimator of each token's importance, by which tokens are masked."""
    masking: Literal["uniform", "importance", "inverse", "balanced"] = "uniform"
    """Which tokens are masked sooner. uniform: all alike; importance: the important ones; inverse: the unimportant
    ones; balanced: each in proportion to its importance."""
    curriculum: Literal["none", "default", "early", "late"] = "none"
    """Whether training moves from easy to hard tokens, and at which shares of the training. default: .3 and .7;
    early: .2 and .6; late: .35 and .8."""
    borders: Annotated[tuple[float, float], Strict(False)] | None = None
    """Shares of the training at which the second and the third stage begin, in place of the curriculum's own; a border
    belongs to the later stage."""
    mode: Literal["repaired", "as_published"] = "repaired"
    """repaired: mask budgets are kept and the estimator is trained on nats; as_published: the original's formulas
    (training/diffusion/adaptive_masking_published.py)."""
    target: Literal["masked", "uniform"] = "masked"
    """Tokens whose nats the estimator is trained on. masked: the masked tokens themselves; uniform: those of a second
    pass in which every token has the same mask probability."""
    importance_weight: float = Field(0.1, gt=0)
    """Weight of the estimator's loss."""
    cap: float = Field(4.0, gt=1)
    """Largest ratio of a token's importance to its row's mean; the smallest ratio is its inverse."""
    eval_draws: int = Field(16, ge=4, multiple_of=2)
    """Number of fixed masks that each block is evaluated with."""
    chunk: int = Field(512, ge=1)
    """Tokens whose logits are held in memory at once."""

    causal: ClassVar[bool] = False
    """Whether it needs a model in which each position sees only those before it; the denoiser sees the whole block."""
    extra_tokens: ClassVar[int] = 1
    """Token ids that it needs beyond the tokenizer's: [MASK]."""

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        acting = {"masking": self.masking != "uniform", "curriculum": self.curriculum != "none"}
        acting |= {"borders": self.borders is not None, "mode": self.mode != "repaired"}
        for key, is_set in acting.items():
            if is_set and not self.importance.has_selector:
                raise ValueError(f"{key}: needs an importance, and importance is {self.importance.kind}")
        if self.borders is not None and self.curriculum == "none":
            raise ValueError("borders: need a curriculum, and curriculum is none")
        if self.borders is not None and not 0 < self.borders[0] < self.borders[1] < 1:
            raise ValueError(f"borders: must rise strictly within (0, 1), and are {list(self.borders)}")
        if self.mode == "as_published" and not self.importance.published:
            raise ValueError(f"mode: the original has no importance {self.importance.kind}")
        if self.mode == "as_published" and self.target != "masked":
            raise ValueError("target: mode as_published trains the estimator on the mask bit, so leave target out")
        return self

    def needs_oracle(self) -> bool:
        """Return whether the importance asks a causal model."""
        return self.importance.needs_oracle

    def check_run(self, run: Any) -> None:
        """Refuse an importance whose estimator would be split among processes."""
        if self.importance.has_selector and run.training.parallel == "fsdp":
            raise ValueError("objective.importance: its estimator cannot be split among processes; use parallel: ddp")


def parts(options: Options, run: Any) -> dict[str, Callable[[BuildContext], nn.Module]]:
    """Return what the objective adds to the model: an importance, an embedding of time, or nothing."""
    builders: dict[str, Callable[[BuildContext], nn.Module]] = {}
    if options.importance.has_selector:
        selector = PublishedAdaptiveMasker if options.mode == "as_published" else AdaptiveMasker
        builders["importance"] = lambda context: selector(options, context)
    if options.time_conditioning:
        builders["time"] = TimeEmbedding
    return builders


class Objective(BaseObjective):
    """The loss, the bound, and the pass over probe blocks."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options, self.chunk = options, options.chunk
        self.num_pairs = options.eval_draws // 2
        self.published = options.mode == "as_published"

    def forward(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return the mean weighted nats, a scalar with gradient; 0 where nothing may be masked."""
        uniform_B, draw_BT = self.draw_noise(token_BT)
        share_B, slope_B = self.options.noise.component().mask_share(self.options.noise, uniform_B)
        noisy, probs = self.add_noise(model, token_BT, document_BT, share_B, slope_B=slope_B, draw_BT=draw_BT)
        total, nats_BT = self.denoise(model, noisy)
        self.run_importance(model, noisy, probs, nats_BT)
        return total / max(1, int(noisy.maskable_BT.sum()))

    def draw_noise(self, token_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Draw times (B,), stratified over this process's micro-batch, and the numbers that decide masks (B, T)."""
        uniform_B = mdlm.stratified_times(len(token_BT), token_BT.device)
        return uniform_B, torch.rand(token_BT.shape, dtype=torch.float64, device=token_BT.device)

    def add_noise(
        self,
        model: Transformer,
        token_BT: Tensor,
        document_BT: Tensor | None,
        share_B: Tensor,
        *,
        slope_B: Tensor,
        draw_BT: Tensor,
    ) -> tuple[NoisyBlocks, MaskProbs | None]:
        """Mask each token whose draw is below its probability; `slope_B` is the slope of `share_B` in time."""
        document_BT = document_BT if model.separate_documents else None
        maskable_BT = mdlm.maskable_tokens(model, token_BT, document_BT)
        probs: MaskProbs | None = None
        if "importance" in model.parts:
            tokens = model.tokens(token_BT, document_BT)
            probs = model.parts["importance"].mask_probs(tokens, maskable_BT, share_B)  # type: ignore[operator]
            assert probs is not None
            prob_BT, weight_BT = probs.prob_BT, probs.slope_BT
        else:
            prob_BT, weight_BT = mask_probabilities.uniform_probs(maskable_BT, share_B)
        if not self.published:
            weight_BT = weight_BT * slope_B.unsqueeze(1)
        masked_BT = draw_BT < prob_BT
        noisy_BT = token_BT.masked_fill(masked_BT, model.vocabulary - 1)
        return NoisyBlocks(token_BT, noisy_BT, document_BT, maskable_BT, masked_BT, weight_BT, share_B), probs

    def denoise(self, model: Transformer, noisy: NoisyBlocks) -> tuple[Tensor, Tensor]:
        """Return the sum of weighted nats, with gradient, and each predicted token's nats, (B, T), without."""
        predicted_BT = noisy.maskable_BT if self.published else noisy.masked_BT
        x_BTD = mdlm.denoiser_hidden(model, noisy.noisy_BT, noisy.document_BT, noisy.share_B)
        # after the model has run: with fsdp the head's weight is complete only then
        head_VD = model.head_VD if self.published else mdlm.word_head_VD(model)
        target_N, weight_N = noisy.token_BT[predicted_BT], noisy.weight_BT[predicted_BT]
        total, nats_N = weighted_nll(x_BTD[predicted_BT], head_VD, target_N, weight_N, chunk=self.chunk)
        return total, nats_N.new_zeros(noisy.token_BT.shape).masked_scatter_(predicted_BT, nats_N)

    def run_importance(self, model: Transformer, noisy: NoisyBlocks, probs: MaskProbs | None, nats_BT: Tensor) -> None:
        """Run the importance's selector, if there is one, so that it computes its loss and reports."""
        if probs is None:
            return
        loss_mask_BT = noisy.masked_BT
        if self.options.target == "uniform" and model.training:
            draw_BT = torch.rand(loss_mask_BT.shape, dtype=torch.float64, device=loss_mask_BT.device)
            loss_mask_BT = noisy.maskable_BT & (draw_BT < noisy.share_B.unsqueeze(1))
            with mark_recomputation():
                nats_BT = mdlm.masked_nll(
                    model, noisy.token_BT, noisy.document_BT, loss_mask_BT, share_B=noisy.share_B, chunk=self.chunk
                )
        model.parts["importance"](noisy, probs, nats_BT, loss_mask_BT)

    def loss_mask(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return which predictions count, (B, T - 1) boolean: those of all tokens but a context's first."""
        return mdlm.maskable_tokens(model, token_BT, document_BT)[:, 1:]

    def token_nll(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return each token's part of the uniform-mask bound, (B, T - 1), the mean over fixed masks; no gradient."""
        return self.nll_estimates(model, token_BT, document_BT).mean(0)

    def nll_estimates(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return unbiased estimates of `token_nll`, (pairs, B, T - 1), whose spread gives its standard error.

        Each estimate uses one pair of masks. Over the pairs the masks' sizes are stratified, so the standard error is
        an upper estimate.
        """
        return mdlm.nelbo_estimates(model, token_BT, document_BT, self.num_pairs, chunk=self.chunk)[0][:, :, 1:]

    @property
    def is_estimated(self) -> bool:
        """True: the bound is a mean over random masks."""
        return True

    @torch.no_grad()
    def run_probe(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> None:
        """Run importance and denoiser at one of 8 noise levels per block, on masks that the block alone decides."""
        self.probe_nll(model, token_BT, document_BT)

    @torch.no_grad()
    def probe_nll(
        self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each token's nats and which tokens are masked, (B, T - 1) each, in the pass of `run_probe`."""
        share_B = ((uniforms(token_BT, LEVEL_KEY)[:, 0] * PROBE_LEVELS).floor() + 0.5) / PROBE_LEVELS
        draw_BT = uniforms(token_BT, DRAW_KEY)
        noisy, probs = self.add_noise(
            model, token_BT, document_BT, share_B, slope_B=torch.ones_like(share_B), draw_BT=draw_BT
        )
        _, nats_BT = self.denoise(model, noisy)
        self.run_importance(model, noisy, probs, nats_BT)
        return nats_BT[:, 1:], noisy.masked_BT[:, 1:]

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """The 8 levels at which probe blocks are observed."""
        return tuple((level + 0.5) / PROBE_LEVELS for level in range(PROBE_LEVELS))

    @torch.no_grad()
    def run_at_level(
        self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None, level: float
    ) -> tuple[Tensor, Tensor]:
        """Run the denoiser with the probe's masks at one noise level; return which tokens are masked and may be."""
        share_B = torch.full((len(token_BT),), level, dtype=torch.float64, device=token_BT.device)
        draw_BT = uniforms(token_BT, DRAW_KEY)
        noisy, _ = self.add_noise(
            model, token_BT, document_BT, share_B, slope_B=torch.ones_like(share_B), draw_BT=draw_BT
        )
        mdlm.denoiser_hidden(model, noisy.noisy_BT, noisy.document_BT, share_B)
        return noisy.masked_BT, noisy.maskable_BT

    @torch.no_grad()
    def details(self, model: Transformer, blocks: BlockSet) -> pd.DataFrame:
        """Return each token's importance (x) and mean nats when masked (y), in the first probe blocks.

        Without an importance the table is empty.
        """
        device = model.head_VD.device
        token_BT = torch.from_numpy(blocks.tokens[:SHOWN_BLOCKS]).to(device)
        document_BT = torch.from_numpy(blocks.document[:SHOWN_BLOCKS]).long().to(device)
        if "importance" not in model.parts:
            return pd.DataFrame({name: [] for name in ("what", "item", "position", "token", "x", "y")})
        half_B = torch.full((len(token_BT),), 0.5, dtype=torch.float64, device=device)
        noisy, probs = self.add_noise(
            model, token_BT, document_BT, half_B, slope_B=half_B, draw_BT=uniforms(token_BT, DRAW_KEY)
        )
        assert probs is not None
        _, nats_BT = mdlm.nelbo_estimates(model, token_BT, document_BT, self.num_pairs, chunk=self.chunk)
        item_N, position_N = noisy.maskable_BT.nonzero().T
        columns = {"item": item_N, "position": position_N, "token": token_BT[item_N, position_N]}
        columns |= {"x": probs.importance_BT[item_N, position_N], "y": nats_BT[item_N, position_N]}
        return pd.DataFrame({"what": "importance"} | {name: value.cpu().numpy() for name, value in columns.items()})
