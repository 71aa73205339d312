"""Make the tables of a study's tasks with a planted answer, by the stage's own functions.

needle   varies length and depth: `auxiliary` finds everything, `unbalanced_fast` only what stands at the end, and
         `frozen` guesses; the others find less the longer the context is
reading  has parts and no chance; `hash` has no score, with a reason
"""

import functools
import zlib

import numpy as np
import pandas as pd

from speciate.analysis.tables import stack
from speciate.analysis.tasks.means import Settings
from speciate.analysis.tasks.tasks import Runs, task_tables
from speciate.config.contracts.evaluation import SCORES

LENGTHS, DEPTHS, QUESTIONS = (128, 256, 512, 1024), (0.0, 0.25, 0.5, 0.75, 1.0), 8
CHANCE = 0.1
REASON = "the model's context, 64, is too short"
TASKS = ("needle", "reading")


def needle_probability(arm: str, length: int, depth: float) -> float:
    """Return how often an arm finds the needle."""
    if arm == "auxiliary":
        return 1.0
    if arm == "frozen":
        return CHANCE
    if arm == "unbalanced_fast":
        return 1.0 if depth == 1 else 0.0
    return 0.9 - 0.2 * (np.log2(length) - 7)


def needle(arm: str, seed: int) -> pd.DataFrame:
    """Return a run's scores: each cell has as many right answers as the probability says, to the nearest."""
    rows = []
    random = np.random.default_rng([seed, zlib.crc32(arm.encode())])
    for length in LENGTHS:
        for depth in DEPTHS:
            right = round(needle_probability(arm, length, depth) * QUESTIONS)
            value = random.permutation(np.arange(QUESTIONS) < right).astype(float)
            rows += [
                ("accuracy", "", f"{length}_{number}", f"{number}", length, depth, value[number], 1.0, CHANCE)
                for number in range(QUESTIONS)
            ]
    return pd.DataFrame(rows, columns=list(SCORES)).astype(SCORES)


def reading(arm: str, seed: int, parts: tuple[str, ...]) -> pd.DataFrame:
    """Return a run's nats on documents of some parts; none of `hash`."""
    rows = [
        ("nats_per_token", part, f"{part}{item}", f"{item}", -1, np.nan, 3 + 0.1 * item + 0.01 * seed, 100.0, np.nan)
        for part in parts
        for item in range(6 if arm != "hash" else 0)
    ]
    return pd.DataFrame(rows, columns=list(SCORES)).astype(SCORES)


@functools.cache
def tables(
    arms: tuple[str, ...], seeds: tuple[int, ...], parts: tuple[str, ...], resamples: int = 99
) -> dict[str, pd.DataFrame]:
    """Make the tables `tasks` and `task_differences`."""
    runs, settings = Runs(arms, seeds, arms[min(1, len(arms) - 1)]), Settings(0.95, resamples, 0)
    scored = {
        "needle": {(arm, seed): (needle(arm, seed), "") for arm in arms for seed in seeds},
        "reading": {
            (arm, seed): (reading(arm, seed, parts), REASON if arm == "hash" else "") for arm in arms for seed in seeds
        },
    }
    made = [task_tables(task, scored[task], runs, settings) for task in TASKS]
    return {name: stack([part[name] for part in made]) for name in ("tasks", "task_differences")}
