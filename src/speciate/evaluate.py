"""evaluate: what a finished model does on held-out text.

Writes the test loss of each document, and every selector's choice on every token of the whole probe set; of a run that
failed, both without a row, since its weights are no model's.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
import torch

from speciate.data.blocks import BlockSet, read_set
from speciate.evaluation.likelihood import COLUMNS, by_document
from speciate.kinds import component
from speciate.model.transformer import Transformer
from speciate.selection.selection import recording, selectors
from speciate.spec import RunSpec, read_spec
from speciate.training.checkpoint import EMA, Arrays, load_weights
from speciate.training.observe import arrays_of, batches, observe
from speciate.verb import run, say, writing


def main() -> None:
    """Parses the command line, evaluates, writes."""
    parser = argparse.ArgumentParser(prog="speciate.evaluate", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the run's spec.json")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="the run's model.safetensors")
    parser.add_argument("--mixture-folder", type=pathlib.Path, required=True, help="what the balance stage wrote")
    parser.add_argument("--token-bytes", type=pathlib.Path, required=True, help="bytes of each token id, .npy")
    parser.add_argument(
        "--likelihood", type=pathlib.Path, required=True, help="output: loss by test document, .parquet"
    )
    parser.add_argument("--probe", type=pathlib.Path, required=True, help="output: choices on the probe, .safetensors")
    arguments = parser.parse_args()
    spec = read_spec(RunSpec, arguments.spec)
    failed = failure(arguments.model.with_name("run.json"))
    if failed is not None:
        with writing(arguments.likelihood) as aside:
            pd.DataFrame({name: [] for name in COLUMNS}).to_parquet(aside, index=False)
        with writing(arguments.probe) as aside:
            safetensors.numpy.save_file({"positions": np.array(0, dtype=np.int64)}, aside)
        say(f"{spec.ablation} seed {spec.seed}: the run failed ({failed['reason']}); nothing is evaluated")
        return
    torch.set_num_threads(spec.training.threads)
    token_bytes_V = np.load(arguments.token_bytes)
    model = Transformer(spec.model, len(token_bytes_V)).eval()
    load_weights(model, arguments.model.with_name(EMA) if spec.training.evaluate_ema else arguments.model)
    objective = component(spec.objective).Objective(spec.objective)
    likelihood = by_document(model, objective, read_set(arguments.mixture_folder, "test"), token_bytes_V)
    chosen = probe(model, read_set(arguments.mixture_folder, "probe"))
    with writing(arguments.likelihood) as aside:
        likelihood.to_parquet(aside, index=False)
    with writing(arguments.probe) as aside:
        safetensors.numpy.save_file(chosen, aside)
    nats = likelihood["nats"].sum() / likelihood["tokens"].sum()
    say(f"{spec.ablation} seed {spec.seed}: {nats:.4f} nats a token on {len(likelihood)} test documents")


def failure(file: pathlib.Path) -> dict[str, Any] | None:
    """A run's run.json where it says that the run failed."""
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return facts if facts.get("state") == "failed" else None


@torch.no_grad()
def probe(model: Transformer, blocks: BlockSet) -> Arrays:
    """The Tally by document and the choice at each position, of every selector, on a whole probe set.

    Returns:
        `path/field` of each Tally, `path/choice` (positions, slots) uint8 with 1 where chosen, and `positions`.
    """
    token_BT = torch.from_numpy(blocks.tokens)
    document_BT = torch.from_numpy(blocks.document).long()
    arrays = arrays_of(observe(model, token_BT, document_BT, len(blocks.documents)))
    num_positions, length = token_BT.numel(), token_BT.shape[1]
    for path, selector in selectors(model).items():
        arrays[f"{path}/choice"] = np.zeros((num_positions, selector.num_slots), dtype=np.uint8)
    for start, portion_BT in batches(token_BT):
        with recording(model) as record:
            model.hidden(portion_BT, document_BT[start : start + len(portion_BT)])
        for path, selection in record.items():
            position_N = start * length + selection.token_N.numpy()
            arrays[f"{path}/choice"][position_N] = (selection.chosen_NS > 0).numpy()
    arrays["positions"] = np.array(num_positions, dtype=np.int64)
    return arrays


if __name__ == "__main__":
    run(main)
