"""Interface from a trained masked-diffusion model to the samplers, and the data for the figure of unmasking orders.

B texts of T tokens, V words: the token ids without [MASK], the last.
"""

from collections.abc import Callable, Iterator
from typing import cast

import pandas as pd
import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor

from speciate.config.components import config_errors, kinds_in, options_of
from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, MaskedText, SeededDraws, sample
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer
from speciate.training.diffusion import mdlm
from speciate.training.diffusion.adaptive_masking import AdaptiveMasker

FOLDER = "evaluation/sampler"
NUM_STEPS = 32
"""Number of steps, in the figure, of each sampler that takes one."""


def sampler_options(kind: str, **settings: object) -> SamplerOptions:
    """Return the options of a sampler. Raises ValueError naming the kind and the wrong key."""
    try:
        return cast(SamplerOptions, options_of(FOLDER, kind).model_validate({"kind": kind, **settings}))
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(f"{kind}: {path}: {why}" for path, why in config_errors(error))) from None


def denoiser(model: Transformer) -> Denoise:
    """Return the function of tokens that gives log p of every word at every position.

    SUBS: [MASK] has no probability, and a visible token has all of it.
    """
    mask = model.vocabulary - 1

    @torch.no_grad()
    def denoise(token_BT: Tensor) -> Tensor:
        masked_BT = token_BT == mask
        share_B = masked_BT.sum(1) / max(1, token_BT.shape[1] - 1)
        logit_BTV = F.linear(mdlm.denoiser_hidden(model, token_BT, None, share_B), mdlm.word_head_VD(model))
        visible_BTV = F.one_hot(token_BT.masked_fill(masked_BT, 0), mask).to(logit_BTV.dtype).log()
        return logit_BTV.float().log_softmax(-1).where(masked_BT.unsqueeze(-1), visible_BTV)

    return denoise


def importance_function(model: Transformer) -> Callable[[Tensor], Tensor] | None:
    """Return the function of tokens, masks among them, that gives their importance, (B, T).

    It is None if the model has no estimator, or an oracle: a causal model cannot judge tokens before they are there.
    """
    masker = dict(model.parts.items()).get("importance")
    if not isinstance(masker, AdaptiveMasker) or masker.options.importance.needs_oracle:
        return None

    @torch.no_grad()
    def importance(token_BT: Tensor) -> Tensor:
        logit_BT, known_BT = masker.estimates(TokenBatch.of(token_BT))
        importance_BT = torch.zeros(token_BT.shape, dtype=torch.float64, device=token_BT.device)
        if logit_BT is not None:
            importance_BT = importance_BT + F.softplus(logit_BT)
        return importance_BT if known_BT is None else importance_BT + known_BT.double()

    return importance


def unmasking_orders(model: Transformer, first: int, length: int, seed: int) -> pd.DataFrame:
    """Sample one text by every sampler: one row per token, with the step that decided it and its nats at that step.

    Args:
        model: of masked diffusion, in evaluation mode.
        first: the token that each text begins with.
        length: tokens of the text, that one included.
        seed: seed of the draws.

    Returns:
        what (`unmasking_<kind>`), item, position, token, x (step, from 1), y (nats).
    """
    rows = [row for kind in kinds_in(FOLDER) for row in _unmasking_order(model, kind, first, length, seed=seed)]
    return pd.DataFrame(rows, columns=["what", "item", "position", "token", "x", "y"])


def _unmasking_order(
    model: Transformer, kind: str, first: int, length: int, *, seed: int
) -> Iterator[tuple[object, ...]]:
    keys = options_of(FOLDER, kind).model_fields
    options = sampler_options(kind, **({"num_steps": NUM_STEPS} if "num_steps" in keys else {}))
    sampler = options.component().Sampler(options)
    token_1T = torch.full((1, length), model.vocabulary - 1)
    token_1T[0, 0] = first
    answers: list[Tensor] = []
    denoise = denoiser(model)

    def denoise_and_keep(token_BT: Tensor) -> Tensor:
        answers.append(denoise(token_BT))
        return answers[-1]

    text = MaskedText(token_1T, model.vocabulary - 1, importance_function(model))
    draws = SeededDraws(torch.Generator().manual_seed(seed))
    for step, next_text in enumerate(sample(sampler, text, denoise_and_keep, draws), start=1):
        new_T = (text.token_BT != next_text.token_BT)[0]
        for position in new_T.nonzero().flatten().tolist():
            token = int(next_text.token_BT[0, position])
            nats = -float(answers[-1][0, position, token])
            yield (f"unmasking_{kind}", 0, position, token, float(step), nats)
        text = next_text
