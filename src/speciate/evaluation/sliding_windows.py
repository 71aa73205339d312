"""Score whole documents with a model whose context is shorter, by windows that slide over them.

A window of W tokens advances by S. The first one predicts its tokens 1 to W - 1, and each later one only the S tokens
that no earlier window has seen, after W - S tokens of context. So every token but a document's first is predicted once.
(Hugging Face's "Perplexity of fixed-length models" describes it; the windows and sums here are the same.) Windows of
one length are computed together, without padding.

Decision: a stride of W means that windows share one token, since a window's first token is never predicted. Hugging
Face's windows then share none, and leave out one token in W.

L tokens of a text, B windows of T tokens, E estimates, N predicted tokens.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speciate.model.mtp_heads import prediction_heads
from speciate.model.token_batch import in_domains
from speciate.model.transformer import Transformer
from speciate.training.loss.cross_entropy import per_token_nll
from speciate.training.objective_base import Objective

TOKENS_AT_ONCE = 4096
"""Tokens of the windows that are computed together, unless one window has more."""
CHUNK = 512
"""Tokens of a further head whose logits are held in memory at once."""


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start` to `stop` of a text, of which those from `first` on are predicted."""

    text: int
    """Index of the text."""
    start: int
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclasses.dataclass(frozen=True)
class TextLoss:
    """What the tokens of one text cost, in nats."""

    nats_E: npt.NDArray[np.float64]
    """Sum over the predicted tokens, in each independent estimate; one where the loss is exact."""
    tokens: int
    """Number of predicted tokens: all but the first."""
    head_nats: dict[int, float]
    """Further head, by its distance -> the sum over the tokens that it predicts."""
    head_tokens: dict[int, int]
    """Further head -> number of the tokens that it predicts."""


def add(losses: Sequence[TextLoss]) -> TextLoss:
    """Return the loss of several texts together. With estimates, the first of each are added, and so on."""
    heads = losses[0].head_nats
    return TextLoss(
        np.sum([loss.nats_E for loss in losses if loss.tokens], axis=0),
        sum(loss.tokens for loss in losses),
        {head: sum(loss.head_nats[head] for loss in losses) for head in heads},
        {head: sum(loss.head_tokens[head] for loss in losses) for head in heads},
    )


def slide(length: int, window: int, stride: int, text: int = 0) -> Iterator[Window]:
    """Yield the windows over a text of `length` tokens; none over fewer than two.

    Args:
        length: number of tokens.
        window: largest number of tokens of a window, at least 2.
        stride: tokens by which a window advances, 1 to `window`.
        text: the text's index.
    """
    assert 1 <= stride <= window >= 2, (stride, window)
    start, first = 0, 1
    while first < length:
        stop = min(start + window, length)
        yield Window(text, start, first, stop)
        start, first = start + min(stride, window - 1), stop


def batches_of_one_length(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Yield the windows, longest first, in batches of one length."""
    by_length: dict[int, list[Window]] = {}
    for window in windows:
        by_length.setdefault(len(window), []).append(window)
    for length in sorted(by_length, reverse=True):
        size = max(1, TOKENS_AT_ONCE // length)
        for start in range(0, len(by_length[length]), size):
            yield by_length[length][start : start + size]


@torch.no_grad()
def score_texts(
    model: Transformer,
    objective: Objective,
    texts: Sequence[npt.NDArray[np.integer]],
    *,
    window: int,
    stride: int,
    domains: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
) -> list[TextLoss]:
    """Return the loss of `model` on every text.

    Args:
        model: in evaluation mode.
        objective: gives each predicted token's loss, or independent estimates of its bound.
        texts: token ids of each text, (L,).
        window: largest number of tokens that the model sees at once.
        stride: tokens by which the window advances.
        domains: index of each text's domain, for a router that sees it; None: unknown.
        device: the model's device.
    """
    windows = [each for index, tokens in enumerate(texts) for each in slide(len(tokens), window, stride, index)]
    heads = prediction_heads(model)
    nats: list[npt.NDArray[np.float64]] = [np.zeros(1) for _ in texts]
    head_nats = [dict.fromkeys((head.ahead for head in heads), 0.0) for _ in texts]
    head_tokens = [dict.fromkeys((head.ahead for head in heads), 0) for _ in texts]
    for batch in batches_of_one_length(windows):
        rows = [np.asarray(texts[each.text][each.start : each.stop], np.int64) for each in batch]
        token_BT = torch.from_numpy(np.stack(rows)).to(device)
        domain_B = None if domains is None else torch.tensor([domains[each.text] for each in batch], device=device)
        with in_domains(domain_B):
            nll_EBS = objective.nll_estimates(model, token_BT, torch.zeros_like(token_BT)).double().cpu().numpy()
            nll_of_head = {ahead: nll_BS.double().cpu().numpy() for ahead, nll_BS in _head_nll(model, token_BT)}
        for row, each in enumerate(batch):
            # column s of S = T - 1 predicts token s + 1 of the window; column s of head i predicts token s + 1 + i
            column = each.first - each.start - 1
            nats[each.text] = nats[each.text] + nll_EBS[:, row, column:].sum(1)
            for ahead, nll_BS in nll_of_head.items():
                of_head = nll_BS[row, max(0, column - ahead) :]
                head_nats[each.text][ahead] += float(of_head.sum())
                head_tokens[each.text][ahead] += len(of_head)
    return [
        TextLoss(nats[index], max(0, len(tokens) - 1), head_nats[index], head_tokens[index])
        for index, tokens in enumerate(texts)
    ]


def _head_nll(model: Transformer, token_BT: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each further head's number and its nats, (B, T - 1 - number), where the windows have a token for it."""
    heads = [head for head in prediction_heads(model) if head.ahead + 1 < token_BT.shape[1]]
    if not heads:
        return
    tokens = model.tokens(token_BT, torch.zeros_like(token_BT))
    trunk_BTD, x_BTD = model.trunk_and_hidden(tokens)
    for head in heads:
        input_BTD = head.read(trunk_BTD, x_BTD, tokens)[:, : -1 - head.ahead]
        target_N = token_BT[:, 1 + head.ahead :].flatten()
        nll_N = per_token_nll(input_BTD.flatten(0, 1), head.weight(model), target_N, CHUNK)
        yield head.ahead, nll_N.view(len(token_BT), -1)
