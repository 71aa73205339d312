"""Make a whole study's tables with a planted answer: `unbalanced_fast` collapses, frozen and hash routers do not learn.

Shape suffixes: D domains, E experts.
"""

from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from tests.figures import planted_tasks

from speciate.analysis import critical
from speciate.analysis.tables import conform, stack
from speciate.config.sweeps import Cell, SweepPlan

ARMS = (
    "dense",
    "auxiliary",
    "unbalanced",
    "unbalanced_fast",
    "auxiliary_fast",
    "bias",
    "frozen",
    "hash",
    "top2",
)
TYPES = ("other", "keyword", "name", "number", "string", "operator", "comment")
# final largest share beyond uniform (0..1), strength of domain preference, loss against the reference
PLANT = {
    "dense": (0.0, 0.0, 0.03),
    "auxiliary": (0.02, 0.5, 0.0),
    "unbalanced": (0.2, 0.55, 0.01),
    "unbalanced_fast": (0.85, 0.4, 0.012),
    "auxiliary_fast": (0.04, 0.7, -0.004),
    "bias": (0.01, 0.5, 0.002),
    "frozen": (0.08, 0.22, 0.05),
    "hash": (0.05, 0.25, 0.06),
    "top2": (0.02, 0.45, -0.03),
}


def subject(arms: tuple[str, ...] = ARMS, domains: tuple[str, ...] = ("code", "math", "prose")) -> SimpleNamespace:
    """Return what a figure must know of the study."""
    controls = tuple(arm for arm in ("frozen", "hash") if arm in arms)
    return SimpleNamespace(
        arms=arms,
        domains=domains,
        reference=arms[min(1, len(arms) - 1)],
        incomparable=(),
        controls=controls,
        fixed=controls,
        confidence=0.95,
        margin=0.05,
        armed_after=0.1,
    )


def plant_of(arm: str) -> tuple[float, float, float]:
    """Return what is planted in `arm`; an invented arm is a mildly uneven learned router."""
    return PLANT.get(arm, (0.06, 0.5, 0.005 * len(arm) / 10))


def shares_DE(arm: str, seed: int, layer: int, progress: float, *, num_domains: int, num_experts: int) -> np.ndarray:
    """Return P(expert | domain) at a point of the training, 0..1."""
    rng = np.random.default_rng([sum(map(ord, arm)), seed, layer])
    extra, preference, _ = plant_of(arm)
    grown = 1.0 if arm in ("frozen", "hash") else min(1.0, 4 * progress)
    taste_DE = rng.normal(size=(num_domains, num_experts)) * preference * (0.3 + 0.7 * grown) * (1 + layer / 4)
    shares = np.exp(taste_DE + 0.05 * rng.normal(size=num_experts))
    shares /= shares.sum(1, keepdims=True)
    share = extra * grown * (0.9 if layer == 1 else 0.6)
    winner = np.eye(num_experts)[seed % num_experts]
    return (1 - share) * shares + share * winner


def information_bits(shares: np.ndarray) -> float:
    """Return I(expert; domain) with equal domain weights."""
    load = shares.mean(0)
    return float(np.mean(np.sum(shares * np.log2(np.maximum(shares, 1e-12) / np.maximum(load, 1e-12)), 1)))


def load_row(load: np.ndarray) -> dict[str, float]:
    """Return the load statistics of a selector's row."""
    size = len(load)
    entropy = -np.sum(load * np.log(np.maximum(load, 1e-12)))
    ordered = np.sort(load)
    return {
        "max_share": load.max(),
        "max_violation": size * load.max() - 1,
        "effective_experts": float(np.exp(entropy)),
        "gini": float(2 * np.sum(np.arange(1, size + 1) * ordered) / size - (size + 1) / size),
        "cv_squared": float(load.var() / load.mean() ** 2),
        "dead_experts": int((load < 0.1 / size).sum()),
        "revived_experts": 0,
    }


def limit_row(load: np.ndarray, *, full: bool) -> dict[str, Any]:
    """Return the limits of collapse of a top-1 selector, and where its load lies."""
    size, effective = len(load), load_row(load)["effective_experts"]
    largest, fewest = size ** (-1 / 3), max(size / 2, size**0.5)
    unevenness = max(float(load.max()) / largest, fewest / effective)
    return {
        "max_share_limit": largest,
        "effective_experts_limit": fewest,
        "effective_experts_high": effective + 0.1 if full else np.nan,
        "unevenness": unevenness,
        "load_state": ("collapsed" if unevenness > 1 else "even") if full else "",
    }


def tables(
    arms: tuple[str, ...] = ARMS,
    *,
    num_layers: int = 4,
    num_experts: int = 8,
    domains: tuple[str, ...] = ("code", "math", "prose"),
    seeds: tuple[int, ...] = (0, 1),
    num_steps: int = 250,
) -> dict[str, pd.DataFrame]:
    """Make every table of a planted study."""
    steps = sorted({*range(0, 31, 5), *range(30, num_steps + 1, 10), num_steps})
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("selectors", "experts", "types", "losses", "curves", "verdicts", "runs")
    }
    for arm, seed in product(arms, seeds):
        _losses(rows, arm, seed, domains=domains, num_steps=num_steps)
        for layer in range(num_layers if arm != "dense" else 0):
            selector = f"blocks.{layer}.ffn.router"
            key = {"ablation": arm, "seed": seed, "selector": selector, "layer": layer}
            for step, probe in [*((step, "telemetry") for step in steps), (num_steps, "full")]:
                shares = shares_DE(
                    arm, seed, layer, step / num_steps, num_domains=len(domains), num_experts=num_experts
                )
                at = {**key, "step": step, "probe": probe}
                rows["selectors"].append(_selector(at, arm, shares, seed=seed, layer=layer))
                named = probe == "full" or step == num_steps
                rows["experts"] += _experts(at, shares, domains if named else (), layer)
            rows["types"] += _types(key, seed, layer, size=num_experts, preference=plant_of(arm)[1])
    frames = {name: pd.DataFrame(result) for name, result in rows.items() if name != "runs"}
    _verdicts(frames, arms, seeds)
    frames["runs"] = pd.DataFrame(_runs(frames, arms, seeds, num_steps))
    frames["comparisons"] = _comparisons(frames["runs"], arms, arms[min(1, len(arms) - 1)])
    frames["collapse"] = pd.DataFrame(_collapse(frames["runs"], arms))
    frames |= _sweeps(frames, arms)
    frames["hypotheses"] = _hypotheses()
    frames["interventions"] = pd.DataFrame(_interventions(frames["selectors"], domains))
    frames["effects"] = pd.DataFrame(_effects(frames["selectors"]))
    frames["swaps"] = pd.DataFrame(_swaps(frames["selectors"]))
    frames["telling"] = pd.DataFrame(_telling(frames["selectors"]))
    frames["predictors"] = pd.DataFrame(_predictors(frames["selectors"]))
    frames["stability"] = pd.DataFrame(_stability(frames["selectors"]))
    cost = frames["effects"].groupby(["ablation", "seed"])["matched_nats"].mean().rename("matched_nats")
    frames["runs"] = frames["runs"].join(cost, on=["ablation", "seed"])
    frames["agreement"] = pd.DataFrame(_agreement(frames["selectors"], arms[min(1, len(arms) - 1)]))
    frames["measurements"] = _measurements(arms, seeds, num_layers, num_steps)
    frames["details"] = _details(arms, seeds)
    frames["cost"] = _cost(arms)
    frames |= planted_tasks.tables(arms, seeds, domains)
    frames["missing"] = pd.DataFrame(columns=["ablation", "seed", "step", "reason"])
    return frames


def _sweeps(frames: dict[str, pd.DataFrame], arms: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Return the tables of two sweeps over the arms: a line with a number an arm, and a grid of rate and weight."""
    routed = [arm for arm in arms if arm != "dense"]
    line = SweepPlan(
        name="line", parameters=("place",), critical=None, cells=tuple(Cell(arm=a, values=(len(a),)) for a in routed)
    )
    square = [arm for arm in ("bias", "unbalanced", "auxiliary_fast", "unbalanced_fast") if arm in arms]
    corners = [(1, 0.1), (1, 0.01), (10, 0.1), (10, 0.01)]
    grid = SweepPlan(
        name="grid",
        parameters=("rate", "weight"),
        critical="weight",
        cells=tuple(Cell(arm=arm, values=corner) for arm, corner in zip(square, corners, strict=False)),
    )
    sweeps = [line, grid] if len(square) == 4 else [line]
    collapsed = critical.collapsed_runs(frames["selectors"])
    fitted = [critical.critical_table(grid, collapsed, confidence=0.95)] if sweeps[1:] else []
    return {
        "cells": critical.cells_table(sweeps),
        "sweeps": critical.sweeps_table(sweeps, frames["runs"], collapsed, 0.95),
        "critical": conform("critical", stack(fitted)),
    }


COURSES = {"first_token_share": (0.5, 0.2), "recall": (0.2, 0.9), "k_mean": (16.0, 12.0), "stage": (0.0, 2.0)}
"""Name -> its value at the beginning and at the end."""
PROFILES = {"k_share": (4.0, 8.0, 16.0, 32.0), "k_by_entropy": (0.25, 0.5, 0.75, 1.0)}
"""Name -> its coordinates."""


def _measurements(arms: tuple[str, ...], seeds: tuple[int, ...], num_layers: int, num_steps: int) -> pd.DataFrame:
    """Plant a mixer that learns which keys to keep, and an importance that keeps its budget but in `unbalanced`."""
    rows: list[dict[str, Any]] = []
    checks = ((0, "telemetry"), (num_steps // 2, "telemetry"), (num_steps, "telemetry"), (num_steps, "full"))
    for arm, seed, (step, probe) in product(arms, seeds, checks):
        shift, done = 0.01 * seed + 0.005 * len(arm), step / num_steps
        key = {"ablation": arm, "seed": seed, "step": step, "probe": probe, "path": "parts.importance", "layer": -1}
        kept = 1 - 0.9 * done if arm.startswith("unbalanced") else 1.0
        rows.append({**key, "name": "mask_budget", "at": np.nan, "value": kept})
        rows += [{**key, "name": "mask_rate", "at": t, "value": t * kept} for t in (0.25, 0.5, 0.75, 1.0)]
        for layer in range(num_layers):
            module = {**key, "path": f"blocks.{layer}.mixer", "layer": layer}
            for name, (begin, end) in COURSES.items():
                value = begin + (end - begin) * done + shift + 0.02 * layer
                rows.append({**module, "name": name, "at": np.nan, "value": value})
            for name, places in PROFILES.items():
                rows += [{**module, "name": name, "at": at, "value": 1 / (1 + at) + shift} for at in places]
    return pd.DataFrame(rows)


def _cost(arms: tuple[str, ...]) -> pd.DataFrame:
    """Plant arms whose cost grows with the square of the length, and one, top2, with linear growth."""
    rows = [
        {
            "ablation": arm,
            "mixer": "attention",
            "layer": 0,
            "length": length,
            "kept_bytes": 100 * length ** (1 if arm == "top2" else 2),
            "train_ms": 0.01 * length ** (1 if arm == "top2" else 2),
            "decode_ms": 0.02 * length,
        }
        for arm in arms[-3:]
        for length in (512, 1024, 2048, 4096)
    ]
    return pd.DataFrame(rows)


def _details(arms: tuple[str, ...], seeds: tuple[int, ...]) -> pd.DataFrame:
    """Plant an importance that follows the loss, but is constant in the arm unbalanced; and two samplers."""
    rng, rows = np.random.default_rng(5), []
    words = ["def", " run", "(", "self", ")", ":", "\n", "  ", "return", " one"]
    for arm, seed, item, position in product(arms, seeds, (0, 1), range(40)):
        nats = float(rng.exponential(2.0))
        flat = arm.startswith("unbalanced")
        key = {"ablation": arm, "seed": seed, "item": item, "position": position, "token": position % len(words)}
        word = {"text": words[position % len(words)]}
        importance = 0.5 if flat else 0.3 * nats + 0.2 * float(rng.normal())
        rows.append({**key, **word, "what": "importance", "x": importance, "y": nats})
        if item == 0:
            rows.append(
                {**key, **word, "what": "unmasking_random_order", "x": float(rng.permutation(40)[0]), "y": nats}
            )
            rows.append({**key, **word, "what": "unmasking_semi_autoregressive", "x": position // 4, "y": nats})
    return pd.DataFrame(rows)


def _selector(at: dict[str, Any], arm: str, shares: np.ndarray, *, seed: int, layer: int) -> dict[str, Any]:
    load = shares.mean(0)
    full = at["probe"] == "full"
    size, information = len(load), information_bits(shares)
    null = 0.02 if full else 0.06
    drift = float(np.sum(load * np.log(np.maximum(load, 1e-12) * size)))
    return {
        **at,
        "num_slots": size,
        "num_chosen": 1,
        "decisions": 24576 if full else 4608,
        **load_row(load),
        "max_share_low": load.max() - 0.01 if full else np.nan,
        "max_share_high": min(1.0, load.max() + 0.01) if full else np.nan,
        "noise_floor": float(np.sqrt(2 * np.log(size) * (size - 1) / (24576 if full else 4608))),
        "information_bits": information + null,
        "null_mean_bits": null,
        "null_low_bits": 0.7 * null,
        "null_high_bits": 1.4 * null,
        "information_z": information / (0.2 * null),
        "p_value": 0.001,
        "q_value": 0.001 if full else np.nan,
        "excess_information_bits": information - 0.05,
        "commitment_nats": drift + information + 0.1,
        "drift_nats": drift,
        "information_nats": information + 0.1,
        "token_explained_bits": 0.6 * information if full else np.nan,
        "conditional_information_bits": 0.4 * information if full else np.nan,
        **limit_row(load, full=full),
    }


def _experts(at: dict[str, Any], shares: np.ndarray, domains: tuple[str, ...], layer: int) -> Iterator[dict[str, Any]]:
    load = shares.mean(0)
    rng = np.random.default_rng([layer, at["seed"], at["step"]])
    full = at["probe"] == "full"
    for slot, share in enumerate(load):
        row = {**at, "slot": slot}
        yield {**row, "domain": "all", "share": share, "lift": 1.0, "placebo_lift": 1.0 if full else np.nan}
        for index, domain in enumerate(domains):
            yield {
                **row,
                "domain": domain,
                "share": shares[index, slot],
                "lift": shares[index, slot] / share if share > 0 else np.nan,
                "placebo_lift": float(np.exp(0.06 * rng.normal())) if full else np.nan,
            }


def _types(key: dict[str, Any], seed: int, layer: int, *, size: int, preference: float) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng([seed, layer, 7])
    tokens = np.array([2900, 800, 2500, 300, 700, 1900, 900])
    shares = np.exp(2.2 * preference * rng.normal(size=(len(TYPES), size)))
    shares /= shares.sum(1, keepdims=True)
    load = tokens @ shares / tokens.sum()
    for index, slot in product(range(len(TYPES)), range(size)):
        yield {
            **key,
            "type": TYPES[index],
            "slot": slot,
            "tokens": tokens[index],
            "share": shares[index, slot],
            "lift": shares[index, slot] / load[slot],
        }


def _losses(
    rows: dict[str, list[dict[str, Any]]], arm: str, seed: int, *, domains: tuple[str, ...], num_steps: int
) -> None:
    extra = plant_of(arm)[2] + 0.004 * np.random.default_rng([seed, len(arm)]).normal()
    for index, domain in enumerate(domains):
        nats = 3.2 + 0.5 * index + extra + 0.02 * seed
        rows["losses"].append(
            {
                "ablation": arm,
                "seed": seed,
                "domain": domain,
                "nats": nats,
                "effective_groups": 20.0,
                "nats_low": nats - 0.04,
                "nats_high": nats + 0.04,
                "bits_per_byte": nats / np.log(2) / 3.1,
                "tokens": 16384,
                "bytes": 50790,
                "documents": 130,
            }
        )
        for step in range(50, num_steps + 1, 50):
            curve = nats + 2.5 * np.exp(-step / 60)
            rows["curves"].append({"ablation": arm, "seed": seed, "step": step, "series": domain, "nats": curve})
    for step in range(num_steps):
        curve = 3.7 + extra + 4.6 * np.exp(-step / 50)
        rows["curves"].append({"ablation": arm, "seed": seed, "step": step, "series": "train", "nats": curve})


def _verdicts(frames: dict[str, pd.DataFrame], arms: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    limits = {"rule_60_percent": 0.6, "rule_3_over_e": 0.375, "alarm": 0.3}
    rows: list[dict[str, Any]] = []
    seen = frames["selectors"]
    for arm, seed, rule in product(arms, seeds, limits):
        run = seen[(seen["ablation"] == arm) & (seen["seed"] == seed) & (seen["probe"] == "telemetry")]
        firsts = []
        for selector, group in run.groupby("selector"):
            late = group[(group["max_share"] > limits[rule]) & (group["step"] >= 25)]
            firsts.append(float(late["step"].min()) if len(late) else np.nan)
            rows.append({"ablation": arm, "seed": seed, "selector": selector, "rule": rule, "first_step": firsts[-1]})
        first = float(np.nanmin(firsts)) if np.isfinite(firsts).any() else np.nan
        if firsts:
            rows.append({"ablation": arm, "seed": seed, "selector": "any", "rule": rule, "first_step": first})
    frame = pd.DataFrame(rows, columns=["ablation", "seed", "selector", "rule", "first_step"])
    frames["verdicts"] = frame.assign(
        fired=frame["first_step"].notna(),
        checks_to_fire=frame["rule"].map({"rule_60_percent": 3.0, "rule_3_over_e": 1.0, "alarm": 2.0}),
    )


def _runs(
    frames: dict[str, pd.DataFrame], arms: tuple[str, ...], seeds: tuple[int, ...], num_steps: int
) -> Iterator[dict[str, Any]]:
    for arm, seed in product(arms, seeds):
        rows = {name: frame[(frame["ablation"] == arm) & (frame["seed"] == seed)] for name, frame in frames.items()}
        loss, seen, any_ = rows["losses"], rows["selectors"], rows["verdicts"]
        seen = seen[seen["probe"] == "full"]
        first = any_[any_["selector"] == "any"].set_index("rule")["first_step"]
        state = "indifferent" if len(seen) else None
        if len(seen):
            state = "collapsed" if np.isfinite(first["alarm"]) else "specialised"
        yield {
            "ablation": arm,
            "seed": seed,
            "about": f"The arm called {arm}",
            "parameters_total": 3_000_000 if len(seen) else 1_400_000,
            "parameters_active": 1_400_000,
            "num_steps": num_steps,
            "train_tokens": num_steps * 2048,
            "loss_error": np.nan,
            "spikes": 0,
            "skipped": 0,
            "loss": loss["nats"].mean(),
            "bits_per_byte": loss["bits_per_byte"].mean(),
            "num_selectors": len(seen),
            "max_share": seen["max_share"].max(),
            "unevenness": seen["unevenness"].max(),
            "max_violation": seen["max_violation"].max(),
            "effective_experts": seen["effective_experts"].min(),
            "gini": seen["gini"].max(),
            "dead_experts": seen["dead_experts"].sum() if len(seen) else np.nan,
            "revived_experts": 0 if len(seen) else np.nan,
            "information_bits": (seen["information_bits"] - seen["null_mean_bits"]).mean(),
            "excess_information_bits": seen["excess_information_bits"].mean(),
            "excess_low_bits": seen["excess_information_bits"].mean() - 0.03,
            "excess_high_bits": seen["excess_information_bits"].mean() + 0.03,
            "token_explained_bits": seen["token_explained_bits"].mean(),
            "conditional_information_bits": seen["conditional_information_bits"].mean(),
            "commitment_nats": seen["commitment_nats"].mean(),
            "drift_nats": seen["drift_nats"].mean(),
            "information_nats": seen["information_nats"].mean(),
            **{f"{rule}_step": first.get(rule, np.nan) for rule in ("rule_60_percent", "rule_3_over_e", "alarm")},
            "state": state,
        }


def _comparisons(runs: pd.DataFrame, arms: tuple[str, ...], reference: str) -> pd.DataFrame:
    rows = []
    for statistic in ("loss", "max_share", "excess_information_bits", "information_bits", "bits_per_byte"):
        wide = runs.pivot(index="seed", columns="ablation", values=statistic)
        for arm in arms:
            paired = (wide[arm] - wide[reference]).dropna()
            if arm == reference or paired.empty:
                continue
            half = 12.7 * max(float(paired.std()), 1e-3) / np.sqrt(2) if len(paired) > 1 else np.nan
            rows.append(
                {
                    "statistic": statistic,
                    "ablation": arm,
                    "reference": reference,
                    "num_seeds": len(paired),
                    "difference": paired.mean(),
                    "low": paired.mean() - half,
                    "high": paired.mean() + half,
                    "p_value": 0.04,
                    "p_holm": 0.2,
                    "minimum_detectable": 2 * half,
                }
            )
    return pd.DataFrame(rows)


def _effects(selectors: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Plant costs that fall with the layer; the deepest layer of every arm is idle."""
    full = selectors[selectors["probe"] == "full"]
    for row in full.itertuples():
        cost = 0.4 / (1 + row.layer) if row.layer < full["layer"].max() or row.layer == 0 else 0.01
        yield {
            "ablation": row.ablation,
            "seed": row.seed,
            "selector": row.selector,
            "layer": row.layer,
            "matched_nats": cost,
            "matched_low_nats": cost - 0.02,
            "matched_high_nats": cost + 0.02,
            "in_domain_nats": cost / 2,
            "random_nats": 2 * cost,
            "top_nats": 3 * cost,
            **dict.fromkeys(("kept_loaded_nats", "kept_lifted_nats", "kept_random_nats"), cost),
            "need_correlation": 0.5,
            "selectivity_nats": cost / 4,
            "selectivity_low_nats": cost / 4 - 0.01,
            "selectivity_high_nats": cost / 4 + 0.01,
            "selectivity_excess_nats": cost / 8,
            "use": "used" if cost > 0.07 else "idle",
        }


def _swaps(selectors: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Plant another seed's routers that cost .3, .1 with their slots matched, and early ones that cost .05."""
    costs = {("seed", False): 0.3, ("seed", True): 0.1, ("step", False): 0.05}
    for row, ((donor, relabelled), cost) in product(
        selectors[selectors["probe"] == "full"].itertuples(), costs.items()
    ):
        yield {
            **_key(row),
            "donor": donor,
            "other_ablation": row.ablation,
            "other_seed": row.seed if donor == "step" else 1 - row.seed,
            "other_step": 0 if donor == "step" else row.step,
            "relabelled": relabelled,
            "domain": "all",
            "cost_nats": cost + 0.01 * row.seed,
            "cost_low_nats": cost - 0.02,
            "cost_high_nats": cost + 0.02 + 0.01 * row.seed,
            "clean_nats": 4.0,
            "tokens": 1000,
            "documents": 20,
            "blocks": 24,
        }


def _key(row: Any) -> dict[str, Any]:
    """Return the columns that name a run and its selector."""
    return {name: getattr(row, name) for name in ("ablation", "seed", "selector", "layer")}


def _telling(selectors: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Plant selections that add .02 to what tokens tell, and nothing in unlearned routers."""
    for row, length in product(selectors[selectors["probe"] == "full"].itertuples(), (0, 4)):
        gain = 0.0 if row.ablation in ("frozen", "hash") else 0.02
        yield {
            **_key(row),
            "length": length,
            "texts": 600,
            "groups": 90,
            "token_accuracy": 0.75 + length / 100,
            "selection_accuracy": 0.5,
            "both_accuracy": 0.75 + length / 100 + gain,
            "gain": gain,
            "gain_low": gain - 0.01,
            "gain_high": gain + 0.01,
        }


def _predictors(selectors: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Plant choices that follow the token, less so in deeper layers."""
    shares = {"token": 0.8, "previous_token": 0.2, "position": 0.01}
    for row, (name, share) in product(selectors[selectors["probe"] == "full"].itertuples(), shares.items()):
        yield {
            **_key(row),
            "predictor": name,
            "decisions": 4000,
            "values": 64,
            "entropy_bits": 3.0,
            "information_bits": 3 * share,
            "by_chance_bits": 0.0,
            "share": share / (1 + row.layer),
            "null_low": -0.002,
            "null_high": 0.002,
            "p_value": 0.01,
        }


def _stability(selectors: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Plant choices that settle in step with the training; those of unlearned routers never change."""
    checks = selectors[selectors["probe"] == "telemetry"]
    before = -1
    for row in checks.itertuples():
        settled = 1.0 if row.ablation in ("frozen", "hash") else row.step / checks["step"].max()
        before = -1 if row.step == 0 else before
        yield {
            "ablation": row.ablation,
            "seed": row.seed,
            "selector": row.selector,
            "layer": row.layer,
            "step": row.step,
            "previous_step": before,
            "decisions": 4000,
            "saturation": (1 + settled) / 2,
            "saturation_by_chance": 0.5,
            "saturation_kappa": settled,
            "saturation_low": settled - 0.1,
            "saturation_high": settled + 0.1,
            "churn": 0.1,
            "churn_by_chance": 0.5,
            "churn_ratio": 0.2,
            "churn_low": 0.1,
            "churn_high": 0.3,
        }
        before = row.step


def _agreement(selectors: pd.DataFrame, reference: str) -> Iterator[dict[str, Any]]:
    full = selectors[selectors["probe"] == "full"]
    for row in full[full["ablation"] != reference].itertuples():
        yield {
            "ablation": row.ablation,
            "seed": row.seed,
            "other_ablation": reference,
            "other_seed": row.seed,
            "selector": row.selector,
            "layer": row.layer,
            "decisions": 4000,
            "ami": 0.3,
        }


def _interventions(selectors: pd.DataFrame, domains: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for row in selectors[selectors["probe"] == "full"].itertuples():
        for domain in (*domains, "all"):
            yield {
                "ablation": row.ablation,
                "seed": row.seed,
                "selector": row.selector,
                "layer": row.layer,
                "intervention": "load_matched",
                "slot": -1,
                "domain": domain,
                "cost_nats": 0.1,
                "cost_low_nats": 0.08,
                "cost_high_nats": 0.12,
                "clean_nats": 4.0,
                "tokens": 1000,
                "documents": 20,
                "blocks": 24,
            }


def _collapse(runs: pd.DataFrame, arms: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for arm in arms:
        rows = runs[(runs["ablation"] == arm) & (runs["num_selectors"] > 0)]
        fired = int(rows["alarm_step"].notna().sum())
        if len(rows):
            low, high = _wilson(fired, len(rows))
            yield {
                "ablation": arm,
                "runs": len(rows),
                "collapsed": fired,
                "share": fired / len(rows),
                "low": low,
                "high": high,
            }


def _wilson(hits: int, count: int) -> tuple[float, float]:
    z, share = 1.959964, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _hypotheses() -> pd.DataFrame:
    columns = ("name", "statement", "statistic", "arm", "reference", "direction", "margin")
    numbers = ("num_seeds", "difference", "low", "high", "verdict")
    rows = [
        ("collapse", "A fast router without balancing collapses", "max_share", "unbalanced_fast", "auxiliary")
        + ("greater", 0.1, 2, 0.62, 0.41, 0.83, "supported"),
        ("invisible", "Collapse cannot be seen in the loss", "loss", "unbalanced_fast", "auxiliary")
        + ("equivalent", 0.05, 2, 0.012, -0.11, 0.134, "undecided"),
        ("experts_help", "Experts reach a lower loss than a dense layer", "loss", "frozen", "dense")
        + ("less", 0.0, 2, 0.02, 0.004, 0.036, "refuted"),
    ]
    others = {"test": "difference", "value": np.nan, "counts_if": "", "over": "", "per": "unit", "scale": "plain"}
    return pd.DataFrame(rows, columns=[*columns, *numbers]).assign(**others)
