"""Put questions to a model: read a long context once, and score answers after it.

The context goes through the model a chunk at a time, with the cache, so that no tensor has an entry for every pair of
tokens or for every token of the vocabulary at every position. Only the answers' positions get logits.

An answer is exact if each of its tokens is the likeliest one after the context and the answer's tokens before it. That
is so exactly if greedy decoding writes the answer (tests/evaluation/long_context/test_answering.py). A choice among
candidates goes to the one with the largest sum of log-probabilities.

B contexts of T tokens, N columns, A tokens of an answer, C candidates, D width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from speciate.config.components import options_within
from speciate.config.run import RunSpec
from speciate.model.cache import Cache
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer

CHUNK = 512
"""Number of tokens that the model reads at once."""
CACHED_TOKENS = 2**15
"""Number of tokens, over all rows of a batch, that a cache holds at most, if a single row is not longer."""


@dataclass(frozen=True)
class Answer:
    """An answer to a question, and what it is chosen among."""

    before: tuple[int, ...]
    """Tokens between the context, or the answer before this one, and this answer; they are given, not scored."""
    candidates: tuple[tuple[int, ...], ...]
    """Candidates' tokens."""
    correct: int
    """Index of the correct candidate."""


@dataclass(frozen=True)
class Question:
    """A context that ends with a question, and its answers, each given the correct ones before it."""

    context: tuple[int, ...]
    answers: tuple[Answer, ...]

    @property
    def length(self) -> int:
        """Number of tokens of the context and of its answers, counting the longest candidate of the last one."""
        last = len(self.answers) - 1
        lengths = [
            len(answer.before) + (max(map(len, answer.candidates)) if index == last else len(right(answer)))
            for index, answer in enumerate(self.answers)
        ]
        return len(self.context) + sum(lengths)


@dataclass(frozen=True)
class Score:
    """What a model made of a question."""

    exact: float
    """Share of the answers whose tokens are all the likeliest ones."""
    chosen: float
    """Share of the answers that are likelier than every other candidate."""


def right(answer: Answer) -> tuple[int, ...]:
    """Return the tokens of the correct candidate."""
    return answer.candidates[answer.correct]


def check_reader(run: RunSpec) -> None:
    """Raise ValueError if the run's model cannot read a context and then answer token by token."""
    if not run.model.causal:
        raise ValueError(f"objective: {run.objective.kind} fills masks, and an answer follows a context")
    for options in options_within(run.model):
        if options.looks_ahead() or options.needs_whole_block():
            raise ValueError(f"model: {options.kind} looks at later tokens, so it cannot answer after a context")


def why_too_long(length: int, context: int) -> str | None:
    """Return why a model cannot read so many tokens; None if it can."""
    return f"length {length} is longer than the model's context {context}" if length > context else None


@torch.no_grad()
def hidden_at(model: Transformer, token_BT: Tensor, column_BN: Tensor) -> Tensor:
    """Return the output layer's input at some columns of each row, (B, N, D).

    Args:
        model: in evaluation mode.
        token_BT: tokens of the contexts.
        column_BN: columns, int64.
    """
    hidden_BND = torch.zeros(*column_BN.shape, model.head_VD.shape[1], device=token_BT.device)
    for start, x_BCD in _chunks(model, token_BT, Cache() if token_BT.shape[1] > CHUNK else None):
        local_BN = (column_BN - start).clamp(0, x_BCD.shape[1] - 1)
        inside_BN = (column_BN >= start) & (column_BN < start + x_BCD.shape[1])
        gathered_BND = x_BCD.gather(1, local_BN.unsqueeze(-1).expand(-1, -1, x_BCD.shape[2]))
        hidden_BND = torch.where(inside_BN.unsqueeze(-1), gathered_BND, hidden_BND)
    return hidden_BND


@torch.no_grad()
def score(model: Transformer, questions: Sequence[Question], device: torch.device) -> list[Score]:
    """Return the score of each question.

    Questions whose contexts have one length are read together, as many as `CACHED_TOKENS` allow.
    """
    by_length: dict[int, list[int]] = {}
    for index, question in enumerate(questions):
        by_length.setdefault(len(question.context), []).append(index)
    scores: dict[int, Score] = {}
    for length, indices in by_length.items():
        size = max(1, CACHED_TOKENS // length)
        for start in range(0, len(indices), size):
            batch = indices[start : start + size]
            context_BT = torch.tensor([questions[index].context for index in batch], device=device)
            cache = Cache()
            for _, x_BCD in _chunks(model, context_BT, cache):
                last_BD = x_BCD[:, -1].clone()
            for row, index in enumerate(batch):
                row_cache = cache.copy()
                row_cache.select(torch.tensor([row], device=device))
                scores[index] = _score_answers(model, questions[index], row_cache, last_BD[row])
    return [scores[index] for index in range(len(questions))]


def _chunks(model: Transformer, token_BT: Tensor, cache: Cache | None) -> Iterator[tuple[int, Tensor]]:
    """Yield the first column of each chunk, and the output layer's input for its tokens, (B, <= CHUNK, D)."""
    for start in range(0, token_BT.shape[1], CHUNK):
        yield start, model.read(TokenBatch.of(token_BT[:, start : start + CHUNK], cache=cache))


def _score_answers(model: Transformer, question: Question, cache: Cache, last_D: Tensor) -> Score:
    exact = chosen = 0
    for answer in question.answers:
        last_D = _advance(model, cache, answer.before, last_D)
        sum_C, all_likeliest = _score_candidates(model, answer, cache, last_D)
        exact += all_likeliest
        others_C = sum_C.clone()
        others_C[answer.correct] = -torch.inf
        chosen += bool(sum_C[answer.correct] > others_C.max())
        if answer is not question.answers[-1]:
            last_D = _advance(model, cache, right(answer), last_D)
    return Score(exact / len(question.answers), chosen / len(question.answers))


def _advance(model: Transformer, cache: Cache, tokens: tuple[int, ...], last_D: Tensor) -> Tensor:
    """Read `tokens` into the cache; return the output layer's input after them."""
    if not tokens:
        return last_D
    return model.read(TokenBatch.of(torch.tensor([tokens], device=last_D.device), cache=cache))[0, -1]


def _score_candidates(model: Transformer, answer: Answer, cache: Cache, last_D: Tensor) -> tuple[Tensor, bool]:
    """Return each candidate's log-probability, (C,), and whether all tokens of the correct one are the likeliest."""
    longest = max(map(len, answer.candidates))
    # padding stands behind a candidate's tokens, where no token that is scored sees it
    padded_CA = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in answer.candidates])
    padded_CA = padded_CA.to(last_D.device)
    size = max(1, min(len(padded_CA), CACHED_TOKENS // max(1, cache.length)))
    sums, all_likeliest = [], False
    for start in range(0, len(padded_CA), size):
        token_CA = padded_CA[start : start + size]
        x_CAD = last_D.expand(len(token_CA), 1, -1)
        if longest > 1:
            rows = cache.copy()
            rows.select(torch.zeros(len(token_CA), dtype=torch.long, device=last_D.device))
            x_CAD = torch.cat((x_CAD, model.read(TokenBatch.of(token_CA[:, :-1], cache=rows))), dim=1)
        logit_CAV = model.head(x_CAD).float()
        log_p_CA = logit_CAV.log_softmax(-1).gather(2, token_CA.unsqueeze(-1)).squeeze(-1)
        for row, tokens in enumerate(answer.candidates[start : start + size]):
            sums.append(log_p_CA[row, : len(tokens)].double().sum())
            if start + row == answer.correct:
                likeliest_A = logit_CAV[row, : len(tokens)].argmax(-1)
                all_likeliest = bool((likeliest_A == token_CA[row, : len(tokens)]).all())
    return torch.stack(sums), all_likeliest
