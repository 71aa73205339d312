"""Copying in context: random tokens are shown twice, and the model is asked for the second copy (Olsson et al. 2022).

    question:  x_1 .. x_n x_1 .. x_n,   x_i independent draws from the tokens of the study's own test set
    accuracy:  share of i = 2 .. n for which argmax p(. | x_1 .. x_n x_1 .. x_{i-1}) = x_i
    gain:      mean over the same i of log p(x_i | second copy) - log p(x_i | first copy), in nats per token

The tokens are independent, so nothing but the first copy tells the second. A model that does not look at the context
does best by always naming the most frequent token: that token's frequency is the chance of the accuracy. It gains
nothing, so the chance of the gain is 0. Attention heads that copy so (induction heads) are what the probe was made for.
The first token of the second copy is not asked for, since nothing says that a copy begins.

Q questions of T = 2 n tokens, V vocabulary.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
import pydantic
import torch
import torch.nn.functional as F
from pydantic import Field

from speciate.config.components import options_within
from speciate.config.contracts.evaluation import TaskOptions
from speciate.evaluation.subject import Subject
from speciate.training.probe import batches


class Options(TaskOptions):
    """How long the copies are, and how many questions there are."""

    lengths: Annotated[tuple[Annotated[int, Field(ge=4, multiple_of=2)], ...], pydantic.Strict(False)] = Field(
        (16, 32, 64), min_length=1
    )
    """Lengths of a question in tokens, both copies together."""
    questions: int = Field(64, ge=1)
    """Number of questions of each length."""
    seed: int = Field(0, ge=0)
    """Seed of the random tokens. All runs of a study get the same questions."""


def evaluate(options: Options, subject: Subject) -> pd.DataFrame:
    """Return the accuracy and the gain of each question.

    Raises:
        ValueError: the model does not predict from left to right, looks at later tokens, or has a shorter context.
    """
    if not subject.model.causal or any(part.looks_ahead() for part in options_within(subject.run)):
        raise ValueError("copying: asks for the next token, and this model also sees later ones")
    longest = max(options.lengths)
    if longest > subject.model.context:
        raise ValueError(f"lengths: {longest} tokens are more than the model's context, {subject.model.context}")
    token_P, count_P = np.unique(subject.test.tokens, return_counts=True)
    frequency_P = count_P / count_P.sum()
    rows = []
    for length in dict.fromkeys(options.lengths):
        random = np.random.default_rng([options.seed, length])
        half_Qn = token_P[random.choice(len(token_P), (options.questions, length // 2), p=frequency_P)]
        accuracy_Q, gain_Q = accuracy_and_gain(subject, half_Qn)
        scores = {"accuracy": (accuracy_Q, float(frequency_P.max())), "nats_gained": (gain_Q, 0.0)}
        for metric, (value_Q, chance) in scores.items():
            name = [f"{length}_{number}" for number in range(options.questions)]
            columns = {"metric": metric, "part": "", "item": name, "group": name, "length": length, "depth": np.nan}
            rows.append(pd.DataFrame({**columns, "value": value_Q, "weight": 1.0, "chance": chance}))
    return pd.concat(rows, ignore_index=True)


def accuracy_and_gain(
    subject: Subject, half_Qn: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the accuracy on the second copy and its gain over the first, (Q,) each, of copies (Q, n)."""
    n, accuracies, gains = half_Qn.shape[1], [], []
    for _, token_QT in batches(torch.from_numpy(np.concatenate([half_Qn, half_Qn], axis=1))):
        token_QT = token_QT.to(subject.device)
        logits_QTV = subject.model(token_QT)[:, :-1].float()
        told_QT = F.cross_entropy(logits_QTV.transpose(1, 2), token_QT[:, 1:], reduction="none").double()
        right_QT = (logits_QTV.argmax(-1) == token_QT[:, 1:]).double()
        # position t predicts token t + 1: tokens 2 .. n of either copy
        accuracies.append(right_QT[:, n:].mean(1).cpu().numpy())
        gains.append((told_QT[:, : n - 1] - told_QT[:, n:]).mean(1).cpu().numpy())
    return np.concatenate(accuracies), np.concatenate(gains)
