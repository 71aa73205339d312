"""Generate text with a finished run, and show which experts took each token.

`--run` is a run's folder or a copy of it, or one that `speciate export` or transformers wrote. The tokenizer is the one
in that folder, unless another is given. `--temperature 0` is greedy. `--speculate` gives the same greedy text, some
tokens at a time, where the run has several heads to draft them (objective multi_token). `--show-experts` adds a row for
each token, with the slots that each selector chose for it.

A run of masked diffusion fills `--max-tokens` masks after the prompt, by `--sampler` (a file of evaluation/sampler) in
`--steps` steps; `--show-order` prints the text after every step.

Example:
    speciate generate --run results/default/runs/auxiliary/seed0 --prompt "def f" --show-experts
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer

from speciate.cli import log
from speciate.data.tokens.manifest import read_manifest_of
from speciate.evaluation import speculative
from speciate.evaluation.denoising import denoiser, importance_function, sampler_options
from speciate.evaluation.sampling import Sampling, generate
from speciate.evaluation.unmasking import MaskedText, SeededDraws, sample, with_temperature
from speciate.graph.run_paths import read_vocabulary, tokenizer_folder
from speciate.model.hf.pretrained import read_pretrained
from speciate.model.mtp_heads import prediction_heads
from speciate.model.transformer import Transformer
from speciate.selection.selection import Selection, record_selections
from speciate.training.checkpoint.load_run import load_run

COLOURS = (196, 208, 220, 118, 48, 51, 39, 99, 201, 213, 180, 245)
"""Colours of expert 0, 1, ... on a terminal with 256 colours; further experts start again from the first."""
TOKEN_WIDTH = 16
"""Width of the token column of the table, in characters."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of a run or of an exported model")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="what `fit` wrote (default: the run's copy of it)")
    parser.add_argument(
        "--prompt", required=True, help="text to continue; '-' reads standard input, '' begins a new document"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="below 1 favours likelier tokens, 0 takes the likeliest (default: %(default)s)",
    )
    parser.add_argument(
        "--top-k", type=int, default=0, help="sample among the k likeliest tokens, 0 among all (default: %(default)s)"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        help="sample among the likeliest tokens whose probabilities reach p (default: %(default)s)",
    )
    parser.add_argument("--max-tokens", type=int, default=100, help="most tokens to add (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default: %(default)s)")
    parser.add_argument("--show-experts", action="store_true", help="show which expert took each token in each layer")
    parser.add_argument(
        "--speculate", action="store_true", help="draft with the run's further heads; needs --temperature 0"
    )
    parser.add_argument(
        "--sampler", help="sampler of masked diffusion: a file of evaluation/sampler (default: random_order)"
    )
    parser.add_argument("--steps", type=int, help="steps of the sampler (default: the sampler's own)")
    parser.add_argument("--show-order", action="store_true", help="print the text after each step of the sampler")


def main(arguments: argparse.Namespace) -> None:
    """Generate text after the prompt, and print it."""
    if arguments.speculate and arguments.temperature != 0:
        raise ValueError("--speculate: is greedy; give --temperature 0 with it")
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p)
    model, tokenizer, end = load_model(arguments.run, arguments.tokenizer)
    if arguments.speculate and not prediction_heads(model):
        raise ValueError(f"--speculate: {arguments.run} has no further heads to draft with")
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    if prompt.strip() and not ids:
        raise ValueError(f"--prompt: the tokenizer has no token for any of its {len(prompt)} characters")
    ids = ids or ([] if end is None else [end])
    if len(ids) > model.context:
        raise ValueError(f"--prompt: has {len(ids)} tokens, and the model's context is {model.context}")
    if not model.causal:
        fill_masks(model, tokenizer, ids, arguments)
        return
    diffusion_options = {
        "--sampler": arguments.sampler,
        "--steps": arguments.steps,
        "--show-order": arguments.show_order,
    }
    for option, value in diffusion_options.items():
        if value:
            raise ValueError(f"{option}: belongs to masked diffusion, and {arguments.run} predicts from left to right")
    first, draw, counts = len(ids), torch.Generator().manual_seed(arguments.seed), speculative.SpeculationCounts()
    tokens = generate(model, torch.tensor(ids), sampling, arguments.max_tokens, generator=draw)
    if arguments.speculate:
        tokens = speculative.generate(model, torch.tensor(ids), arguments.max_tokens, counts)
    print(prompt, end="", flush=True)
    print_tokens(tokens, ids, tokenizer, end)
    if len(ids) - first < arguments.max_tokens and len(ids) > model.context:
        log(f"stopped: the context of {model.context} tokens is full")
    if arguments.speculate:
        accepted = f"{counts.accepted} of {counts.drafted} drafts accepted ({counts.acceptance:.1%})"
        log(f"{accepted}, {counts.tokens_per_forward:.2f} tokens a forward pass")
    if arguments.show_experts:
        print_choices(model, tokenizer, ids[: model.context])


def fill_masks(model: Transformer, tokenizer: Tokenizer, ids: list[int], arguments: argparse.Namespace) -> None:
    """Fill the masks after the prompt with a sampler, and print the text.

    Raises:
        ValueError: an option does not belong to masked diffusion, or there is no room for a mask.
    """
    wrong = [name for name in ("top_k", "speculate", "show_experts") if getattr(arguments, name)]
    if wrong or arguments.top_p != 1:
        option = f"--{(wrong or ['top_p'])[0].replace('_', '-')}"
        raise ValueError(
            f"{option}: belongs to models that predict from left to right, and {arguments.run} fills masks"
        )
    room = min(arguments.max_tokens, model.context - len(ids))
    if room < 1 or not ids:
        raise ValueError(f"--max-tokens: {len(ids)} tokens of prompt leave no room in a context of {model.context}")
    kind = arguments.sampler or "random_order"
    options = sampler_options(kind)
    if arguments.steps is not None:
        if "num_steps" not in type(options).model_fields:
            raise ValueError(f"--steps: sampler {kind} has no number of steps; it has as many as it needs")
        options = sampler_options(kind, num_steps=arguments.steps)
    mask = model.vocabulary - 1
    text = MaskedText(torch.tensor([[*ids, *[mask] * room]]), mask, importance_function(model))
    denoise = with_temperature(denoiser(model), arguments.temperature)
    draws = SeededDraws(torch.Generator().manual_seed(arguments.seed))
    for step, after in enumerate(sample(options.component().Sampler(options), text, denoise, draws), start=1):
        if arguments.show_order and not after.token_BT.equal(text.token_BT):
            print(f"{step:4} {masked_text(tokenizer, after.token_BT[0].tolist(), mask)}")
        text = after
    print(tokenizer.decode(text.token_BT[0].tolist()))


def masked_text(tokenizer: Tokenizer, ids: list[int], mask: int) -> str:
    """Return the text on one line, with a low block for every mask."""
    runs: list[list[int]] = []
    for token in ids:
        if runs and (token == mask) == (runs[-1][0] == mask):
            runs[-1].append(token)
        else:
            runs.append([token])
    shown = ("▁" * len(run) if run[0] == mask else tokenizer.decode(run) for run in runs)
    return "".join(shown).replace("\n", "⏎")


def print_tokens(tokens: Iterator[int], ids: list[int], tokenizer: Tokenizer, end: int | None) -> None:
    """Print the text of `tokens` as they come, up to `end`, and append them to `ids`."""
    printed = len(tokenizer.decode(ids))
    for token in tokens:
        if token == end:
            break
        ids.append(token)
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # a character whose bytes are not all there yet
            print(text[printed:], end="", flush=True)
            printed = len(text)
    print(tokenizer.decode(ids)[printed:])


def load_model(folder: pathlib.Path, tokenizer: pathlib.Path | None) -> tuple[Transformer, Tokenizer, int | None]:
    """Load the model, the tokenizer and the end-of-text id of a run, or of a folder that transformers can read.

    Raises:
        ValueError: the folder is neither; the message names it.
    """
    if (folder / "spec.json").is_file():
        fitted = tokenizer_folder(folder, tokenizer)
        manifest = read_manifest_of(read_vocabulary(folder), fitted, "--tokenizer")
        return load_run(folder, manifest.vocabulary)[1], load_tokenizer(fitted), manifest.end_of_text
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: holds neither a run's spec.json nor a model's config.json")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    end = config.get("eos_token_id")
    end = end[0] if isinstance(end, list) else end
    if config.get("model_type") == "speciate":
        from transformers import AutoModelForCausalLM

        import speciate.model.hf.auto_classes  # noqa: F401

        return AutoModelForCausalLM.from_pretrained(folder).eval().model, load_tokenizer(tokenizer or folder), end
    pretrained = read_pretrained(folder)
    model = Transformer(pretrained.model, len(pretrained.weights["token_embedding.weight"]))
    model.load_state_dict(pretrained.weights)
    return model.eval(), load_tokenizer(tokenizer or folder), end


def load_tokenizer(folder: pathlib.Path) -> Tokenizer:
    """Load the tokenizer.json in `folder`. Raises ValueError where it cannot be read."""
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise ValueError(f"{folder / 'tokenizer.json'}: is not a tokenizer: {error}") from None


@torch.no_grad()
def print_choices(model: Transformer, tokenizer: Tokenizer, ids: list[int]) -> None:
    """Print a row for each token, with the slots that every selector chose for it."""
    with record_selections(model) as record:
        model.hidden(torch.tensor([ids]))
    if not record:
        log("the model has no selector: there are no experts to show")
        return
    columns = {path: chosen_slots(selection, len(ids)) for path, selection in record.items()}
    widths = [max(len(path), *(len(cell) for cell in cells)) for path, cells in columns.items()]
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(
        "token".ljust(TOKEN_WIDTH), *(path.ljust(width) for path, width in zip(columns, widths, strict=True)), sep="  "
    )
    for position, token in enumerate(ids):
        cells = [
            colour_cell(columns[path][position].ljust(width), coloured)
            for path, width in zip(columns, widths, strict=True)
        ]
        print(
            repr(tokenizer.decode([token], skip_special_tokens=False))[:TOKEN_WIDTH].ljust(TOKEN_WIDTH),
            *cells,
            sep="  ",
        )


def chosen_slots(selection: Selection, num_tokens: int) -> list[str]:
    """Return the chosen slots of each token as text, `-` for a token that the selector did not see."""
    cells = ["-"] * num_tokens
    for token, chosen_S in zip(selection.token_N.tolist(), selection.chosen_NS, strict=True):
        cells[token] = " ".join(map(str, chosen_S.nonzero().flatten().tolist()))
    return cells


def colour_cell(cell: str, coloured: bool) -> str:
    """Return the cell in the colour of its first slot."""
    first = cell.split()[0] if cell.split() else "-"
    if not coloured or not first.isdecimal():
        return cell
    return f"\x1b[38;5;{COLOURS[int(first) % len(COLOURS)]}m{cell}\x1b[0m"
