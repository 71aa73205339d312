"""Measure what interventions and swaps cost beside an evaluation, for a model of the default study on one CPU core.

    python benchmarks/interventions.py

Bars: ten evaluations of the same model for all interventions, with 8 layers of 8 experts and 8 blocks of each of 3
domains, and two evaluations for swaps with one other model. An evaluation is one pass over the test set and one over
the probe set, of 128 and 64 blocks of each domain. The tokens are random, and weights as they begin, so nothing depends
on what a model has learned.
"""

import argparse
import dataclasses

import numpy as np
import torch
from observation import STUDY, VOCABULARY, blocks
from timing import medians, show

from speciate.config.components import component_module
from speciate.config.extends import merge
from speciate.config.run import RunSpec
from speciate.config.study import read_study
from speciate.data.blocks import BlockSet
from speciate.evaluation.interventions import nats_by_case
from speciate.evaluation.likelihood import nll_by_document
from speciate.evaluation.swaps import Donor, nats_by_swap
from speciate.stages.evaluate import probe_selectors
from speciate.training.build_model import build_model

LAYERS, BLOCKS, BAR, BAR_OF_SWAPS = 8, 8, 10.0, 2.0
DOMAINS = ("code", "math", "prose")
FFN = {
    "kind": "moe",
    "num_experts": 8,
    "top_k": 1,
    "hidden": 256,
    "activation": "gelu",
    "router": {"kind": "learned"},
    "balance": {"kind": "auxiliary", "weight": 0.01},
}


def spec_with_layers() -> RunSpec:
    """Return the default study's base run with as many layers, all with experts."""
    study = read_study(STUDY)
    base = {name: value for name, value in study.base.items() if name != "model"}
    sizes = {"width": 128, "num_layers": LAYERS, "context": 128, "position": "rotary"}
    block = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": FFN, "depth": "every"}
    return RunSpec.model_validate(merge(base, {"ablation": "moe", "seed": 0, "model": {**sizes, "block": block}}))


def held_out(name: str, per_domain: int) -> BlockSet:
    """Return blocks of random tokens, with every column that an evaluation reads."""
    part = blocks(name, DOMAINS, per_domain, 128)
    rows = np.arange(len(part.documents))
    named = {"document": rows, "id": rows.astype(str), "group": rows.astype(str), "bytes": 1, "surface": 1}
    return dataclasses.replace(part, documents=part.documents.assign(**named))


def main() -> None:
    """Time an evaluation, all interventions, and swaps with one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    spec = spec_with_layers()
    model, other = (build_model(run, VOCABULARY).eval() for run in (spec, spec.model_copy(update={"seed": 1})))
    objective = component_module(spec.objective).Objective(spec.objective)
    test, probe = held_out("test", 128), held_out("probe", 64)
    some, token_bytes_V = probe.prefix(BLOCKS), np.full(VOCABULARY, 3)
    donors = {Donor("seed", "moe", 1, spec.training.num_steps): other}

    def evaluate() -> None:
        nll_by_document(model, objective, test, token_bytes_V, device="cpu")
        probe_selectors(model, objective, probe)

    cases = {
        "evaluation": evaluate,
        "interventions": lambda: nats_by_case(model, objective, some, seed=0, max_slots=16),
        "swaps": lambda: nats_by_swap(model, objective, some, donors),
    }
    seconds = medians(cases, rounds)
    title = f"interventions, {LAYERS} layers, {BLOCKS} blocks a domain"
    show(title, seconds, "interventions", {"evaluation": BAR})
    show("swaps with one model", seconds, "swaps", {"evaluation": BAR_OF_SWAPS})


if __name__ == "__main__":
    main()
