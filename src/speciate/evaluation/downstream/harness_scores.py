"""Rows of scores from what the lm-evaluation-harness logs of each question."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from speciate.cli import log

PERPLEXITIES = {
    "word_perplexity": ("nats_per_word", 1.0),
    "byte_perplexity": ("nats_per_byte", 1.0),
    "bits_per_byte": ("bits_per_byte", math.log(2)),
}
"""Metric of whole texts -> our name of its mean by weight, and the nats of its unit."""
CHOICES = ("acc", "acc_norm", "acc_bytes", "exact_match")
"""Metrics of multiple choice whose chance is 1 / number of choices."""


def rows_of(task: Any, name: str, samples: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each question and metric.

    Args:
        task: the harness's task.
        name: its name.
        samples: what the harness logged: of each question, for each filter of answers.
    """
    left_out: set[str] = set()
    filters = {sample["filter"] for sample in samples}
    for sample in samples:
        for metric in sample["metrics"]:
            scored = _score(metric, sample[metric])
            if scored is None:
                left_out.add(metric)
                continue
            ours, value, weight, length = scored
            if length > 0 and value < 0:
                continue  # RULER's mark for a length that this question does not have
            by = f"_{sample['filter']}" if len(filters) > 1 else ""
            item = str(sample["doc_id"])
            chance = _chance(task, ours, sample)
            numbers = {"length": length, "depth": math.nan, "value": value, "weight": weight, "chance": chance}
            yield {"metric": ours + by, "part": name, "item": item, "group": f"{name} {item}", **numbers}
    for metric in sorted(left_out):
        log(f"{name}: {metric} is no mean over questions; it is left out")


def _score(metric: str, value: Any) -> tuple[str, float, float, int] | None:
    """Return our name of a metric, its value, weight and length of context; None if it is no mean."""
    if metric in PERPLEXITIES:
        ours, unit = PERPLEXITIES[metric]
        nats, weight = value
        return ours, -float(nats) / unit / weight if weight else 0.0, float(weight), -1
    if isinstance(value, bool | int | float) or hasattr(value, "item"):
        number = float(value)
        if metric == "perplexity":
            return "nats_per_answer", -number, 1.0, -1
        if metric.isdigit():  # RULER names a metric by the length
            return "accuracy", number, 1.0, int(metric)
        return metric, number, 1.0, -1
    return None


def _chance(task: Any, metric: str, sample: Mapping[str, Any]) -> float:
    if task.OUTPUT_TYPE != "multiple_choice" or metric not in CHOICES:
        return math.nan
    choices = task.doc_to_choice(sample["doc"])
    return 1.0 / len(choices) if choices else math.nan
