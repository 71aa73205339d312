"""Real text, tokenizers fitted to it, and models that copy, for the tests of tasks on long contexts."""

import functools
import pathlib

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from speciate.config.run import RunSpec
from speciate.config.study import read_study
from speciate.data.blocks import BlockSet
from speciate.data.tokens.manifest import END_OF_TEXT
from speciate.data.tokens.tokenizer import bpe
from speciate.evaluation.long_context.haystack import own_haystack
from speciate.evaluation.long_context.needles import Material
from speciate.evaluation.long_context.words import Speller, read_lexicon
from speciate.evaluation.subject import Subject
from speciate.model.cache import Cache
from speciate.model.token_batch import TokenBatch

ROOT = pathlib.Path(__file__).parents[3]
PAGES = ("concepts", "running", "studies", "checkpoints")


@functools.cache
def texts() -> list[str]:
    """Return some of our own pages: real prose with code and tables."""
    return [(ROOT / f"docs/{page}.md").read_text(encoding="utf-8")[:8000] for page in PAGES]


@functools.cache
def tokenizer(entries: int) -> Tokenizer:
    """Return a tokenizer of so many entries; with 257 a byte is a token."""
    return bpe.build(bpe.Options(kind="bpe", entries=entries), texts(), None)


@functools.cache
def own_test_set(entries: int, block_length: int = 64) -> BlockSet:
    """Return the texts as a held-out set: blocks of tokens, with an end-of-text token behind each text."""
    end = tokenizer(entries).token_to_id(END_OF_TEXT)
    token_N, document_N = [], []
    for number, text in enumerate(texts()):
        ids = [*tokenizer(entries).encode(text, add_special_tokens=False).ids, end]
        token_N += ids
        document_N += [number] * len(ids)
    count = len(token_N) // block_length
    shape = (count, block_length)
    documents = pd.DataFrame({"document": range(len(PAGES)), "domain": "docs", "id": PAGES, "group": PAGES})
    return BlockSet(
        name="test",
        domains=("docs",),
        tokens=np.array(token_N[: count * block_length]).reshape(shape),
        document=np.array(document_N[: count * block_length], dtype=np.int32).reshape(shape),
        domain=np.zeros(count, np.int32),
        documents=documents,
        types=None,
    )


@functools.cache
def material(entries: int, num_choices: int = 8) -> Material:
    """Return what questions are made of."""
    haystack, speller = own_haystack(own_test_set(entries), tokenizer(entries)), Speller(tokenizer(entries))
    return Material(haystack, read_lexicon(haystack, speller), speller, num_choices)


def run_spec(**model: object) -> RunSpec:
    """Return the spec of a run of dense attention, with changes of its model."""
    run = read_study(ROOT / "studies/recall.yaml").run("attention", 0)
    return RunSpec.model_validate({**run.model_dump(), "model": {**run.model.model_dump(), **model}})


def subject(model: nn.Module, entries: int, run: RunSpec | None = None) -> Subject:
    """Return a subject with this model, whose `test` is `own_test_set`."""
    found = Subject(
        run=run or run_spec(),
        folder=pathlib.Path(),
        model=model,  # type: ignore[arg-type]
        objective=None,  # type: ignore[arg-type]
        tokenizer=tokenizer(entries),
        token_bytes_V=np.zeros(0, np.int32),
        mixture=pathlib.Path(),
        texts={},
        device=torch.device("cpu"),
    )
    found.__dict__["test"] = own_test_set(entries)  # what the cached property would read from a file
    return found


class Copier(nn.Module):
    """A model that continues as the text did after the longest earlier stretch that ends as it ends now."""

    def __init__(self, vocabulary: int, context: int) -> None:
        super().__init__()
        self.context, self.head_VD = context, torch.eye(vocabulary)

    def read(self, tokens: TokenBatch) -> Tensor:
        """Return ten at the token that is expected next, (B, T, V)."""
        before = None if tokens.cache is None else tokens.cache.state(0)
        seen_BS = tokens.id_BT if before is None else torch.cat((before[0], tokens.id_BT), dim=1)
        if tokens.cache is not None:
            tokens.cache.append(0, tokens.id_BT)
            tokens.cache.length = seen_BS.shape[1]
        rows = []
        for seen in seen_BS.tolist():
            first = len(seen) - tokens.id_BT.shape[1]
            rows.append([self.expect(seen[: end + 1]) for end in range(first, len(seen))])
        return 10 * self.head_VD[torch.tensor(rows)]

    def expect(self, seen: list[int]) -> int:
        """Return the token after the longest earlier match of the end of `seen`."""
        best, longest = seen[-1], 0
        for end in range(len(seen) - 1):
            length = 0
            while length <= end and seen[end - length] == seen[-1 - length]:
                length += 1
            if length > longest:
                best, longest = seen[end + 1], length
        return best

    def head(self, x: Tensor) -> Tensor:
        """Return the logits, which the hidden states are."""
        return x


class Constant(nn.Module):
    """A model that expects the same whatever it reads: logits (V,)."""

    def __init__(self, logit_V: Tensor, context: int) -> None:
        super().__init__()
        self.context, self.logit_V, self.head_VD = context, logit_V, torch.eye(len(logit_V))

    def read(self, tokens: TokenBatch) -> Tensor:
        """Return the logits at every position, (B, T, V)."""
        if tokens.cache is not None:
            tokens.cache.append(Cache.CONTEXT, tokens.id_BT)
            tokens.cache.length += tokens.id_BT.shape[1]
        return self.logit_V.expand(*tokens.id_BT.shape, -1)

    def head(self, x: Tensor) -> Tensor:
        """Return the logits, which the hidden states are."""
        return x
