"""Masked diffusion (MDLM, Sahoo et al. 2024), with or without an importance that says which tokens are masked (ATAT).

    loss = 1/n sum over blocks, sum_{i masked} (s'(u) d log p_i / d s) (-log p(x_i | visible)),   u stratified in (0, 1]

over the n tokens that may be masked. s(u) is the schedule's share of masked tokens (training/diffusion/noise), p_i how likely
token i is masked then: s itself, or what an importance makes of it (training/diffusion/adaptive_masking.py), whose estimator has a loss
of its own. Evaluation is the same for every arm, whatever it was trained on: the uniform-mask bound on fixed masks
(training/diffusion/mdlm.py, which says why). [MASK] is the last token id.

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
from speciate.selection.selection import recomputation
from speciate.training.diffusion import mask_probabilities, mdlm
from speciate.training.diffusion.adaptive_masking import AdaptiveMasker, MaskProbs
from speciate.training.diffusion.adaptive_masking_published import PublishedAdaptiveMasker
from speciate.training.diffusion.fixed_uniforms import uniforms
from speciate.training.diffusion.mdlm import Noised
from speciate.training.diffusion.time_embedding import TimeEmbedding
from speciate.training.loss.objective import Objective as BaseObjective
from speciate.training.loss.weighted_cross_entropy import weighted

LEVELS = 8
"""Noise levels at which probe blocks are seen."""
LEVEL_KEY, DRAW_KEY = -2, -3
"""Of their draws."""
SHOWN = 8
"""Probe blocks whose single tokens are shown."""


class Options(ObjectiveOptions):
    """Schedule, importance, evaluation."""

    noise: Annotated[NoiseOptions, OneOf("training/diffusion/noise")] = Field(
        default={"kind": "linear"}, validate_default=True
    )
    """How the share of masked tokens runs in time; the bound does not depend on it, the noise of its estimate does."""
    time_conditioning: bool = False
    """Tell the denoiser the share of masked tokens, by an embedding that is added to x; MDLM does not."""
    importance: Annotated[ImportanceOptions, OneOf("training/diffusion/importance")] = Field(
        default={"kind": "none"}, validate_default=True
    )
    """Which tokens matter."""
    masking: Literal["uniform", "importance", "inverse", "balanced"] = "uniform"
    """Which are masked sooner: all alike; the important; the unimportant; balanced: in proportion to it."""
    curriculum: Literal["none", "default", "early", "late"] = "none"
    """Whether training turns from easy to hard tokens, and when: at .3 and .7 of it, .2 and .6, .35 and .8."""
    borders: Annotated[tuple[float, float], Strict(False)] | None = None
    """Shares of the training at which the second and the third stage begin, instead of the curriculum's; a border
    belongs to the later stage."""
    mode: Literal["repaired", "as_published"] = "repaired"
    """Budgets kept and the estimator trained on nats, or the original's formulas (training/diffusion/adaptive_masking_published.py)."""
    target: Literal["masked", "uniform"] = "masked"
    """Where the estimator's nats come from: the masked tokens themselves, or a second pass with all masked alike."""
    importance_weight: float = Field(0.1, gt=0)
    """Of the estimator's loss."""
    cap: float = Field(4.0, gt=1)
    """An importance counts as at most so many times its row's mean, and at least as its share of it by this number."""
    eval_draws: int = Field(16, ge=4, multiple_of=2)
    """Fixed sets of masks that each block is evaluated with."""
    chunk: int = Field(512, ge=1)
    """Tokens whose logits are held at once."""

    causal: ClassVar[bool] = False
    """The denoiser sees the whole block."""
    extra_tokens: ClassVar[int] = 1
    """[MASK]."""

    @model_validator(mode="after")
    def _crossings(self) -> Self:
        asked = {"masking": self.masking != "uniform", "curriculum": self.curriculum != "none"}
        asked |= {"borders": self.borders is not None, "mode": self.mode != "repaired"}
        for key, set_ in asked.items():
            if set_ and not self.importance.has_selector:
                raise ValueError(f"{key}: acts by an importance, and importance {self.importance.kind} is none")
        if self.borders is not None and self.curriculum == "none":
            raise ValueError("borders: are those of a curriculum, and there is none")
        if self.borders is not None and not 0 < self.borders[0] < self.borders[1] < 1:
            raise ValueError(f"borders: stages must follow each other within (0, 1), not at {list(self.borders)}")
        if self.mode == "as_published" and not self.importance.published:
            raise ValueError(f"mode: the original has no importance {self.importance.kind}")
        if self.mode == "as_published" and self.target != "masked":
            raise ValueError("target: as published it is the mask bit, in place of nats")
        return self

    def needs_oracle(self) -> bool:
        """Return whether the importance asks a causal model."""
        return self.importance.needs_oracle

    def check_run(self, run: Any) -> None:
        """Refuses an importance whose estimator would be split among processes."""
        if self.importance.has_selector and run.training.parallel == "fsdp":
            raise ValueError("objective.importance: its estimator is not split among processes; use parallel: ddp")


def parts(options: Options, run: Any) -> dict[str, Callable[[BuildContext], nn.Module]]:
    """What the objective adds to the model: an importance, an embedding of time, or nothing."""
    found: dict[str, Callable[[BuildContext], nn.Module]] = {}
    if options.importance.has_selector:
        selector = PublishedAdaptiveMasker if options.mode == "as_published" else AdaptiveMasker
        found["importance"] = lambda place: selector(options, place)
    if options.time_conditioning:
        found["time"] = TimeEmbedding
    return found


class Objective(BaseObjective):
    """The loss, the bound, and what is seen on probe blocks."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options, self.chunk = options, options.chunk
        self.num_pairs = options.eval_draws // 2
        self.published = options.mode == "as_published"

    def forward(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """The mean weighted nats, a scalar with gradient; 0 where nothing may be masked."""
        uniform_B, draw_BT = self.drawn(token_BT)
        share_B, slope_B = self.options.noise.component().at(self.options.noise, uniform_B)
        noised, rated = self.noised(model, token_BT, document_BT, share_B, slope_B, draw_BT)
        total, nats_BT = self.denoise(model, noised)
        self.weigh(model, noised, rated, nats_BT)
        return total / max(1, int(noised.maskable_BT.sum()))

    def drawn(self, token_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Times (B,), stratified over this process's micro-batch, and what decides each token's mask (B, T)."""
        uniform_B = mdlm.stratified(len(token_BT), token_BT.device)
        return uniform_B, torch.rand(token_BT.shape, dtype=torch.float64, device=token_BT.device)

    def noised(
        self,
        model: Transformer,
        token_BT: Tensor,
        document_BT: Tensor | None,
        share_B: Tensor,
        slope_B: Tensor,
        draw_BT: Tensor,
    ) -> tuple[Noised, MaskProbs | None]:
        """Masks, where a draw is below its token's chance; `slope_B` is that of `share_B` in time."""
        document_BT = document_BT if model.separate_documents else None
        maskable_BT = mdlm.maskable(model, token_BT, document_BT)
        rated = None
        if "importance" in model.parts:
            rated = model.parts["importance"].rate(model.tokens(token_BT, document_BT), maskable_BT, share_B)  # type: ignore[operator]
            prob_BT, weight_BT = rated.prob_BT, rated.slope_BT
        else:
            prob_BT, weight_BT = mask_probabilities.uniform(maskable_BT, share_B)
        if not self.published:
            weight_BT = weight_BT * slope_B.unsqueeze(1)
        masked_BT = draw_BT < prob_BT
        noisy_BT = token_BT.masked_fill(masked_BT, model.vocabulary - 1)
        return Noised(token_BT, noisy_BT, document_BT, maskable_BT, masked_BT, weight_BT, share_B), rated

    def denoise(self, model: Transformer, noised: Noised) -> tuple[Tensor, Tensor]:
        """(sum of weighted nats, with gradient; the nats of each predicted token, (B, T), without)."""
        predicted_BT = noised.maskable_BT if self.published else noised.masked_BT
        x_BTD = mdlm.hidden(model, noised.noisy_BT, noised.document_BT, noised.share_B)
        # after the model has run: with fsdp it is whole only then
        head_VD = model.head_VD if self.published else mdlm.words_VD(model)
        targets = (noised.token_BT[predicted_BT], noised.weight_BT[predicted_BT])
        total, nats_N = weighted(x_BTD[predicted_BT], head_VD, *targets, self.chunk)
        return total, nats_N.new_zeros(noised.token_BT.shape).masked_scatter_(predicted_BT, nats_N)

    def weigh(self, model: Transformer, noised: Noised, rated: MaskProbs | None, nats_BT: Tensor) -> None:
        """Lets the importance learn and report."""
        if rated is None:
            return
        loss_mask_BT = noised.masked_BT
        if self.options.target == "uniform" and model.training:
            draw_BT = torch.rand(loss_mask_BT.shape, dtype=torch.float64, device=loss_mask_BT.device)
            loss_mask_BT = noised.maskable_BT & (draw_BT < noised.share_B.unsqueeze(1))
            with recomputation():
                nats_BT = mdlm.masked_nats(
                    model, noised.token_BT, noised.document_BT, loss_mask_BT, noised.share_B, self.chunk
                )
        model.parts["importance"](noised, rated, nats_BT, loss_mask_BT)

    def loss_mask(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Which predictions count, (B, T - 1) boolean: of all tokens but a context's first."""
        return mdlm.maskable(model, token_BT, document_BT)[:, 1:]

    def token_nll(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Each token's part of the uniform-mask bound, (B, T - 1), the mean over the fixed draws; without gradient."""
        return self.nll_estimates(model, token_BT, document_BT).mean(0)

    def nll_estimates(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Independent unbiased estimates of `nats`, (draws, B, T - 1), whose spread gives its standard error.

        A draw is a pair of masks. Over the draws their sizes are stratified, so the error is an upper estimate.
        """
        return mdlm.bounds(model, token_BT, document_BT, self.num_pairs, self.chunk)[0][:, :, 1:]

    @property
    def is_estimated(self) -> bool:
        """True: the bound is a mean over random masks."""
        return True

    @torch.no_grad()
    def run_probe(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> None:
        """Runs importance and denoiser on masks that depend on the blocks alone, at one of 8 noise levels each."""
        share_B = ((uniforms(token_BT, LEVEL_KEY)[:, 0] * LEVELS).floor() + 0.5) / LEVELS
        draw_BT = uniforms(token_BT, DRAW_KEY)
        noised, rated = self.noised(model, token_BT, document_BT, share_B, torch.ones_like(share_B), draw_BT)
        _, nats_BT = self.denoise(model, noised)
        self.weigh(model, noised, rated, nats_BT)

    @torch.no_grad()
    def details(self, model: Transformer, blocks: BlockSet) -> pd.DataFrame:
        """Each token's importance (x) and mean nats when masked (y), in the first probe blocks; none without one."""
        device = model.head_VD.device
        token_BT = torch.from_numpy(blocks.tokens[:SHOWN]).to(device)
        document_BT = torch.from_numpy(blocks.document[:SHOWN]).long().to(device)
        if "importance" not in model.parts:
            return pd.DataFrame({name: [] for name in ("what", "item", "position", "token", "x", "y")})
        half_B = torch.full((len(token_BT),), 0.5, dtype=torch.float64, device=device)
        noised, rated = self.noised(model, token_BT, document_BT, half_B, half_B, uniforms(token_BT, DRAW_KEY))
        assert rated is not None
        _, nats_BT = mdlm.bounds(model, token_BT, document_BT, self.num_pairs, self.chunk)
        item_N, position_N = noised.maskable_BT.nonzero().T
        shown = {"item": item_N, "position": position_N, "token": token_BT[item_N, position_N]}
        shown |= {"x": rated.importance_BT[item_N, position_N], "y": nats_BT[item_N, position_N]}
        return pd.DataFrame({"what": "importance"} | {name: value.cpu().numpy() for name, value in shown.items()})
