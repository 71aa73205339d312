"""Complete prompts in batches, up to a stop string; the same text in any batch.

A decoder's prompts are padded on the left, and padding is seen by no token and takes no expert's capacity. A model of
masked diffusion fills as many masks after its prompt as there may be tokens, by one of its samplers, one prompt at a
time.

B prompts, T tokens of the longest, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from speciate.evaluation.denoising import denoiser, importance_function, sampler_options
from speciate.evaluation.sampling import Sampling, next_token_probs
from speciate.evaluation.unmasking import MaskedText, SeededDraws, sample, with_temperature
from speciate.model.hf.generation_cache import GenerationCache
from speciate.model.hf.model_inputs import token_batch
from speciate.model.transformer import Transformer

GREEDY = Sampling(temperature=0)


@dataclass(frozen=True)
class Completing:
    """How prompts are completed."""

    max_tokens: int
    """Most tokens of a completion."""
    stop: tuple[str, ...] = ()
    """A completion ends before the first of these."""
    end: int | None = None
    """Id of the token that ends a text; a completion ends before it."""
    sampling: Sampling = GREEDY
    seed: int = 0
    """Seed of the draws; each prompt has draws of its own."""
    batch: int = 16
    """Prompts that run at once."""
    sampler: str = "random_order"
    """Sampler of masked diffusion: a file of evaluation/sampler."""


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return the text before the first stop string in it."""
    for string in stop:
        text = text.split(string)[0] if string else text
    return text


def complete(model: Transformer, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], how: Completing) -> list[str]:
    """Return what follows each prompt; it may be empty.

    Args:
        model: in evaluation mode.
        tokenizer: turns tokens into text.
        prompts: token ids; each leaves room for `max_tokens` in the model's context.
        how: length, stop strings, draws.

    Raises:
        ValueError: a prompt is empty or leaves too little room, or the sampler does not exist.
    """
    for prompt in prompts:
        if not prompt:
            raise ValueError("a prompt has no tokens to continue")
        if len(prompt) + how.max_tokens > model.context:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and {how.max_tokens} more do not fit into the model's context of "
                f"{model.context} tokens"
            )
    texts = [""] * len(prompts)
    # those of about one length together, the longest first
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    for start in range(0, len(order), how.batch if model.causal else 1):
        chosen = order[start : start + (how.batch if model.causal else 1)]
        fill = _continue if model.causal else _fill_masks
        for index, tokens in zip(
            chosen, fill(model, tokenizer, [prompts[i] for i in chosen], how, numbers=chosen), strict=True
        ):
            kept = tokens[: tokens.index(how.end)] if how.end is not None and how.end in tokens else tokens
            texts[index] = cut_at_stop(tokenizer.decode(kept), how.stop)
    return texts


@torch.no_grad()
def _continue(
    model: Transformer, tokenizer: Tokenizer, prompts: list[Sequence[int]], how: Completing, *, numbers: list[int]
) -> list[list[int]]:
    """Continue prompts, left to right."""
    device = model.token_embedding.weight.device
    longest = max(map(len, prompts))
    id_BT = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask_BT = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    draws = [torch.Generator().manual_seed(how.seed + number) for number in numbers]
    written: list[list[int]] = [[] for _ in prompts]
    rows, cache = list(range(len(prompts))), GenerationCache()
    for _ in range(how.max_tokens):
        tokens = token_batch(id_BT, mask_BT, None, cache, context=model.context)
        x_BTD = model.read(tokens)
        cache.extend(tokens.real_BT, tokens.position_BT)
        logit_BV = model.head(x_BTD[:, -1]).float().cpu()
        for row, logit_V in zip(rows, logit_BV, strict=True):
            written[row].append(_next_token(logit_V, how.sampling, draws[row]))
        going = [place for place, row in enumerate(rows) if not _has_ended(tokenizer, written[row], how)]
        if not going:
            break
        if len(going) < len(rows):
            place_B = torch.tensor(going, device=device)
            cache.select(place_B)
            mask_BT, rows = mask_BT[place_B], [rows[place] for place in going]
        id_BT = torch.tensor([[written[row][-1]] for row in rows], device=device)
        mask_BT = torch.cat([mask_BT, torch.ones_like(id_BT)], dim=1)
    return written


def _next_token(logit_V: Tensor, sampling: Sampling, draws: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logit_V.argmax())
    return int(torch.multinomial(next_token_probs(logit_V, sampling), 1, generator=draws))


def _has_ended(tokenizer: Tokenizer, tokens: list[int], how: Completing) -> bool:
    if tokens[-1] == how.end:
        return True
    # a character has at most 4 bytes, and a token at least one
    tail = tokens[-4 * max(map(len, how.stop), default=0) - 4 :]
    return bool(how.stop) and any(string and string in tokenizer.decode(tail) for string in how.stop)


def _fill_masks(
    model: Transformer, tokenizer: Tokenizer, prompts: list[Sequence[int]], how: Completing, *, numbers: list[int]
) -> list[list[int]]:
    """Fill masks after one prompt, by a sampler."""
    (prompt,), (number,) = prompts, numbers
    mask, options = model.vocabulary - 1, sampler_options(how.sampler)
    device = model.token_embedding.weight.device
    text = MaskedText(
        torch.tensor([[*prompt, *[mask] * how.max_tokens]], device=device), mask, importance_function(model)
    )
    denoise = with_temperature(denoiser(model), how.sampling.temperature)
    draws = SeededDraws(torch.Generator().manual_seed(how.seed + number))
    for after in sample(options.component().Sampler(options), text, denoise, draws):
        text = after
    return [text.token_BT[0, len(prompt) :].tolist()]


def cut_prompts(prompts: Sequence[Sequence[int]], most: int) -> Iterator[Sequence[int]]:
    """Yield the last `most` tokens of each prompt, so that the question at its end is kept."""
    for prompt in prompts:
        yield prompt[-most:]
