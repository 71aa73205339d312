"""Associative recall on fresh texts (MQAR: Arora et al. 2023, "Zoology", arXiv 2312.04927).

The model reads texts as the source `recall` writes them (data/recall_texts.py), drawn from another seed. Metric
`accuracy` is the share of a text's answers that are the likeliest token after their keys; its chance is 1 / values.
Metric `nats_per_token` is the loss of the answers alone. Each number of pairs is a part.

T symbols of a text, D pairs.
"""

from typing import Annotated

import numpy as np
import pandas as pd
import pydantic
import torch
from pydantic import Field

from speciate.config.contracts.evaluation import TaskOptions
from speciate.data.recall_options import RecallOptions
from speciate.data.recall_texts import draw_texts
from speciate.evaluation.long_context.answering import check_reader, hidden_at, why_too_long
from speciate.evaluation.long_context.scores import with_reasons
from speciate.evaluation.subject import Subject

BATCH_TOKENS = 2**14
"""Number of tokens that the model reads at once, if a text is not longer."""


class Options(RecallOptions, TaskOptions):
    """The texts; symbols and gaps must be those of the source that the run was trained on."""

    pairs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], pydantic.Strict(False)] = Field((8,), min_length=1)
    """Numbers of pairs of a text."""
    lengths: Annotated[tuple[Annotated[int, Field(ge=4)], ...], pydantic.Strict(False)] = Field((63,), min_length=1)
    """Numbers of symbols of a text. A length that the model or the pairs do not fit is left out."""
    questions: int = Field(128, ge=1)
    """Number of texts of each number of pairs and each length."""
    seed: int = Field(0, ge=0)
    """Seed of the texts; they differ from those of the source, whatever its seed is."""


def evaluate(options: Options, subject: Subject) -> pd.DataFrame:
    """Return the accuracy and the loss of each text's answers.

    Raises:
        ValueError: the model cannot answer after a context, the tokenizer does not give each symbol a token, or no
            length fits.
    """
    check_reader(subject.run)
    rows: list[dict[str, object]] = []
    reasons = []
    for num_pairs in options.pairs:
        for length in options.lengths:
            reason = why_too_long(length, subject.model.context)
            # four numbers, where the source has two, so that no seed gives the texts of a source
            draw = np.random.Generator(np.random.Philox([options.seed, num_pairs, length, 1]))
            try:
                if reason is None:
                    texts, answer_ND = draw_texts(options, num_pairs, length, options.questions, draw=draw)
            except ValueError as error:
                reason = str(error)
            if reason is not None:
                reasons.append(reason)
                continue
            encoded = subject.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            tokens = [text.ids for text in encoded]
            if any(len(ids) != length for ids in tokens):
                raise ValueError(
                    "tokenizer: must give each symbol one token, as {kind: bpe, entries: 257} does on texts of recall"
                )
            exact_N, nats_N = score_answers(subject, torch.tensor(tokens), torch.from_numpy(answer_ND))
            for number, (exact, nats) in enumerate(zip(exact_N.tolist(), nats_N.tolist(), strict=True)):
                item = f"text{number}"
                facts = {"part": f"pairs{num_pairs}", "item": item, "group": item, "length": length}
                facts |= {"depth": float("nan"), "weight": float(num_pairs)}
                rows.append({**facts, "metric": "accuracy", "value": exact, "chance": 1 / options.num_values})
                rows.append({**facts, "metric": "nats_per_token", "value": nats, "chance": float("nan")})
    return with_reasons(rows, reasons)


@torch.no_grad()
def score_answers(
    subject: Subject, token_NT: torch.Tensor, answer_ND: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the share of each text's answers that are the likeliest token, and their mean nats, (N,) each."""
    exact, nats = [], []
    size = max(1, BATCH_TOKENS // token_NT.shape[1])
    for start in range(0, len(token_NT), size):
        token_BT = token_NT[start : start + size].to(subject.device)
        answer_BD = answer_ND[start : start + size].to(subject.device)
        logit_BDV = subject.model.head(hidden_at(subject.model, token_BT, answer_BD - 1)).float()
        right_BD = token_BT.gather(1, answer_BD)
        exact.append((logit_BDV.argmax(-1) == right_BD).double().mean(1).cpu())
        nll_BD = -logit_BDV.log_softmax(-1).gather(2, right_BD.unsqueeze(-1)).squeeze(-1)
        nats.append(nll_BD.double().mean(1).cpu())
    return torch.cat(exact), torch.cat(nats)
