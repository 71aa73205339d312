r"""Put the routers of one run into another, and see what it costs.

Each finished run gets, in turn, the selectors of another seed of its arm (the next one; the last seed gets the
first's), of the reference at its seed (the reference gets those of every other arm), and its own of earlier steps: the
initial ones of a run that starts from scratch, and those of the weights that `training.keep_steps` keeps. The stage
uses each run's own device (`training.device`).

Example:
    speciate swap --spec results/specs/<digest>.json --runs results/smoke/runs --mixture-folder MIXTURE \
        --output-folder tables
"""

import argparse
import functools
import itertools
import pathlib
from collections.abc import Iterator

import pandas as pd
import torch

from speciate.analysis import tables
from speciate.analysis.effects import costs
from speciate.analysis.observation import Groups, group_documents, layer_of
from speciate.cli import log
from speciate.config.run import RunSpec, read_spec
from speciate.config.stage_specs import SWAPPED, SwapSpec
from speciate.data.blocks import BlockSet, read_block_set
from speciate.data.mixture.manifest import read_mixture
from speciate.evaluation.swaps import ALL, Donor, Swap, nats_by_swap
from speciate.graph.run_paths import check_tokenizer, read_metadata
from speciate.io import atomic_write
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model
from speciate.training.checkpoint.load_run import load_run
from speciate.training.checkpoint.snapshots import SNAPSHOTS
from speciate.training.distributed.devices import acquire_device

Run = tuple[str, int]
"""(ablation, seed)"""
MODELS_AT_ONCE = 8
"""Models that are held in memory, so that a seed's reference is not read for every arm."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a SwapSpec: arms, seeds, reference")
    parser.add_argument(
        "--runs", type=pathlib.Path, required=True, help="the folder that holds ablation/seed<k> of all runs"
    )
    parser.add_argument("--mixture-folder", type=pathlib.Path, required=True, help="what `balance` wrote")
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write the table as .csv and .parquet"
    )


def main(arguments: argparse.Namespace) -> None:
    """Swap the selectors of all runs, and write the table."""
    spec = read_spec(SwapSpec, arguments.spec)
    rows = swap(spec, arguments.runs, arguments.mixture_folder)
    with atomic_write(arguments.output_folder / f"{SWAPPED}.parquet") as temp_path:
        tables.write_parquet(rows, SWAPPED, temp_path)
    with atomic_write(arguments.output_folder / f"{SWAPPED}.csv") as temp_path:
        tables.write_csv(rows, temp_path)
    log(f"{len(rows[rows['domain'] == costs.ALL])} swaps")


def swap(spec: SwapSpec, runs: pathlib.Path, mixture_folder: pathlib.Path) -> pd.DataFrame:
    """Return table `swaps` of a study; runs that failed give and get nothing.

    Raises:
        ValueError: a run's files do not belong together, or not to this mixture; names the file.
    """
    torch.set_num_threads(1)
    blocks = read_block_set(mixture_folder, "probe")
    blocks = blocks.prefix(min(spec.blocks, len(blocks) // len(blocks.domains)))
    groups, mixture = group_documents(blocks.documents, blocks.domains), read_mixture(mixture_folder)
    finished = [
        run
        for run in itertools.product(spec.arms, spec.seeds)
        if read_metadata(folder_of(runs, run)).get("state") != "failed"
    ]

    @functools.lru_cache(MODELS_AT_ONCE)
    def load(run: Run, weights: str = "model.safetensors") -> tuple[RunSpec, Transformer]:
        folder = folder_of(runs, run)
        check_tokenizer(folder, mixture_folder, mixture.tokenizer_fingerprint)
        return load_run(folder, mixture.vocabulary, weights)

    parts = []
    # seed by seed, since most pairs are of one seed
    for run in sorted(finished, key=lambda run: spec.seeds.index(run[1])):
        settings, model = load(run)
        donors: dict[Donor, Transformer] = {
            Donor(kind, *other, step=load(other)[0].training.num_steps): load(other)[1]
            for kind, other in others(spec, run)
            if other in finished
        }
        earlier = [(step, load(run, weights)[1]) for step, weights in snapshots(folder_of(runs, run), settings)]
        if settings.start.kind == "scratch":
            earlier = [(0, build_model(settings, mixture.vocabulary).eval()), *earlier]
        donors |= {Donor("step", *run, step=step): weights for step, weights in earlier}
        parts.append(rows_of_run(run, settings, model, donors, blocks=blocks, groups=groups, spec=spec))
    return tables.conform(SWAPPED, tables.stack([part for part in parts if len(part)]))


def folder_of(runs: pathlib.Path, run: Run) -> pathlib.Path:
    """Return the folder of a run."""
    return runs / run[0] / f"seed{run[1]}"


def others(spec: SwapSpec, run: Run) -> Iterator[tuple[str, Run]]:
    """Yield (kind, run) of the runs whose selectors a run gets."""
    ablation, seed = run
    following = spec.seeds[(spec.seeds.index(seed) + 1) % len(spec.seeds)]
    if following != seed:
        yield "seed", (ablation, following)
    if ablation != spec.reference:
        yield "arm", (spec.reference, seed)
    else:
        yield from (("arm", (other, seed)) for other in spec.arms if other != ablation)


def snapshots(folder: pathlib.Path, run: RunSpec) -> list[tuple[int, str]]:
    """Return (step, file in the run's folder) of the weights of earlier steps that the run kept."""
    steps = [step for step in sorted(run.training.keep_steps) if 0 < step < run.training.num_steps]
    named = [(step, f"{SNAPSHOTS}/step{step}.safetensors") for step in steps]
    return [(step, name) for step, name in named if (folder / name).is_file()]


def rows_of_run(
    run: Run,
    settings: RunSpec,
    model: Transformer,
    donors: dict[Donor, Transformer],
    *,
    blocks: BlockSet,
    groups: Groups,
    spec: SwapSpec,
) -> pd.DataFrame:
    """Return a row for each swap and domain."""
    objective = settings.objective.component().Objective(settings.objective)
    with acquire_device(settings.training) as device:
        for one in (model, *donors.values()):
            one.to(device)
        clean, swapped = nats_by_swap(model, objective, blocks, donors)
        for one in (model, *donors.values()):
            one.cpu()
    drawn = costs.Draws(spec.resamples, spec.confidence, spec.draw_seed)
    before = costs.Nats(clean.nats_G, clean.tokens_G)
    parts = []
    for case, sums in swapped.items():
        rows = costs.cost_rows(before, costs.Nats(sums.nats_G, sums.tokens_G), groups, drawn)
        parts.append(rows.assign(ablation=run[0], seed=run[1], blocks=len(blocks.tokens), **names_of(case)))
    return tables.stack(parts)


def names_of(case: Swap) -> dict[str, object]:
    """Return the columns that name a swap."""
    donor = case.donor
    return {
        "selector": case.selector,
        "layer": -1 if case.selector == ALL else layer_of(case.selector),
        "donor": donor.kind,
        "other_ablation": donor.ablation,
        "other_seed": donor.seed,
        "other_step": donor.step,
        "relabelled": case.relabelled,
    }
