"""One run's losses as tables: by domain with intervals over documents, and over the steps of training.

nats per token = sum of nats / sum of tokens; bits per byte = sum of nats / ln 2 / sum of bytes, which does not depend
on the tokenizer. Neither includes the auxiliary losses of selectors. Intervals resample the domain's groups of
documents. A loss that is estimated (the bound of masked diffusion, by drawing masks) also has a standard error.
"""

import numpy as np
import pandas as pd

from speciate.analysis import draws, statistics, tables
from speciate.analysis.information import LN2
from speciate.analysis.observation import Groups, Settings, group_documents
from speciate.selection.tally import Array


def losses_table(likelihood: pd.DataFrame, domains: tuple[str, ...], settings: Settings) -> pd.DataFrame:
    """Return a row for each domain: nats per token with its interval, bits per byte, and the counts behind them.

    Args:
        likelihood: a row per document: domain, group, nats, tokens, bytes, and nats_draws where nats are estimated.
        domains: the domains, in the study's order.
        settings: seed, resamples and confidence of the intervals.

    Raises:
        ValueError: a domain has no document.
    """
    rows: list[dict[str, object]] = []
    drawn = loss_draws(likelihood, domains, settings)
    error_D, _ = standard_errors(likelihood, domains)
    for domain, error in zip(domains, error_D, strict=True):
        part = likelihood[likelihood["domain"] == domain]
        nats, tokens, num_bytes = (part[name].sum() for name in ("nats", "tokens", "bytes"))
        values = drawn[(drawn["statistic"] == "nats") & (drawn["name"] == domain)]["value"]
        groups = statistics.effective_number(part.groupby("group")["tokens"].sum().to_numpy(dtype=np.float64))
        low, high = statistics.document_interval(values.to_numpy(), settings.confidence, groups)
        columns = {"nats": nats / tokens, "nats_low": low, "nats_high": high, "nats_error": error}
        counts = {"tokens": int(tokens), "bytes": int(num_bytes), "documents": len(part), "effective_groups": groups}
        rows.append({"domain": domain, **columns, "bits_per_byte": nats / LN2 / num_bytes, **counts})
    return pd.DataFrame(rows)


def standard_errors(likelihood: pd.DataFrame, domains: tuple[str, ...]) -> tuple[list[float], float]:
    """Return the standard errors of estimated nats per token: of each domain's mean, and of the mean over domains.

    Each is the standard deviation of the draws' means over the root of the number of draws. Documents of one draw may
    share the sizes of their masks, so they are summed first. NaN where the nats are exact.
    """
    if "nats_draws" not in likelihood:
        return [float("nan")] * len(domains), float("nan")
    of_domain = [likelihood[likelihood["domain"] == domain] for domain in domains]
    draws_DE = np.stack([np.stack(part["nats_draws"].to_list()).sum(0) / part["tokens"].sum() for part in of_domain])
    root = draws_DE.shape[1] ** 0.5
    return list(draws_DE.std(1, ddof=1) / root), float(draws_DE.mean(0).std(ddof=1) / root)


def loss_draws(likelihood: pd.DataFrame, domains: tuple[str, ...], settings: Settings) -> pd.DataFrame:
    """Return bootstrap draws of nats per token and bits per byte of each domain: statistic, name, draw, value."""
    absent = [domain for domain in domains if domain not in set(likelihood["domain"])]
    if absent:
        raise ValueError(f"likelihood: no document of domain {', '.join(absent)}")
    groups: Groups = group_documents(likelihood, domains)
    times_BG = draws.resample_counts(groups.domain_G, settings.resamples, settings.seed)

    def summed(name: str) -> Array:
        return groups.sum(likelihood[name].to_numpy(dtype=np.float64))

    nats_G, tokens_G, bytes_G = summed("nats"), summed("tokens"), summed("bytes")
    parts: list[pd.DataFrame] = []
    for index, domain in enumerate(domains):
        of_G = groups.domain_G == index
        for statistic, unit_G in (("nats", tokens_G), ("bits_per_byte", bytes_G * LN2)):
            value_B = statistics.ratio_draws(nats_G[of_G], unit_G[of_G], times_BG[:, of_G])
            columns = {"statistic": statistic, "name": domain, "draw": np.arange(len(value_B)), "value": value_B}
            parts.append(pd.DataFrame(columns))
    return tables.stack(parts)


def curves_table(metrics: list[dict[str, object]]) -> pd.DataFrame:
    """Return a row for each step and series of metrics.jsonl: 'train' first, then the validation of each domain."""
    rows: list[tuple[object, str, object]] = []
    for line in metrics:
        if "loss" in line:
            rows.append((line["step"], "train", line["loss"]))
        validation = line.get("validation")
        if isinstance(validation, dict):
            rows += [(line["step"], str(domain), nats) for domain, nats in validation.items()]
    table = pd.DataFrame(rows, columns=["step", "series", "nats"])
    order = {series: place for place, series in enumerate(dict.fromkeys(table["series"]))}
    return table.sort_values("series", key=lambda series: series.map(order), kind="stable", ignore_index=True)
