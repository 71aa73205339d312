"""Measure what observing a run adds to its training time, for runs of the default study on one CPU core.

    python benchmarks/observation.py

Bar: at most .05 of the time of the same run unobserved. One training step, one observation of the probe blocks and
one measurement of the validation loss are timed by turns, with the study's model and shapes, half-way through the run
and on random tokens. The study's own cadence gives the numbers of each in

    observed = unobserved + looks x look + validations x (noted look + validation),   unobserved = steps x update

where a look is one observation, a noted look one that also collects metrics, and an update one training step.
"""

import argparse
import json
import pathlib

import numpy as np
import pandas as pd
import torch
from timing import medians

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.config.study import read_study
from speciate.data.blocks import BlockSet
from speciate.model.transformer import Transformer
from speciate.selection.selection import selectors
from speciate.training import loop
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.observer import Observer, observation_due, validation_due

STUDY = pathlib.Path(__file__).parents[1] / "config.yaml"
ARMS, VOCABULARY, BAR = ("dense", "auxiliary", "sparse"), 4096, 0.05


def blocks(name: str, domains: tuple[str, ...], per_domain: int, length: int) -> BlockSet:
    """Return a held-out set of random tokens, with two documents a block, as wide as the default study's."""
    num_blocks = per_domain * len(domains)
    domain_B = np.arange(num_blocks, dtype=np.int32) % len(domains)
    documents = pd.DataFrame({"domain": [domains[index] for index in domain_B.repeat(2)]})
    return BlockSet(
        name=name,
        domains=domains,
        tokens=np.random.default_rng(0).integers(0, VOCABULARY, (num_blocks, length)),
        document=np.arange(2 * num_blocks, dtype=np.int32).repeat(length // 2).reshape(num_blocks, length),
        domain=domain_B,
        documents=documents,
        types=None,
    )


def prepared(spec: RunSpec, probe: BlockSet, validation: BlockSet) -> tuple[TrainContext, State]:
    """Return a run on random blocks, half-way through."""
    torch.manual_seed(0)
    model = Transformer(spec.model, VOCABULARY)
    optimizer = component_module(spec.optimizer).build(spec.optimizer, model)
    objective = component_module(spec.objective).Objective(spec.objective)
    token_BT = torch.randint(VOCABULARY, (spec.training.blocks_per_step, spec.model.context))
    observer = Observer(spec.telemetry, objective, probe, validation)
    run = TrainContext(
        spec=spec, objective=objective, lr_factor=lambda step: 1.0, tokens=lambda step: token_BT, observer=observer
    )
    return run, State(spec.training.num_steps // 2, model, optimizer, [], {})


def main() -> None:
    """Time each arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds to take the median of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    study = read_study(STUDY)
    held_out, domains = study.held_out, tuple(study.domains)
    probe = blocks("probe", domains, held_out.probe_blocks, study.block_length)
    validation = blocks("validation", domains, held_out.validation_blocks, study.block_length)
    for arm in ARMS:
        spec = study.run(arm, study.seeds[0])
        run, state = prepared(spec, probe, validation)
        cases = {
            "update": lambda run=run, state=state: loop.train_step(run, state),
            "look": lambda run=run, state=state: run.observer.observe(state.model, 0, {}, with_metrics=False),
            "noted look": lambda run=run, state=state: run.observer.observe(state.model, 0, {}),
            "validation": lambda run=run, state=state: run.observer.validate(state.model, run.objective),
        }
        seconds = medians(cases, rounds, warm_rounds=2)
        num_steps, steps = spec.training.num_steps, range(spec.training.num_steps + 1)
        noted_steps = {step for step in steps if validation_due(spec.telemetry, step, num_steps)}
        seen = {step for step in steps if selectors(state.model) and observation_due(spec.telemetry, step, num_steps)}
        looks, validations = len(seen - noted_steps), len(noted_steps)
        unobserved = num_steps * seconds["update"]
        parts = {
            "looks": looks * seconds["look"],
            "noted looks": validations * seconds["noted look"],
            "validations": validations * seconds["validation"],
        }
        of_runs = {"observed": unobserved + sum(parts.values()), "the same run unobserved": unobserved}
        row = {
            "benchmark": f"observation of {num_steps} steps, arm {arm}",
            "cpu_ms": {name: round(1000 * value, 1) for name, value in (of_runs | seconds).items()},
            "counts": {"looks": looks, "validations": validations},
            "share": {name: round(value / unobserved, 4) for name, value in parts.items()},
            "ours": "observed",
            "ours_over": {
                "the same run unobserved": {"ratio": round(of_runs["observed"] / unobserved, 4), "bar": 1 + BAR}
            },
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
