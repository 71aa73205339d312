"""Loss on whole documents that were not trained on: nats per token, bits per byte, and the loss of each further head.

    nats per token = sum over documents of -log p / sum of predicted tokens;   perplexity = exp(nats per token)
    bits per byte  = sum over documents of -log2 p / sum of the bytes that the predicted tokens stand for

`evaluation/sliding_windows.py` says which token is predicted after which context; a document's first token is given.
Bytes are the document's own, so that models with different tokenizers are comparable; where a tokenizer does not keep
every byte, they are shared among its tokens as in evaluation/likelihood.py. A mean of these rows, weighted by tokens or
bytes, is the loss of the whole text; a mean of documents' perplexities would be nothing of the kind.

A masked-diffusion model has no such loss, only an upper bound of it, estimated from random masks. Its rows are called
so (`nats_per_token_bound`, `bits_per_byte_bound`), and `bound_error` is the bound's standard error over the masks, in
nats per token:

    error = sqrt(sum over documents of s^2 / E) / sum of tokens,   s^2 the variance of a document's E estimates

Decision: its windows share one token. A bound of the last tokens of a window, given all earlier ones, would show the
denoiser a share of masks that it never met in training.

E estimates.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from speciate.cli import log
from speciate.config.components import options_within
from speciate.config.contracts.evaluation import TaskOptions
from speciate.config.run import Names
from speciate.data.blocks import BlockSet
from speciate.data.outside_text import read_outside_text
from speciate.evaluation.sliding_windows import TextLoss, add, score_texts
from speciate.evaluation.subject import SCORES, Subject
from speciate.training.objective_base import Objective


class Options(TaskOptions):
    """Loss on held-out documents."""

    outside: Names = ()
    """Names in `evaluation.texts`. Without any, the documents of the study's own test set are scored, as far as they
    are in its blocks."""
    window: int | None = Field(None, ge=2)
    """Tokens that the model sees at once; null: its whole context."""
    stride: int | None = Field(None, ge=1)
    """Tokens by which the window advances. Every token but a window's worth at the beginning is predicted after at
    least window - stride others. null: half of the window; for a masked-diffusion model, the window."""
    max_documents: int | None = Field(None, ge=1)
    """Number of documents of each text that are scored, first in its fixed pseudo-random order. null: all."""
    draws: int | None = Field(None, ge=4, multiple_of=2)
    """Random masks by which a masked-diffusion model's bound is estimated. null: the objective's own number."""

    def texts(self) -> tuple[str, ...]:
        """Return the texts outside training that are scored."""
        return self.outside


@dataclasses.dataclass(frozen=True)
class Scored:
    """A document that is scored: who it is, and its tokens."""

    part: str
    """The text outside training, or the domain of a test document."""
    item: str
    group: str
    pieces: tuple[npt.NDArray[np.int64], ...]
    """Its tokens: one piece, or the pieces of a test document that packing has cut, each scored by itself."""
    scale: float
    """Bytes of the document for each byte of its tokens' spelling; 1 where the tokenizer keeps every byte."""
    domains: tuple[int, ...] = ()
    """For each piece of a test document, the index of its block's domain; a text outside training has none."""

    @property
    def num_predicted(self) -> int:
        """Number of tokens that are predicted."""
        return sum(max(0, len(piece) - 1) for piece in self.pieces)


def evaluate(options: Options, subject: Subject) -> pd.DataFrame:
    """Return the loss of each document.

    Raises:
        ValueError: the model looks at later tokens, the window or the stride does not fit it, a text is empty, or all
            of its documents are too short to predict a token of.
    """
    window, stride = window_and_stride(options, subject)
    objective = with_draws(options, subject)
    rows: list[dict[str, object]] = []
    for part, documents in _documents(options, subject).items():
        long = [document for document in documents if document.num_predicted]
        if not long:
            raise ValueError(f"{part}: none of its {len(documents)} documents has two tokens, so nothing is predicted")
        if len(long) < len(documents):
            rows.append({"metric": "documents_too_short", "part": part, "value": float(len(documents) - len(long))})
            first = next(document.item for document in documents if not document.num_predicted)
            log(f"{part}: {len(documents) - len(long)} documents have fewer than two tokens, such as {first}")
        pieces = score_texts(
            subject.model,
            objective,
            [piece for document in long for piece in document.pieces],
            window=window,
            stride=stride,
            domains=[domain for document in long for domain in document.domains] or None,
            device=subject.device,
        )
        stops = np.cumsum([len(document.pieces) for document in long]).tolist()
        losses = [add(pieces[start:stop]) for start, stop in zip([0, *stops], stops, strict=False)]
        for document, loss in zip(long, losses, strict=True):
            rows += _rows_of_document(document, loss, subject)
        if objective.is_estimated:
            rows.append({"metric": "bound_error", "part": part, "value": standard_error(losses)})
    no_answer = {"item": "", "group": "", "length": -1, "depth": math.nan, "weight": 1.0, "chance": math.nan}
    return pd.DataFrame([no_answer | row for row in rows], columns=list(SCORES)).astype(SCORES)


def window_and_stride(options: Options, subject: Subject) -> tuple[int, int]:
    """Return the window and the stride for this model. Raises ValueError where they do not fit it."""
    for component in options_within(subject.run):
        if component.looks_ahead():
            name = component.module_name().removeprefix("speciate.")
            raise ValueError(f"{name} looks at later tokens, so the loss of {subject.run.ablation} is no likelihood")
    context = subject.model.context
    window = context if options.window is None else options.window
    if window > context:
        raise ValueError(f"window: {window} tokens are more than the context of {subject.run.ablation}, {context}")
    is_bound = subject.objective.is_estimated
    stride = options.stride or (window if is_bound else max(1, window // 2))
    if stride > window:
        raise ValueError(f"stride: {stride} tokens are more than the window, {window}, so some would not be predicted")
    if is_bound and stride < window:
        why = "the bound of a masked-diffusion model is one of whole windows; leave stride out"
        raise ValueError(f"stride: {why}, or write the window, {window}")
    return window, stride


def with_draws(options: Options, subject: Subject) -> Objective:
    """Return the run's objective, which estimates a bound with as many random masks as the task asks for."""
    settings = subject.run.objective
    if options.draws is None or not subject.objective.is_estimated:
        return subject.objective
    objective = settings.component().Objective(settings.model_copy(update={"eval_draws": options.draws}))
    return objective.to(subject.device)


def standard_error(losses: list[TextLoss]) -> float:
    """Return the standard error of a bound over its random masks, in nats per token."""
    variances = [loss.nats_E.var(ddof=1) / len(loss.nats_E) for loss in losses]
    return math.sqrt(sum(variances)) / sum(loss.tokens for loss in losses)


def _documents(options: Options, subject: Subject) -> dict[str, list[Scored]]:
    """Return part -> the documents to score."""
    parts: dict[str, list[Scored]] = {}
    if not options.outside:
        for test_document in _test_documents(subject.test):
            parts.setdefault(test_document.part, []).append(test_document)
        return {part: documents[: options.max_documents] for part, documents in parts.items()}
    subject.tokenizer.encode_special_tokens = True  # text never becomes a special token
    for name in options.outside:
        outside = read_outside_text(name, subject.texts[name], options.max_documents)
        texts = [document.text for document in outside]
        encodings = subject.tokenizer.encode_batch(texts, add_special_tokens=False)
        parts[name] = []
        for document, encoding in zip(outside, encodings, strict=True):
            tokens, size = np.array(encoding.ids, np.int64), len(document.text.encode())
            scale = size / max(1, int(subject.token_bytes_V[tokens].sum()))
            parts[name].append(Scored(name, document.id, document.group, (tokens,), scale))
    return parts


def _test_documents(blocks: BlockSet) -> Iterator[Scored]:
    """Yield the test documents, each with the pieces of it that are in the blocks."""
    pieces: dict[int, list[tuple[npt.NDArray[np.int64], int]]] = {}
    for block, document_T in enumerate(blocks.document):
        edges = [0, *(np.flatnonzero(np.diff(document_T)) + 1).tolist(), len(document_T)]
        for start, stop in zip(edges, edges[1:], strict=False):
            piece = blocks.tokens[block, start:stop].astype(np.int64)
            pieces.setdefault(int(document_T[start]), []).append((piece, int(blocks.domain[block])))
    for document, of_document in sorted(pieces.items()):
        row = blocks.documents.iloc[document]
        scale = float(row["bytes"] / row["surface"]) if row["surface"] else 1.0
        tokens, domains = zip(*of_document, strict=True)
        yield Scored(row["domain"], row["id"], row["group"], tokens, scale, domains)


def _rows_of_document(document: Scored, loss: TextLoss, subject: Subject) -> Iterator[dict[str, object]]:
    """Yield a document's rows: each metric's value and weight."""
    suffix = "_bound" if subject.objective.is_estimated else ""
    whose = {"part": document.part, "item": document.item, "group": document.group}
    nats = float(loss.nats_E.mean())
    yield {"metric": f"nats_per_token{suffix}", **whose, "value": nats / loss.tokens, "weight": loss.tokens}
    spelled = sum(int(subject.token_bytes_V[piece[1:]].sum()) for piece in document.pieces)
    num_bytes = spelled * document.scale
    if num_bytes:
        bits = nats / math.log(2) / num_bytes
        yield {"metric": f"bits_per_byte{suffix}", **whose, "value": bits, "weight": num_bytes}
    for ahead, count in loss.head_tokens.items():
        if count:
            metric, value = f"nats_per_token_head_{ahead}", loss.head_nats[ahead] / count
            yield {"metric": metric, **whose, "value": value, "weight": count}
