"""Perplexity beside nats per token: the exponential of the mean, and of both ends of its interval.

    perplexity = exp(sum over tokens of -log p / number of tokens)

It is made of the mean, never averaged itself: a mean of documents' perplexities, or of seeds', depends on how the same
tokens are grouped. Over several seeds it is the geometric mean of theirs. Differences stay in nats per token, where
equal ratios of perplexity are equal differences.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

OF = {"nats_per_token": "perplexity", "nats_per_token_bound": "perplexity_bound"}
"""Metric -> what its exponential is called."""


def perplexities(rows: Iterable[Mapping[str, object]]) -> Iterator[dict[str, object]]:
    """Yield a row of perplexity for each row of nats per token of the table `tasks`."""
    for row in rows:
        metric = OF.get(str(row["metric"]))
        if metric is not None:
            bounds = {name: math.exp(float(str(row[name]))) for name in ("value", "low", "high")}
            yield {**row, "metric": metric, **bounds}
