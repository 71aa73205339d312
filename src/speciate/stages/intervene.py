r"""Override what each selector of a finished run chooses, and see what it costs.

The stage runs the finished model on the first blocks of the probe set as it is, and then once for each intervention on
each selector: random choice with and without the load, everything to the top expert, each slot masked, and controls.
Its table has the costs by domain, with intervals from a bootstrap over documents. With what `evaluate` wrote of the
run, it also has how selective the need of the slots is. A run that failed, and one without selectors, has a table
without rows. The stage uses the run's own device (`training.device`).

Example:
    speciate intervene --spec results/specs/<digest>.json --run-folder results/smoke/runs/auxiliary/seed0 \
        --mixture-folder MIXTURE --output interventions.parquet
"""

import argparse
import pathlib

import numpy as np
import pandas as pd
import safetensors.numpy
import torch

from speciate.analysis import tables
from speciate.analysis.draws import sum_into
from speciate.analysis.effects import costs
from speciate.analysis.information import shares_by_domain
from speciate.analysis.observation import group_documents, layer_of
from speciate.analysis.selectors import lift
from speciate.cli import log
from speciate.config.run import RunSpec, read_spec
from speciate.config.stage_specs import INTERVENED, InterveneSpec
from speciate.data.blocks import BlockSet, read_block_set
from speciate.data.mixture.manifest import read_mixture
from speciate.evaluation.interventions import Case, Sums, nats_by_case
from speciate.graph.run_paths import check_tokenizer, read_metadata
from speciate.io import atomic_write
from speciate.selection.tally import Array
from speciate.training.checkpoint.load_run import load_run
from speciate.training.distributed.devices import acquire_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of an InterveneSpec")
    parser.add_argument("--run-folder", type=pathlib.Path, required=True, help="what `train` wrote for the run")
    parser.add_argument("--mixture-folder", type=pathlib.Path, required=True, help="what `balance` wrote")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="table to write, .parquet")


def main(arguments: argparse.Namespace) -> None:
    """Intervene in the run, and write the table."""
    spec = read_spec(InterveneSpec, arguments.spec)
    rows = intervene(spec, arguments.run_folder, arguments.mixture_folder)
    with atomic_write(arguments.output) as temp_path:
        tables.write_parquet(rows, INTERVENED, temp_path)
    whole = rows[(rows["domain"] == costs.ALL) & (rows["intervention"] == costs.MATCHED)]
    shown = ", ".join(f"{row.selector} {row.cost_nats:.4f}" for row in whole.itertuples())
    log(
        f"{spec.run.ablation} seed {spec.run.seed}: load-matched random choice costs, in nats: {shown or 'no selector'}"
    )


def intervene(spec: InterveneSpec, run_folder: pathlib.Path, mixture_folder: pathlib.Path) -> pd.DataFrame:
    """Return the run's rows of table `interventions`.

    Raises:
        ValueError: the run's files do not belong together, or not to this mixture; names the file.
    """
    if read_metadata(run_folder).get("state") == "failed":
        return tables.conform(INTERVENED, pd.DataFrame())
    blocks = read_block_set(mixture_folder, "probe")
    blocks = blocks.prefix(min(spec.blocks, len(blocks) // len(blocks.domains)))
    run, clean, changed = nats_of_run(spec, run_folder, mixture_folder, blocks)
    lifts = lifts_of_run(run_folder, blocks)
    return tables.conform(INTERVENED, costs_table(run, clean, changed, blocks=blocks, spec=spec, lifts=lifts))


def lifts_of_run(run_folder: pathlib.Path, blocks: BlockSet) -> dict[str, Array]:
    """Return the lift of each slot of a selector in each domain, (D, S) by its path, as table `experts` has it.

    It rests on the whole probe set, so on what `evaluate` wrote. A run that was not evaluated has none.
    """
    file = run_folder / "probe.safetensors"
    arrays = safetensors.numpy.load_file(file) if file.is_file() else {}
    domain_R = blocks.documents["domain"].map({name: index for index, name in enumerate(blocks.domains)}).to_numpy()
    lifts = {}
    for name, chosen_RS in arrays.items():
        if name.endswith("/chosen_GS"):
            chosen_DS = sum_into(domain_R, len(blocks.domains), chosen_RS.astype(np.float64))
            share_DS, _ = shares_by_domain(chosen_DS)
            lifts[name.removesuffix("/chosen_GS")] = lift(share_DS, np.broadcast_to(share_DS.mean(0), share_DS.shape))
    return lifts


def nats_of_run(
    spec: InterveneSpec, run_folder: pathlib.Path, mixture_folder: pathlib.Path, blocks: BlockSet
) -> tuple[RunSpec, Sums, dict[Case, Sums]]:
    """Return the run, and its nats by document without and with every intervention."""
    mixture = read_mixture(mixture_folder)
    check_tokenizer(run_folder, mixture_folder, mixture.tokenizer_fingerprint)
    run, model = load_run(run_folder, mixture.vocabulary)
    torch.set_num_threads(run.training.threads)
    objective = run.objective.component().Objective(run.objective)
    with acquire_device(run.training) as device:
        return run, *nats_by_case(model.to(device), objective, blocks, seed=spec.draw_seed, max_slots=spec.max_slots)


def costs_table(
    run: RunSpec,
    clean: Sums,
    changed: dict[Case, Sums],
    *,
    blocks: BlockSet,
    spec: InterveneSpec,
    lifts: dict[str, Array],
) -> pd.DataFrame:
    """Return a row for each intervention and domain, and one for the selectivity of each selector with `lifts`."""
    groups = group_documents(blocks.documents, blocks.domains)
    settings = costs.Draws(spec.resamples, spec.confidence, spec.draw_seed)
    before = costs.Nats(clean.nats_G, clean.tokens_G)
    parts = []
    for case, sums in changed.items():
        rows = costs.cost_rows(before, costs.Nats(sums.nats_G, sums.tokens_G), groups, settings)
        parts.append(rows.assign(selector=case.selector, intervention=case.intervention, slot=case.slot))
    for path, lift_DS in lifts.items():
        slots = slots_of(path, changed, lift_DS)
        if slots and len(groups.domains) > 1:
            rows = pd.DataFrame([costs.selectivity_row(slots, before, groups, settings)])
            parts.append(rows.assign(selector=path, intervention=costs.SELECTIVITY, slot=-1))
    layers = [rows.assign(layer=layer_of(rows["selector"].iloc[0])) for rows in parts]
    return tables.stack(layers).assign(ablation=run.ablation, seed=run.seed, blocks=len(blocks.tokens))


def slots_of(path: str, changed: dict[Case, Sums], lift_DS: Array) -> list[costs.Slot]:
    """Return what masking each slot of a selector did; slots without a lift in every domain are left out."""
    slots = []
    for case, sums in changed.items():
        if case.selector == path and case.intervention == "masked_slot" and not np.isnan(lift_DS[:, case.slot]).any():
            other = changed.get(Case(path, "masked_control", case.slot))
            control = None if other is None else costs.Nats(other.nats_G, other.tokens_G)
            own = int(lift_DS[:, case.slot].argmax())
            slots.append(costs.Slot(own, costs.Nats(sums.nats_G, sums.tokens_G), control))
    return slots
