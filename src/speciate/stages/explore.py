r"""Write the study's explorer: the choice of every selector for each token.

The page needs no network. It shows the runs of a study side by side, at any observed step of their training. The stage
reads what training and evaluation wrote. It runs a model again, on the CPU, only to learn which keys a sparse attention
chose, since evaluation keeps only their distances.

Example:
    speciate explore --spec results/specs/<digest>.json --runs results/smoke/runs --tables results/smoke/tables \
        --mixture-folder MIXTURE --tokenizer-folder TOKENIZER --output explorer.html
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import nn

from speciate.cli import log
from speciate.config.run import read_spec
from speciate.config.stage_specs import ExploreSpec
from speciate.data.blocks import read_block_set
from speciate.data.mixture.manifest import read_mixture
from speciate.data.tokens.lossless import BYTE_OF_SYMBOL
from speciate.graph.run_paths import check_tokenizer
from speciate.model.sparse_attention.attention import AttentionOutput, SparseAttention
from speciate.reporting.explorer.study import from_study
from speciate.reporting.explorer.study_files import Files, Run
from speciate.reporting.explorer.write import write_explorer
from speciate.training.checkpoint.load_run import load_run
from speciate.training.probe import batches, run_selectors

KeyArray = npt.NDArray[np.int16]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of an ExploreSpec: arms, seeds")
    parser.add_argument(
        "--runs", type=pathlib.Path, required=True, help="the folder that holds ablation/seed<k> of all runs"
    )
    parser.add_argument("--tables", type=pathlib.Path, required=True, help="folder of the study's tables")
    parser.add_argument("--mixture-folder", type=pathlib.Path, required=True, help="what `balance` wrote")
    parser.add_argument("--tokenizer-folder", type=pathlib.Path, required=True, help="what `fit` wrote")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="page to write, .html")


def main(arguments: argparse.Namespace) -> None:
    """Write the explorer."""
    spec = read_spec(ExploreSpec, arguments.spec)
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer_folder / "tokenizer.json"))

    def pieces(ids: Sequence[int]) -> list[str]:
        return [piece_of(tokenizer, token) for token in ids]

    def keys(run: Run) -> Mapping[str, KeyArray]:
        return chosen_keys(arguments.runs / run[0] / f"seed{run[1]}", arguments.mixture_folder)

    files = Files(arguments.runs, arguments.mixture_folder, arguments.tables)
    data = from_study(spec, files, pieces, keys)
    write_explorer(data, arguments.output)
    size = arguments.output.stat().st_size / 1e6
    log(f"{len(data.models)} runs, {len(data.token_P)} tokens: {size:.1f} MB")


def piece_of(tokenizer: Tokenizer, token: int) -> str:
    """Return the text of a token; one that holds a part of a character is shown by its bytes, such as ⟨e2 80⟩."""
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    symbols = tokenizer.id_to_token(token) or ""
    if "\ufffd" not in text or not set(symbols) <= BYTE_OF_SYMBOL.keys():
        return text
    return f"⟨{' '.join(f'{BYTE_OF_SYMBOL[symbol]:02x}' for symbol in symbols)}⟩"


@torch.no_grad()
def chosen_keys(run_folder: pathlib.Path, mixture_folder: pathlib.Path) -> dict[str, KeyArray]:
    """Return how many tokens back each chosen key of a finished run's probe set stands, (P, J), by selector.

    Places without a key hold -1.

    Raises:
        ValueError: the run's files do not belong together, or not to this mixture; names the file.
    """
    mixture, blocks = read_mixture(mixture_folder), read_block_set(mixture_folder, "probe")
    check_tokenizer(run_folder, mixture_folder, mixture.tokenizer_fingerprint)
    run, model = load_run(run_folder, mixture.vocabulary)
    torch.set_num_threads(run.training.threads)
    objective = run.objective.component().Objective(run.objective)
    parts: dict[str, list[KeyArray]] = {}

    def hook_of(path: str) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], output: AttentionOutput) -> None:
            choice = output.choice
            assert choice is not None, "a model in evaluation mode chooses keys"
            own_T1 = torch.arange(choice.index_BTk.shape[1], device=choice.index_BTk.device)[:, None]
            back_BTk = torch.where(choice.valid_BTk, own_T1 - choice.index_BTk, -1)
            parts.setdefault(path, []).append(back_BTk.flatten(0, 1).cpu().numpy().astype(np.int16))

        return keep

    for path, module in model.named_modules():
        if isinstance(module, SparseAttention):
            module.register_forward_hook(hook_of(path))
    token_BT, document_BT = torch.from_numpy(blocks.tokens), torch.from_numpy(blocks.document).long()
    domain_B = torch.from_numpy(blocks.domain).long()
    for start, batch_BT in batches(token_BT):
        rows = slice(start, start + len(batch_BT))
        run_selectors(model, objective, batch_BT, document_BT[rows], domain_B=domain_B[rows])
    return {path: np.concatenate(pieces) for path, pieces in parts.items()}
