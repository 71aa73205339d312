r"""Put a finished run to one task, and write the score of each question.

A task may be impossible for a run: its context is too short, or a file of the task is missing. Then the table is empty
and carries the reason, and the study goes on; so it does for a run that failed. The stage uses the run's own device
and threads (`training.device`, `training.threads`).

Example:
    speciate evaluate_tasks --spec results/specs/<digest>.json --run-folder results/smoke/runs/auxiliary/seed0 \
        --mixture-folder MIXTURE --output results/smoke/tasks/auxiliary/seed0/copying.parquet
"""

import argparse
import pathlib

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer

from speciate.analysis.tasks.scores import check_scores, write_scores
from speciate.cli import log, parse_named_paths
from speciate.config.run import read_spec
from speciate.config.stage_specs import EvaluateTaskSpec
from speciate.data.mixture.manifest import read_mixture
from speciate.evaluation.subject import SCORES, Subject
from speciate.graph.run_paths import check_tokenizer, read_metadata, tokenizer_folder
from speciate.io import atomic_write
from speciate.training.checkpoint.load_run import load_run
from speciate.training.distributed.devices import acquire_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of an EvaluateTaskSpec")
    parser.add_argument("--run-folder", type=pathlib.Path, required=True, help="what `train` wrote for the run")
    parser.add_argument("--mixture-folder", type=pathlib.Path, required=True, help="what `balance` wrote")
    parser.add_argument(
        "--text",
        nargs="*",
        default=[],
        metavar="NAME=FOLDER",
        help="each text outside training that the task reads, and the folder with its documents",
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="table of scores to write, .parquet")


def main(arguments: argparse.Namespace) -> None:
    """Put the run to the task, and write its scores."""
    spec = read_spec(EvaluateTaskSpec, arguments.spec)
    asked = spec.options.texts()
    texts = parse_named_paths(arguments.text, asked, f"--text: needs NAME=FOLDER for {', '.join(asked) or 'no text'}")
    rows, reason = evaluate_task(spec, arguments.run_folder, arguments.mixture_folder, texts)
    with atomic_write(arguments.output) as temp_path:
        write_scores(rows, reason, temp_path)
    told = f"no score: {reason}" if reason else f"{len(rows)} scores"
    log(f"{spec.run.ablation} seed {spec.run.seed}, task {spec.task}: {told}")


def evaluate_task(
    spec: EvaluateTaskSpec, run_folder: pathlib.Path, mixture_folder: pathlib.Path, texts: dict[str, pathlib.Path]
) -> tuple[pd.DataFrame, str]:
    """Return the run's scores on the task, and the reason where there are none.

    Raises:
        ValueError: the run's files do not belong together, or not to this mixture; or the task's module returned
            another table than the contract says.
    """
    nothing = pd.DataFrame({name: [] for name in SCORES}).astype(SCORES)
    metadata = read_metadata(run_folder)
    if metadata.get("state") == "failed":
        return nothing, "the run failed"
    mixture = read_mixture(mixture_folder)
    check_tokenizer(run_folder, mixture_folder, mixture.tokenizer_fingerprint)
    run, model = load_run(run_folder, mixture.vocabulary)
    torch.set_num_threads(run.training.threads)
    tokenizer = tokenizer_folder(run_folder)
    with acquire_device(run.training) as device:
        subject = Subject(
            run=run,
            folder=run_folder,
            model=model.to(device),
            objective=run.objective.component().Objective(run.objective).to(device),
            tokenizer=Tokenizer.from_file(str(tokenizer / "tokenizer.json")),
            token_bytes_V=np.load(tokenizer / "token_bytes.npy"),
            mixture=mixture_folder,
            texts=texts,
            device=device,
        )
        module = spec.options.component()
        try:
            with torch.no_grad():
                rows = module.evaluate(spec.options, subject)
        except ValueError as error:
            return nothing, " ".join(str(error).split()) or "the task gave no reason"
    rows = check_scores(rows, spec.options.module_name())
    return rows, "" if len(rows) else "the task has no question"
