r"""Evaluate a trained run on held-out text.

The test loss of each document is written, and every selector's choice for every token of the whole probe set. For a
run that failed both are empty, since its weights are no model's. Evaluation uses the run's own device
(`training.device`).

Example:
    speciate evaluate --spec RUN/spec.json --model RUN/model.safetensors --mixture-folder MIXTURE \
        --token-bytes TOKENIZER/token_bytes.npy --likelihood likelihood.parquet --probe probe.safetensors
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
import torch
from tokenizers import Tokenizer

from speciate.cli import log
from speciate.config.run import RunSpec, read_spec
from speciate.data.blocks import BlockSet, read_set
from speciate.evaluation import speculative
from speciate.evaluation.denoising import orders
from speciate.evaluation.likelihood import COLUMNS, by_document
from speciate.io import atomic_write
from speciate.model.transformer import Transformer
from speciate.selection.selection import record_selections
from speciate.training.build_model import build_model
from speciate.training.checkpoint.store import Arrays
from speciate.training.checkpoint.weights import load_weights
from speciate.training.distributed import devices
from speciate.training.loss.objective import Objective
from speciate.training.observer import arrays_of, batches, observe, run_selectors

DETAILS = {"what": "str", "item": "int64", "position": "int64", "token": "int64", "x": "float64", "y": "float64"}
"""Columns of what an objective shows of single tokens, and their types."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the run's spec.json")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="the run's model.safetensors")
    parser.add_argument("--mixture-folder", type=pathlib.Path, required=True, help="what `balance` wrote")
    parser.add_argument(
        "--token-bytes",
        type=pathlib.Path,
        required=True,
        help="bytes of each token id, .npy, with tokenizer.json beside it",
    )
    parser.add_argument(
        "--likelihood", type=pathlib.Path, required=True, help="table of each test document's loss to write, .parquet"
    )
    parser.add_argument(
        "--probe", type=pathlib.Path, required=True, help="selectors' choices on the probe set to write, .safetensors"
    )
    parser.add_argument(
        "--details", type=pathlib.Path, help="table of single tokens to write (default: details.parquet beside --probe)"
    )
    parser.add_argument(
        "--measured", type=pathlib.Path, help="recorded metrics to write (default: measured.json beside --probe)"
    )


def main(arguments: argparse.Namespace) -> None:
    """Evaluate the model, and write what was found."""
    arguments.details = arguments.details or arguments.probe.with_name("details.parquet")
    arguments.measured = arguments.measured or arguments.probe.with_name("measured.json")
    spec = read_spec(RunSpec, arguments.spec)
    failed = failure(arguments.model.with_name("run.json"))
    if failed is not None:
        no_choices: Arrays = {"positions": np.array(0, dtype=np.int64)}
        empty = [pd.DataFrame({name: [] for name in columns}) for columns in (COLUMNS, DETAILS)]
        write(arguments, empty[0], no_choices, [], empty[1])
        log(f"{spec.ablation} seed {spec.seed}: the run failed ({failed['reason']}); nothing is evaluated")
        return
    torch.set_num_threads(spec.training.threads)
    token_bytes_V = np.load(arguments.token_bytes)
    model = build_model(spec, len(token_bytes_V)).eval()
    load_weights(model, arguments.model)
    objective = spec.objective.component().Objective(spec.objective)
    blocks = read_set(arguments.mixture_folder, "probe")
    with devices.taken(spec.training) as device:
        model.to(device)
        likelihood = by_document(model, objective, read_set(arguments.mixture_folder, "test"), token_bytes_V, device)
        chosen, measured = probe(model, objective, blocks)
    model.cpu()  # the rest is small
    measured += speculative.measured(model, torch.from_numpy(blocks.tokens))
    write(arguments, likelihood, chosen, measured, details(model, objective, blocks))
    nats = likelihood["nats"].sum() / likelihood["tokens"].sum()
    log(f"{spec.ablation} seed {spec.seed}: {nats:.4f} nats a token on {len(likelihood)} test documents")


def write(
    to: argparse.Namespace, likelihood: pd.DataFrame, chosen: Arrays, measured: list[list[object]], shown: pd.DataFrame
) -> None:
    """Writes the outputs that the command line names."""
    with atomic_write(to.likelihood) as temp_path:
        likelihood.to_parquet(temp_path, index=False)
    with atomic_write(to.probe) as temp_path:
        safetensors.numpy.save_file(chosen, temp_path)
    write_details(to.details, to.token_bytes, shown)
    with atomic_write(to.measured) as temp_path:
        temp_path.write_text(json.dumps(measured) + "\n", encoding="utf-8")


def failure(file: pathlib.Path) -> dict[str, Any] | None:
    """A run's run.json where it says that the run failed."""
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return facts if facts.get("state") == "failed" else None


@torch.no_grad()
def probe(model: Transformer, objective: Objective, blocks: BlockSet) -> tuple[Arrays, list[list[object]]]:
    """The Tally by document and the choice at each position, of every selector, on a whole probe set.

    Returns:
        `path/field` of each Tally, `path/choice` (positions, slots) uint8 with 1 where chosen, and `positions`; and
        [path, name, at, mean] of what the modules noted.
    """
    token_BT = torch.from_numpy(blocks.tokens)
    document_BT = torch.from_numpy(blocks.document).long()
    domain_B = torch.from_numpy(blocks.domain).long()
    tallies, measured = observe(model, objective, token_BT, document_BT, len(blocks.documents), domain_B)
    arrays = arrays_of(tallies)
    num_positions, length = token_BT.numel(), token_BT.shape[1]
    device = next(model.parameters()).device
    for path in tallies:
        num_slots = arrays[f"{path}/chosen_GS"].shape[1]
        arrays[f"{path}/choice"] = np.zeros((num_positions, num_slots), dtype=np.uint8)
    for start, portion_BT in batches(token_BT):
        with record_selections(model) as record:
            part = slice(start, start + len(portion_BT))
            given = (each.to(device) for each in (portion_BT, document_BT[part], domain_B[part]))
            run_selectors(model, objective, *given)
        for path, selection in record.items():
            position_N = start * length + selection.token_N.cpu().numpy()
            arrays[f"{path}/choice"][position_N] = (selection.chosen_NS > 0).cpu().numpy()
    arrays["positions"] = np.array(num_positions, dtype=np.int64)
    return arrays, measured


def details(model: Transformer, objective: Objective, blocks: BlockSet) -> pd.DataFrame:
    """What the objective shows of single tokens, columns DETAILS without text, and where a model fills masks, the order
    in which each sampler does; no rows where there is nothing to show.
    """
    shown = objective.details(model, blocks)
    found = [] if shown is None else [shown]
    if not model.causal:
        found.append(orders(model, int(blocks.tokens[0, 0]), blocks.tokens.shape[1], seed=0))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame({name: [] for name in DETAILS})


def write_details(file: pathlib.Path, token_bytes: pathlib.Path, rows: pd.DataFrame) -> None:
    """Writes `details` with each token's text, which the tokenizer beside `token_bytes` knows; '' for one beyond it."""
    tokenizer = Tokenizer.from_file(str(token_bytes.with_name("tokenizer.json"))) if len(rows) else None
    text = [] if tokenizer is None else [tokenizer.decode([int(token)]) for token in rows["token"]]
    with atomic_write(file) as temp_path:
        rows.assign(text=text).astype(DETAILS | {"text": "str"})[[*DETAILS, "text"]].to_parquet(temp_path, index=False)
