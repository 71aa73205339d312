"""Knock experts out: what a model loses by label without each of them, beside load-matched controls.

    cost        NLL of the label's texts with the expert's logit at -inf, so that its tokens go to their next best,
                minus the NLL of the model as it is; nats per predicted token
    control     the same, where as many choices of the same ranks are taken from random tokens of the same blocks
    shuffled    the same for a whole router, where each token gets the logits of another: what the router is worth
    need        cost - control: what the label needs of this expert, and not of any choice

The most informative experts come first: those with the largest product of lift and load. Intervals are of a bootstrap
over documents.

S slots, D labels, G documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from speciate.recording.rerouting.changed_runs import ChangedRuns
from speciate.recording.rerouting.losses import ALL, Costs, spearman
from speciate.recording.router_call import Site
from speciate.recording.sites import find_sites
from speciate.recording.text_batches import batches, block_sizes
from speciate.selection.routing_record import RoutingRecord
from speciate.selection.text import Text

EXPERT_COLUMNS = {
    "path": "module path of the router",
    "layer": "number of the layer",
    "expert": "number of the expert",
    "label": "label of the texts; empty: all texts together",
    "tokens": "predicted tokens",
    "load": "the expert's share of the choices",
    "lift": "its share among the choices for the label over the mean of the labels' shares; NaN for all texts",
    "cost_nats": "NLL without the expert minus NLL with it, per predicted token",
    "cost_low_nats": "lower bound over documents",
    "cost_high_nats": "upper bound",
    "control_nats": "the cost of taking as many choices from random tokens of the same blocks",
    "matched_expert": "the expert of the router that was knocked out, too, and has the nearest load; -1: none",
    "matched_nats": "the cost of knocking that one out",
}
LAYER_COLUMNS = {
    "path": "module path of the router",
    "layer": "number of the layer",
    "label": "label of the texts; empty: all texts together",
    "shuffled_nats": "cost of giving each token the logits of another one, so that the load stays",
    "shuffled_low_nats": "lower bound over documents",
    "shuffled_high_nats": "upper bound",
    "experts": "experts that were knocked out",
    "need_correlation": "Spearman's rank correlation of lift and need over experts and labels",
}


@dataclass(frozen=True, eq=False)
class KnockOut:
    """What knocking experts out costs."""

    experts: pd.DataFrame
    """EXPERT_COLUMNS: a row for each expert that was knocked out, and label."""
    layers: pd.DataFrame
    """LAYER_COLUMNS: a row for each router with such an expert, and label."""
    passes: int
    """Forward passes that were made."""
    left_out: int
    """Experts that the budget did not reach."""
    skipped: tuple[str, ...]
    """Paths of the selectors that were left out: no score decides their choice, or they choose all they have."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """An expert that may be knocked out."""

    site: Site
    expert: int
    load: float
    """Its share of the choices."""
    lift_of: dict[str, float]
    """Label -> lift."""

    @property
    def promise(self) -> float:
        """Its largest lift times its load; of texts without labels, its load."""
        return self.load * max((lift for lift in self.lift_of.values() if np.isfinite(lift)), default=1.0)


@torch.no_grad()
def knock_out(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[Text],
    record: RoutingRecord,
    *,
    budget: int,
    block_length: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    source: str = "the model",
) -> KnockOut:
    """Knock out the most informative experts, as many as the budget allows.

    Args:
        model: a model of transformers that predicts the next token.
        tokenizer: its tokenizer.
        texts: what its loss is measured on.
        record: the model's routing on texts with the same labels; it says which experts are worth asking about.
        budget: most forward passes, each of one batch. An expert takes two for each batch, a router one more.
        block_length: most tokens that the model reads at once, cut to its context; None: 512, or the context.
        batch_size: most blocks in a forward pass; None: as many as have 8192 tokens.
        seed: seed of the controls and of the bootstrap.
        source: what the model is called in messages.

    Raises:
        ValueError: the budget does not reach an expert, or the model predicts no next token.
        UnreadableModel: the model has no router, or one that cannot be read.
    """
    sites = {site.path: site for site in find_sites(model, source)}
    length, rows = block_sizes(model, block_length, batch_size)
    parts = list(batches(tokenizer, texts, block_length=length, batch_size=rows))
    if not parts:
        raise ValueError(f"--knock-out: {source}: the texts have no token")
    candidates, skipped = candidates_of(record, sites)
    if not candidates:
        raise ValueError(f"--knock-out: {source}: no router has an expert to spare")
    _check_budget(budget, len(parts))
    affordable = within_budget(candidates, len(parts), budget)
    runs = ChangedRuns(model, parts, {text.document: row for row, text in enumerate(texts)}, seed=seed)
    was_training = model.training
    model.eval()
    try:
        used = list({one.site.path: one.site for one in affordable}.values())
        costs = Costs(runs.unchanged(used), texts, seed=seed)
        experts = _with_matched(pd.DataFrame([row for one in affordable for row in _expert_rows(runs, costs, one)]))
        layers = pd.DataFrame([row for site in used for row in _layer_rows(runs, costs, site, experts)])
    finally:
        model.train(was_training)
    return KnockOut(
        experts=experts[list(EXPERT_COLUMNS)],
        layers=layers[list(LAYER_COLUMNS)],
        passes=runs.passes,
        left_out=len(candidates) - len(affordable),
        skipped=skipped,
    )


def check_budget(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[Text],
    *,
    budget: int,
    block_length: int | None = None,
    batch_size: int | None = None,
) -> None:
    """Raise ValueError unless the budget reaches an expert; told before the model has read anything."""
    length, rows = block_sizes(model, block_length, batch_size)
    _check_budget(budget, sum(1 for _ in batches(tokenizer, texts, block_length=length, batch_size=rows)))


def _check_budget(budget: int, num_batches: int) -> None:
    least = 4 * num_batches  # the model as it is, its router shuffled, an expert masked, and the expert's control
    if budget < least:
        raise ValueError(
            f"--knock-out: {budget} forward passes do not reach an expert; with {num_batches} batches of text the "
            f"first takes {least}"
        )


def candidates_of(record: RoutingRecord, sites: dict[str, Site]) -> tuple[list[Candidate], tuple[str, ...]]:
    """Return the experts whose tokens can go elsewhere, the most informative first, and the selectors without any."""
    found: list[Candidate] = []
    skipped: list[str] = []
    label_G = record.documents["label"].to_numpy()
    for selector in record.selectors:
        site = sites.get(selector.path)
        if site is None or not site.reroutes or selector.num_chosen >= selector.num_slots:
            skipped.append(selector.path)
            continue
        chosen_GS = selector.tally.chosen_GS
        load_S = chosen_GS.sum(axis=0) / chosen_GS.sum()
        lift_DS = lifts(chosen_GS, label_G, record.labels)
        for expert in np.flatnonzero(load_S):
            lift_of = dict(zip(record.labels, lift_DS[:, expert].tolist(), strict=True))
            found.append(Candidate(site, int(expert), float(load_S[expert]), lift_of))
    return sorted(found, key=lambda one: -one.promise), tuple(skipped)


def lifts(
    chosen_GS: npt.NDArray[np.float64], label_G: npt.NDArray[np.object_], labels: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Return each slot's share among a label's choices over the mean of the labels' shares, (D, S)."""
    sum_DS = np.array([chosen_GS[label_G == label].sum(axis=0) for label in labels]).reshape(len(labels), -1)
    share_DS = sum_DS / np.maximum(sum_DS.sum(axis=1, keepdims=True), 1e-300)
    mean_S = share_DS.sum(axis=0) / max(len(labels), 1)
    lift_DS: npt.NDArray[np.float64] = np.divide(share_DS, mean_S, out=np.full_like(share_DS, np.nan), where=mean_S > 0)
    return lift_DS


def within_budget(candidates: Sequence[Candidate], num_batches: int, budget: int) -> list[Candidate]:
    """Return the first candidates that the budget reaches, with their routers and the model as it is."""
    left, chosen, routers = budget - num_batches, list[Candidate](), set[str]()
    for one in candidates:
        left -= num_batches * (2 if one.site.path in routers else 3)
        if left < 0:
            break
        chosen.append(one)
        routers.add(one.site.path)
    return chosen


def _expert_rows(runs: ChangedRuns, costs: Costs, one: Candidate) -> list[dict[str, object]]:
    cost, control = (costs.of(run(one.site, one.expert)) for run in (runs.without, runs.without_random))
    return [
        {
            "path": one.site.path,
            "layer": one.site.layer,
            "expert": one.expert,
            "label": own.label,
            "tokens": own.tokens,
            "load": one.load,
            "lift": one.lift_of.get(own.label, np.nan),
            "cost_nats": own.nats,
            "cost_low_nats": own.low,
            "cost_high_nats": own.high,
            "control_nats": other.nats,
        }
        for own, other in zip(cost, control, strict=True)
    ]


def _with_matched(experts: pd.DataFrame) -> pd.DataFrame:
    """Add the expert of the same router with the nearest load, and what knocking it out costs the same label."""
    load_of = {path: part.groupby("expert")["load"].first() for path, part in experts.groupby("path")}
    cost_of = experts.set_index(["path", "expert", "label"])["cost_nats"]
    matched: list[tuple[int, float]] = []
    for path, expert, label in zip(experts["path"], experts["expert"], experts["label"], strict=True):
        others = load_of[path].drop(expert)
        nearest = -1 if others.empty else int((others - load_of[path][expert]).abs().idxmin())
        matched.append((nearest, float("nan") if nearest < 0 else float(cost_of[path, nearest, label])))
    return experts.assign(matched_expert=[one for one, _ in matched], matched_nats=[cost for _, cost in matched])


def _layer_rows(runs: ChangedRuns, costs: Costs, site: Site, experts: pd.DataFrame) -> list[dict[str, object]]:
    own = experts[experts["path"] == site.path]
    by_label = own[(own["label"] != ALL) & own["lift"].notna()]
    need = (by_label["cost_nats"] - by_label["control_nats"]).to_numpy(dtype=np.float64)
    correlation = spearman(by_label["lift"].to_numpy(dtype=np.float64), need)
    return [
        {
            "path": site.path,
            "layer": site.layer,
            "label": cost.label,
            "shuffled_nats": cost.nats,
            "shuffled_low_nats": cost.low,
            "shuffled_high_nats": cost.high,
            "experts": own["expert"].nunique(),
            "need_correlation": correlation,
        }
        for cost in costs.of(runs.shuffled(site))
    ]
