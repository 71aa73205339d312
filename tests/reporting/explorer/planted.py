"""Explorers with known choices, for tests and for looking at."""

import numpy as np
import pandas as pd

from speciate.config.contracts.slots import DEPTH, EXPERTS, KEYS, MASKS
from speciate.reporting.explorer.data import Check, Document, ExplorerData, Layer, Model

WORDS = (
    " the",
    " router",
    " sends",
    " a",
    " token",
    " to",
    " one",
    " of",
    " its",
    " experts",
    ",",
    " and",
    ".\n",
    "def",
)
HOSTILE = ("</script><script>alert(1)</script>", "\"'&<b>", "\u2028", "\u2029", "\0", "\u202eabc", "\r\n\t", "<!--", "")


def experts(names: int) -> tuple[str, ...]:
    return tuple(f"expert {slot}" for slot in range(names))


def data(num_documents: int = 6, length: int = 200, num_slots: int = 8) -> ExplorerData:
    """Two seeds of a router with two choices and three checks, and one model of each other kind."""
    rng = np.random.default_rng(0)
    count = num_documents * length
    token_P = rng.integers(0, len(WORDS), count)
    token_P[: len(HOSTILE)] = len(WORDS) + np.arange(len(HOSTILE))
    labels = ("code", "prose", 'ma<th> & "more"')
    documents = tuple(
        Document(f"doc {index} </script>", labels[index % len(labels)], length) for index in range(num_documents)
    )
    models = [
        Model("arm, seed 0", "Top-2 router", tuple(router(rng, token_P, layer, num_slots) for layer in range(3))),
        Model("arm, seed 1", "The same with another seed", (router(rng, token_P, 0, num_slots),)),
        Model("others", "One selector of each other kind", tuple(others(rng, count))),
        Model("dense", "No selector at all", ()),
    ]
    order_P = np.full(count, -1, dtype=np.int64)
    order_P[-length:] = rng.permutation(length)
    return ExplorerData(
        title="A planted </script> study",
        documents=documents,
        token_P=token_P,
        pieces=dict(enumerate(WORDS + HOSTILE)),
        models=tuple(models),
        order_P=order_P,
        aligned=False,
        notes=("The texts are drawn <at random>.",),
        left_out=("Nothing is left out.",),
    )


def router(rng: np.random.Generator, token_P: np.ndarray, layer: int, num_slots: int) -> Layer:
    count, checks = len(token_P), []
    prefix_M = np.arange(0, count, 1)[: count // 2]
    for step, at in ((0, prefix_M), (10, prefix_M), (20, None)):
        tokens = token_P if at is None else token_P[at]
        noise = rng.random(len(tokens)) < 1 - step / 25
        first = np.where(noise, rng.integers(0, num_slots, len(tokens)), (tokens + layer) % num_slots)
        second = (first + 1 + rng.integers(0, num_slots - 1, len(tokens))) % num_slots
        checks.append(Check(step, at, np.stack([first, second], axis=1).astype(np.int16)))
    lifts = pd.DataFrame(
        [
            {"slot": slot, "label": label, "lift": 1 + 0.1 * slot, "low": 0.9, "high": 1.4, "q": 0.01, "cost": 0.001}
            | {"token_lift": 1.1, "shadow_lift": 1.05, "placebo_lift": 1.0, "control": 0.0005}
            for slot in range(num_slots)
            for label in ("code", "prose", 'ma<th> & "more"')
        ]
    )
    return Layer(
        f"blocks.{layer}.ffn.router",
        EXPERTS,
        experts(num_slots),
        tuple(checks),
        sentence="It is specialised.",
        weight_MK=rng.random((count, 2)).astype(np.float32),
        margin_M=rng.random(count).astype(np.float32),
        experts=pd.DataFrame({"slot": range(num_slots), "share": 1 / num_slots, "share_low": 0.1, "share_high": 0.2}),
        lifts=lifts,
        unsaid=("Only the largest lifts are here.",),
    )


def others(rng: np.random.Generator, count: int) -> list[Layer]:
    ranges = ("first token", "the token itself", "1 back", "2 to 3 back", "4 to 7 back")
    back = np.sort(rng.integers(0, 8, (count, 3)), axis=1)
    back[:, 0] = 0
    bits = np.full((count, 5), -1)
    bits[:, :2] = [1, 3]
    one = Check(20, None, rng.integers(0, 2, (count, 1)).astype(np.int16))
    return [
        Layer("blocks.0.depth", DEPTH, ("skip", "run"), (one,)),
        Layer(
            "blocks.0.mixer",
            KEYS,
            ranges,
            (Check(0, None, bits.astype(np.int16)), Check(20, None, bits.astype(np.int16))),
            ordered=False,
            key_MJ=back.astype(np.int16),
        ),
        Layer("parts.importance", MASKS, ("keep", "mask"), (one,), score_M=rng.random(count).astype(np.float32)),
    ]
