"""Write training logs as each framework writes them, from known counts of choices.

Each writer follows its framework's own code, and not this package's readers: sums and means of plain numbers.
"""

import math
import pathlib
from collections.abc import Callable, Mapping, Sequence

Loads = Sequence[Sequence[float]]
"""Counts of choices: layers, experts."""
EVEN, UNEVEN, ONE = (4.0, 4.0, 4.0, 4.0), (12.0, 4.0, 0.0, 0.0), (16.0, 0.0, 0.0, 0.0)


def shares(load: Sequence[float]) -> list[float]:
    return [count / sum(load) for count in load]


def entropy(load: Sequence[float]) -> float:
    return -sum(share * math.log(share) for share in shares(load) if share > 0)


def deviation(load: Sequence[float], minus: int = 0) -> float:
    mean = sum(load) / len(load)
    return math.sqrt(sum((count - mean) ** 2 for count in load) / (len(load) - minus))


def imbalance(load: Sequence[float]) -> float:
    return max(load) / (sum(load) / len(load))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def torchtitan(loads: Loads) -> dict[str, float]:
    each = {
        "cv": [deviation(load) / mean(load) for load in loads],
        "max_vio": [imbalance(load) - 1 for load in loads],
        # an expert with a few tokens is cold, too
        "cold_frac": [sum(count <= 0.1 * mean(load) for count in load) / len(load) for load in loads],
    }
    names = ((name, over) for name in each for over in ("mean", "max"))
    return {f"moe_load/{name}/{over}": {"mean": mean, "max": max}[over](each[name]) for name, over in names}


def megatron(loads: Loads) -> dict[str, float]:
    """Two ranks hold half of the experts each."""
    factors = []
    for load in loads:
        half = len(load) // 2
        ranks = [sum(load[:half]), sum(load[half:])]
        factors.append(max(ranks) / mean(ranks))
    values = {
        "load_balancing_loss": 1.0,
        "moe/avg_overload_factor": mean(factors),
        "moe/max_overload_factor": max(factors),
    }
    values |= {f"moe/max_overload_factor_layer_{2 * i + 1}": factor for i, factor in enumerate(factors)}
    # every other layer has no experts, and logs 0
    values |= {f"moe/max_overload_factor_layer_{2 * i}": 0.0 for i in range(len(factors))}
    return values | {f"moe/load_balancing_loss_layer_{2 * i + 1}": 1.0 for i in range(len(factors))}


def olmo_core(loads: Loads) -> dict[str, float]:
    each = {f"train/block {layer:02d}/load imbalance": imbalance(load) for layer, load in enumerate(loads)}
    return {**each, "train/load imbalance": max(each.values()), "train/load balancing loss": 0.01}


def verl(loads: Loads) -> dict[str, float]:
    each = {
        "max_vio": [imbalance(load) - 1 for load in loads],
        "min_vio": [min(load) / mean(load) - 1 for load in loads],
        "avg_vio": [mean([abs(count / mean(load) - 1) for count in load]) for load in loads],
    }
    values = {}
    for name, per_layer in each.items():
        values |= {f"rollout/moe/{name}/layer_{layer}": value for layer, value in enumerate(per_layer)}
        values |= {f"rollout/moe/{name}/max": max(per_layer), f"rollout/moe/{name}/avg": mean(per_layer)}
    return values


def nemo_automodel(loads: Loads) -> dict[str, float]:
    cvs = [deviation(load, minus=1) / mean(load) for load in loads]
    diversity = [math.exp(entropy(load)) / len(load) for load in loads]
    dead = [sum(count == 0 for count in load) / len(load) for load in loads]
    values: dict[str, float] = {}
    for layer, (cv, diverse, idle) in enumerate(zip(cvs, diversity, dead, strict=True)):
        values |= {f"moe/layer_{layer}/cv": cv, f"moe/layer_{layer}/expert_diversity": diverse}
        values |= {f"moe/layer_{layer}/dead_expert_frac": idle, f"moe/layer_{layer}/utilization_mean": 1.0}
    utilization = {
        (layer, expert): count / mean(load) for layer, load in enumerate(loads) for expert, count in enumerate(load)
    }
    values |= {"moe/cv_mean": mean(cvs), "moe/cv_max": max(cvs), "moe/expert_diversity_min": min(diversity)}
    values |= {"moe/expert_diversity_mean": mean(diversity), "moe/dead_expert_frac_mean": mean(dead)}
    values["moe/expert_utilization_max"] = max(utilization.values())
    ranked = sorted(utilization, key=utilization.__getitem__)
    for layer, expert in {*ranked[:2], *ranked[-2:]}:
        values[f"moe_expert_utilization/layer_{layer}_expert_{expert}"] = utilization[layer, expert]
    return values


def trl(loads: Loads) -> dict[str, float]:
    normalized = [entropy(load) / math.log(len(load)) for load in loads]
    largest = [max(shares(load)) for load in loads]
    active = [sum(count > 0 for count in load) / len(load) for load in loads]
    return {
        "eval_expert_usage/normalized_entropy_mean": mean(normalized),
        "eval_expert_usage/normalized_entropy_min": min(normalized),
        "eval_expert_usage/max_share_mean": mean(largest),
        "eval_expert_usage/max_share_max": max(largest),
        "eval_expert_usage/active_fraction_mean": mean(active),
    }


WRITERS: Mapping[str, Callable[[Loads], dict[str, float]]] = {
    "torchtitan": torchtitan,
    "megatron": megatron,
    "olmo_core": olmo_core,
    "verl": verl,
    "nemo_automodel": nemo_automodel,
    "trl": trl,
}


def events(folder: pathlib.Path, lines: Sequence[tuple[int, Mapping[str, float]]]) -> pathlib.Path:
    """Write an event file with tensorboardX."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder))
    for step, values in lines:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
    writer.close()
    (file,) = folder.glob("*tfevents*")
    return file
