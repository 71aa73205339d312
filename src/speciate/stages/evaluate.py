r"""Evaluate a trained run on held-out text.

The test loss of each document is written, and every selector's choice for every token of the whole probe set. For a
run that failed both are empty, since its weights are no model's. Evaluation uses the run's own device
(`training.device`). A path that is left out is in the run's folder; the mixture is that of its study.

Example:
    speciate evaluate --spec RUN/spec.json --mixture-folder MIXTURE --likelihood likelihood.parquet \
        --probe probe.safetensors
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
from speciate.data.blocks import BlockSet, read_block_set
from speciate.data.mixture.manifest import read_mixture
from speciate.evaluation import expert_similarity, noise_levels, speculative
from speciate.evaluation.denoising import unmasking_orders
from speciate.evaluation.likelihood import COLUMNS, nll_by_document
from speciate.graph.run_paths import check_tokenizer, run_paths, tokenizer_folder
from speciate.io import atomic_write
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model
from speciate.training.checkpoint.weights import load_weights
from speciate.training.distributed.devices import acquire_device
from speciate.training.objective_base import Objective
from speciate.training.probe import Arrays, observe, tally_arrays

DETAILS = {"what": "str", "item": "int64", "position": "int64", "token": "int64", "x": "float64", "y": "float64"}
"""The columns of the table of single tokens, and their types."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the run's spec.json")
    parser.add_argument("--model", type=pathlib.Path, help="the run's model.safetensors")
    parser.add_argument("--mixture-folder", type=pathlib.Path, help="what `balance` wrote")
    parser.add_argument(
        "--token-bytes", type=pathlib.Path, help="bytes of each token id, .npy, with tokenizer.json next to it"
    )
    parser.add_argument("--likelihood", type=pathlib.Path, help="table of each test document's loss to write, .parquet")
    parser.add_argument("--probe", type=pathlib.Path, help="selectors' choices on the probe set to write, .safetensors")
    parser.add_argument(
        "--details",
        type=pathlib.Path,
        help="table of single tokens to write (default: details.parquet next to --probe)",
    )
    parser.add_argument(
        "--measured", type=pathlib.Path, help="recorded metrics to write (default: measured.json next to --probe)"
    )
    parser.add_argument("--wait", action="store_true", help="where all GPUs are in use, wait for one")


def main(arguments: argparse.Namespace) -> None:
    """Evaluate the model, and write the outputs."""
    spec = read_spec(RunSpec, arguments.spec)
    fill_in_paths(arguments, spec)
    failure = read_failure(arguments.model.with_name("run.json"))
    if failure is not None:
        no_choices: Arrays = {"positions": np.array(0, dtype=np.int64)}
        no_losses, no_details = (pd.DataFrame({name: [] for name in columns}) for columns in (COLUMNS, DETAILS))
        write_outputs(arguments, likelihood=no_losses, choices=no_choices, metrics=[], details=no_details)
        log(f"{spec.ablation} seed {spec.seed}: the run failed ({failure['reason']}), so there is nothing to evaluate")
        return
    torch.set_num_threads(spec.training.threads)
    token_bytes_V = np.load(arguments.token_bytes)
    model = build_model(spec, len(token_bytes_V)).eval()
    load_weights(model, arguments.model)
    objective = spec.objective.component().Objective(spec.objective)
    probe, test = (read_block_set(arguments.mixture_folder, name) for name in ("probe", "test"))
    with acquire_device(spec.training, wait=bool if arguments.wait else None) as device:
        model.to(device)
        likelihood = nll_by_document(model, objective, test, token_bytes_V, device=device)
        choices, metrics = probe_selectors(model, objective, probe)
        metrics += noise_levels.level_metrics(model, objective, probe)
    model.cpu()  # what remains is small
    metrics += speculative.speculation_metrics(model, torch.from_numpy(probe.tokens))
    metrics += expert_similarity.similarity_metrics(model, objective, probe)
    details = token_details(model, objective, probe)
    write_outputs(arguments, likelihood=likelihood, choices=choices, metrics=metrics, details=details)
    nats = likelihood["nats"].sum() / likelihood["tokens"].sum()
    log(f"{spec.ablation} seed {spec.seed}: {nats:.4f} nats per token on {len(likelihood)} test documents")


def fill_in_paths(arguments: argparse.Namespace, spec: RunSpec) -> None:
    """Derive missing paths from the spec's place. Raises ValueError if the mixture has another tokenizer than the run.

    A copy of a run's folder is enough, but for the mixture.
    """
    folder = arguments.spec.parent
    arguments.model = arguments.model or folder / "model.safetensors"
    arguments.likelihood = arguments.likelihood or folder / "likelihood.parquet"
    arguments.probe = arguments.probe or folder / "probe.safetensors"
    arguments.details = arguments.details or arguments.probe.with_name("details.parquet")
    arguments.measured = arguments.measured or arguments.probe.with_name("measured.json")
    if arguments.token_bytes is None:
        arguments.token_bytes = tokenizer_folder(folder, option="--token-bytes") / "token_bytes.npy"
    if arguments.mixture_folder is None:
        arguments.mixture_folder = run_paths(arguments.spec, spec, ["--mixture-folder"]).mixture
    fingerprint = read_mixture(arguments.mixture_folder).tokenizer_fingerprint
    check_tokenizer(arguments.model.parent, arguments.mixture_folder, fingerprint)


def write_outputs(
    paths: argparse.Namespace,
    *,
    likelihood: pd.DataFrame,
    choices: Arrays,
    metrics: list[list[object]],
    details: pd.DataFrame,
) -> None:
    """Write the outputs to the paths that the command line names."""
    with atomic_write(paths.likelihood) as temp_path:
        likelihood.to_parquet(temp_path, index=False)
    with atomic_write(paths.probe) as temp_path:
        safetensors.numpy.save_file(choices, temp_path)
    write_details(paths.details, paths.token_bytes, details)
    with atomic_write(paths.measured) as temp_path:
        temp_path.write_text(json.dumps(metrics) + "\n", encoding="utf-8")


def read_failure(file: pathlib.Path) -> dict[str, Any] | None:
    """Return the content of a run's run.json if it says that the run failed."""
    metadata: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return metadata if metadata.get("state") == "failed" else None


def probe_selectors(model: Transformer, objective: Objective, blocks: BlockSet) -> tuple[Arrays, list[list[object]]]:
    """Run a whole probe set; return what each selector chose, and the metrics that modules recorded.

    Returns:
        `path/field` of each selector's Tally by document, `path/choice` (positions, slots) uint8 with 1 where chosen,
        and `positions`; and [path, name, at, mean] of each metric.
    """
    token_BT = torch.from_numpy(blocks.tokens)
    document_BT = torch.from_numpy(blocks.document).long()
    domain_B = torch.from_numpy(blocks.domain).long()
    tallies, metrics, choices = observe(
        model, objective, token_BT, document_BT, num_documents=len(blocks.documents), domain_B=domain_B
    )
    arrays = tally_arrays(tallies) | {f"{path}/choice": choice_PS for path, choice_PS in choices.items()}
    arrays["positions"] = np.array(token_BT.numel(), dtype=np.int64)
    return arrays, metrics


def token_details(model: Transformer, objective: Objective, blocks: BlockSet) -> pd.DataFrame:
    """Return what is shown of single tokens, the columns of DETAILS, without their text.

    These are the objective's details, and for a model that fills masks the order in which each sampler does.
    """
    details = objective.details(model, blocks)
    tables = [] if details is None else [details]
    if not model.causal:
        tables.append(unmasking_orders(model, int(blocks.tokens[0, 0]), blocks.tokens.shape[1], seed=0))
    for table in tables:
        if set(table.columns) != set(DETAILS):
            raise ValueError(f"details.parquet: has the columns {', '.join(DETAILS)}, not {', '.join(table.columns)}")
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({name: [] for name in DETAILS})


def write_details(file: pathlib.Path, token_bytes: pathlib.Path, rows: pd.DataFrame) -> None:
    """Write `rows` with each token's text, from the tokenizer next to `token_bytes`; '' for a token beyond it."""
    tokenizer = Tokenizer.from_file(str(token_bytes.with_name("tokenizer.json"))) if len(rows) else None
    text = [] if tokenizer is None else [tokenizer.decode([int(token)]) for token in rows["token"]]
    with atomic_write(file) as temp_path:
        rows.assign(text=text).astype(DETAILS | {"text": "str"})[[*DETAILS, "text"]].to_parquet(temp_path, index=False)
