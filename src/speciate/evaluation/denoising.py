"""A trained masked-diffusion model as samplers ask it, and one text by every sampler for the picture of its order.

B texts of T tokens, V words: the token ids but [MASK], the last.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pandas as pd
import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor

from speciate.config.components import config_errors, kinds_in, options_of
from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, Seeded, Text, sample
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer
from speciate.training.diffusion import mdlm

FOLDER = "evaluation/sampler"
STEPS = 32
"""Of each sampler that takes a number, in the picture."""


def sampler_options(kind: str, **settings: object) -> SamplerOptions:
    """The options of a sampler. Raises ValueError naming the kind and the key that is wrong."""
    try:
        return cast(SamplerOptions, options_of(FOLDER, kind).model_validate({"kind": kind, **settings}))
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(f"{kind}: {path}: {why}" for path, why in config_errors(error))) from None


def denoiser(model: Transformer) -> Denoise:
    """log p of every word at every position, SUBS: [MASK] has none, and a token that is there is what it is."""
    mask = model.vocabulary - 1

    @torch.no_grad()
    def denoise(token_BT: Tensor) -> Tensor:
        masked_BT = token_BT == mask
        share_B = masked_BT.sum(1) / max(1, token_BT.shape[1] - 1)
        logit_BTV = F.linear(mdlm.hidden(model, token_BT, None, share_B), mdlm.words_VD(model))
        known_BTV = F.one_hot(token_BT.masked_fill(masked_BT, 0), mask).to(logit_BTV.dtype).log()
        return logit_BTV.float().log_softmax(-1).where(masked_BT.unsqueeze(-1), known_BTV)

    return denoise


def importance_of(model: Transformer) -> Callable[[Tensor], Tensor] | None:
    """What the model's estimator says of tokens, masks among them, (B, T); None where it has none.

    Nor has an oracle one: what a causal model thinks of tokens it cannot say before they are there.
    """
    weighing: Any = dict(model.parts.items()).get("importance")
    if weighing is None or weighing.options.importance.needs_oracle:
        return None

    @torch.no_grad()
    def importance(token_BT: Tensor) -> Tensor:
        logit_BT, known_BT = weighing.estimates(TokenBatch.of(token_BT))
        found_BT = torch.zeros(token_BT.shape, dtype=torch.float64, device=token_BT.device)
        if logit_BT is not None:
            found_BT = found_BT + F.softplus(logit_BT)
        return found_BT if known_BT is None else found_BT + known_BT.double()

    return importance


def orders(model: Transformer, first: int, length: int, seed: int) -> pd.DataFrame:
    """One text by every sampler: a row a token, with the step that decided it and its nats at that moment.

    Args:
        model: of masked diffusion, in evaluation mode.
        first: the token that each text begins with.
        length: tokens of the text, that one included.
        seed: of the draws.

    Returns:
        what (`unmasking_<kind>`), item, position, token, x (step, from 1), y (nats).
    """
    rows = [row for kind in kinds_in(FOLDER) for row in _order(model, kind, first, length, seed)]
    return pd.DataFrame(rows, columns=["what", "item", "position", "token", "x", "y"])


def _order(model: Transformer, kind: str, first: int, length: int, seed: int) -> Iterator[tuple[object, ...]]:
    keys = options_of(FOLDER, kind).model_fields
    options = sampler_options(kind, **({"num_steps": STEPS} if "num_steps" in keys else {}))
    sampler = options.component().Sampler(options)
    token_1T = torch.full((1, length), model.vocabulary - 1)
    token_1T[0, 0] = first
    said: list[Tensor] = []
    denoise = denoiser(model)

    def asked(token_BT: Tensor) -> Tensor:
        said.append(denoise(token_BT))
        return said[-1]

    text = Text(token_1T, model.vocabulary - 1, importance_of(model))
    draws = Seeded(torch.Generator().manual_seed(seed))
    for step, after in enumerate(sample(sampler, text, asked, draws), start=1):
        new_T = (text.token_BT != after.token_BT)[0]
        for position in new_T.nonzero().flatten().tolist():
            token = int(after.token_BT[0, position])
            nats = -float(said[-1][0, position, token])
            yield (f"unmasking_{kind}", 0, position, token, float(step), nats)
        text = after
