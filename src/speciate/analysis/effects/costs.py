"""Costs of interventions by domain: nats with a selector's choice replaced, minus nats without, with intervals.

    cost[d] = sum of nats under the intervention / predictions - the same without it, over the documents of domain d
    cost    = mean over domains

Intervals resample groups of documents within domains, with the same draws for every run of a study, so that runs are
paired. They say how certain a cost is for this model, not for another seed.

Shape suffixes: G groups, B draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from speciate.analysis import draws, statistics
from speciate.analysis.observation import Groups
from speciate.selection.tally import Array

NAN = float("nan")
ALL = "all"
"""The domain that stands for the mean over domains."""
MATCHED = "load_matched"
"""The intervention that decides whether a selector matters."""
SELECTIVITY = "selectivity"
"""Name of the rows of table `interventions` that hold no cost but how selective the need of the slots is."""
COLUMNS = ("domain", "cost_nats", "cost_low_nats", "cost_high_nats", "clean_nats", "tokens", "documents")
"""Columns that `cost_rows` fills."""


@dataclass(frozen=True, eq=False)
class Nats:
    """Sums over predictions, by document or by group."""

    nats_G: Array
    tokens_G: Array

    def by_group(self, groups: Groups) -> "Nats":
        """Return the sums over the documents of each group."""
        return Nats(groups.sum(self.nats_G), groups.sum(self.tokens_G))


@dataclass(frozen=True, eq=False)
class Slot:
    """What the loss is where one slot is masked."""

    own: int
    """The domain that prefers the slot, by its largest lift."""
    masked: Nats
    control: Nats | None
    """Sums where as many random tokens lose a choice; None: there is no such control."""


@dataclass(frozen=True)
class Draws:
    """How intervals are made."""

    resamples: int
    confidence: float
    seed: int


def cost_rows(clean: Nats, changed: Nats, groups: Groups, settings: Draws) -> pd.DataFrame:
    """Return the cost in each domain and in all, with its interval; one row a domain.

    A domain with a single group of documents has no interval, and then neither have all.

    Args:
        clean: sums without intervention, by document.
        changed: sums with it.
        groups: the documents' groups.
        settings: draws and confidence.
    """
    documents_G = groups.sum((clean.tokens_G > 0).astype(np.float64))
    clean, changed = clean.by_group(groups), changed.by_group(groups)
    seen_G = clean.tokens_G + changed.tokens_G > 0
    domain_G = groups.domain_G[seen_G]
    parts = [Nats(nats.nats_G[seen_G], nats.tokens_G[seen_G]) for nats in (clean, changed)]
    times_BG = draws.resample_counts(domain_G, settings.resamples, settings.seed)
    rows: list[tuple[str, float, float, float, float, int, int]] = []
    drawn: list[Array] = []
    for domain, name in enumerate(groups.domains):
        (members,) = np.nonzero(domain_G == domain)
        before, after = (float(mean_nats(nats, members, np.ones((1, len(domain_G))))[0]) for nats in parts)
        drawn_B = mean_nats(parts[1], members, times_BG) - mean_nats(parts[0], members, times_BG)
        drawn.append(drawn_B if len(members) > 1 else np.full_like(drawn_B, np.nan))
        of_domain_G = groups.domain_G == domain
        counts = int(clean.tokens_G[of_domain_G].sum()), int(documents_G[of_domain_G].sum())
        rows.append((name, after - before, *interval(drawn[-1], settings), before, *counts))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    low, high = interval(np.mean(drawn, axis=0), settings)
    means, totals = table[["cost_nats", "clean_nats"]].mean(skipna=False), table[["tokens", "documents"]].sum()
    whole = {"domain": ALL, **means, "cost_low_nats": low, "cost_high_nats": high, **totals}
    return pd.concat([table, pd.DataFrame([whole], columns=list(COLUMNS))], ignore_index=True)


def selectivity_row(
    slots: Sequence[Slot], clean: Nats, groups: Groups, settings: Draws
) -> dict[str, float | str | int]:
    """Return the mean over slots of K[e, own] - mean K[e, others], in the columns of `cost_rows`, with its interval.

    K[e, d] is what domain d loses where slot e is masked, beyond the slot's control. A slot's own domain is given, so
    the interval is about the need alone. It is NaN where a domain has a single group.

    Args:
        slots: nats under the interventions on each slot, and its own domain.
        clean: sums without intervention, by document.
        groups: the documents' groups.
        settings: draws and confidence.
    """
    rows, documents_G = len(slots), groups.sum((clean.tokens_G > 0).astype(np.float64))
    clean = clean.by_group(groups)
    seen_G = clean.tokens_G > 0
    domain_G = groups.domain_G[seen_G]
    times_BG = draws.resample_counts(domain_G, settings.resamples, settings.seed)
    times_BG = np.concatenate([np.ones((1, len(domain_G))), times_BG])
    need_BED = np.zeros((len(times_BG), rows, len(groups.domains)))
    for row, slot in enumerate(slots):
        masked, control = ((clean if part is None else part.by_group(groups)) for part in (slot.masked, slot.control))
        for domain in range(len(groups.domains)):
            (members,) = np.nonzero(domain_G == domain)
            with_slot, without = (
                mean_nats(Nats(part.nats_G[seen_G], part.tokens_G[seen_G]), members, times_BG)
                for part in (control, masked)
            )
            need_BED[:, row, domain] = without - with_slot
            if len(members) < 2:
                need_BED[1:, row, domain] = np.nan
    own_BE = need_BED[:, np.arange(rows), [slot.own for slot in slots]]
    others_BE = (need_BED.sum(axis=2) - own_BE) / (len(groups.domains) - 1)
    value_B = (own_BE - others_BE).mean(axis=1)
    low, high = interval(value_B[1:], settings)
    nats = float(clean.nats_G.sum() / clean.tokens_G.sum())
    counts = int(clean.tokens_G.sum()), int(documents_G.sum())
    return dict(zip(COLUMNS, (ALL, float(value_B[0]), low, high, nats, *counts), strict=True))


def mean_nats(nats: Nats, members: draws.Integers, times_BG: Array) -> Array:
    """Return the mean nats a prediction over the members of each draw, (B,); NaN where there is none."""
    total_B, tokens_B = times_BG[:, members] @ nats.nats_G[members], times_BG[:, members] @ nats.tokens_G[members]
    result: Array = np.divide(total_B, tokens_B, out=np.full(len(times_BG), np.nan), where=tokens_B > 0)
    return result


def interval(drawn_B: Array, settings: Draws) -> tuple[float, float]:
    """Return the percentile interval; NaN where a draw is NaN."""
    return (NAN, NAN) if np.isnan(drawn_B).any() else statistics.percentile_interval(drawn_B, settings.confidence)
