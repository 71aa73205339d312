"""generate: a playground. What a finished run, or a folder of transformers, says after a prompt, and by which experts.

`--run` is a run's folder (its tokenizer is found in the study, or given), or one that `speciate.export` or transformers
wrote. With `--temperature 0` it is greedy. `--show-experts` adds a row for each token, with the slots that each
selector chose for it.
"""

import argparse
import json
import os
import pathlib
import sys

import torch
from tokenizers import Tokenizer

from speciate.data.vocabulary import read_manifest
from speciate.evaluation.sampling import Sampling, generate
from speciate.model.pretrained import read_pretrained
from speciate.model.transformer import Transformer
from speciate.places import surroundings
from speciate.selection.selection import Selection, recording
from speciate.spec import RunSpec, read_spec
from speciate.training.finished import read_run
from speciate.verb import run as run_verb
from speciate.verb import say

COLOURS = (196, 208, 220, 118, 48, 51, 39, 99, 201, 213, 180, 245)
"""Of expert 0, 1, ... on a terminal of 256 colours; then again from the start."""
WIDEST = 16
"""Characters of a token in the table."""


def main() -> None:
    """Parses the command line, reads, generates, prints."""
    parser = argparse.ArgumentParser(prog="speciate.generate", description=__doc__)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="the folder of a run, or of an exported model")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="what the fit stage wrote; by default told from the run")
    parser.add_argument("--prompt", required=True, help="what it goes on from; '-': standard input; '': a new document")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 more likely tokens, 0 the likeliest (1)"
    )
    parser.add_argument("--top-k", type=int, default=0, help="choose among the k likeliest; 0: among all (0)")
    parser.add_argument("--top-p", type=float, default=1.0, help="choose among the likeliest that reach p (1)")
    parser.add_argument("--max-tokens", type=int, default=100, help="tokens to add at most (100)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument("--show-experts", action="store_true", help="which expert took each token in each layer")
    arguments = parser.parse_args()
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p)
    model, tokenizer, end = read(arguments.run, arguments.tokenizer)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids or ([] if end is None else [end])
    if len(ids) > model.context:
        raise ValueError(f"--prompt: has {len(ids)} tokens, and the model's context is {model.context}")
    print(prompt, end="", flush=True)
    first, printed = len(ids), len(tokenizer.decode(ids))
    draw = torch.Generator().manual_seed(arguments.seed)
    for token in generate(model, torch.tensor(ids), sampling, arguments.max_tokens, draw):
        if token == end:
            break
        ids.append(token)
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # a character whose bytes are not all there yet
            print(text[printed:], end="", flush=True)
            printed = len(text)
    print(tokenizer.decode(ids)[printed:])
    if len(ids) - first < arguments.max_tokens and len(ids) > model.context:
        say(f"stopped: the context of {model.context} tokens is full")
    if arguments.show_experts:
        show(model, tokenizer, ids[: model.context])


def read(folder: pathlib.Path, tokenizer: pathlib.Path | None) -> tuple[Transformer, Tokenizer, int | None]:
    """The model, the tokenizer and the id that ends a text, of a run or of a folder that transformers can read.

    Raises:
        ValueError: neither is there; names the folder.
    """
    if (folder / "spec.json").is_file():
        file = folder / "spec.json"
        place = tokenizer or surroundings(file, read_spec(RunSpec, file)).tokenizer
        manifest = read_manifest(place)
        return read_run(folder, manifest.vocabulary)[1], read_tokenizer(place), manifest.end_of_text
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: holds neither a run's spec.json nor a model's config.json")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    end = config.get("eos_token_id")
    end = end[0] if isinstance(end, list) else end
    if config.get("model_type") == "speciate":
        from transformers import AutoModelForCausalLM

        import speciate.transformers_bridge  # noqa: F401

        return AutoModelForCausalLM.from_pretrained(folder).eval().model, read_tokenizer(tokenizer or folder), end
    given = read_pretrained(folder)
    model = Transformer(given.model, len(given.weights["token_embedding.weight"]))
    model.load_state_dict(given.weights)
    return model.eval(), read_tokenizer(tokenizer or folder), end


def read_tokenizer(folder: pathlib.Path) -> Tokenizer:
    """The tokenizer.json in `folder`. Raises ValueError where there is none that can be read."""
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise ValueError(f"{folder / 'tokenizer.json'}: is no tokenizer: {error}") from None


@torch.no_grad()
def show(model: Transformer, tokenizer: Tokenizer, ids: list[int]) -> None:
    """Prints a row for each token: the slots that every selector chose for it."""
    with recording(model) as record:
        model.hidden(torch.tensor([ids]))
    if not record:
        say("the model has no selector: there are no experts to show")
        return
    columns = {path: slots(selection, len(ids)) for path, selection in record.items()}
    widths = [max(len(path), *(len(cell) for cell in cells)) for path, cells in columns.items()]
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print("token".ljust(WIDEST), *(path.ljust(width) for path, width in zip(columns, widths, strict=True)), sep="  ")
    for place, token in enumerate(ids):
        cells = [
            painted(columns[path][place].ljust(width), coloured) for path, width in zip(columns, widths, strict=True)
        ]
        print(repr(tokenizer.decode([token], skip_special_tokens=False))[:WIDEST].ljust(WIDEST), *cells, sep="  ")


def slots(selection: Selection, num_tokens: int) -> list[str]:
    """The chosen slots of each token as text; `-` for one that the selector did not see."""
    cells = ["-"] * num_tokens
    for token, chosen_S in zip(selection.token_N.tolist(), selection.chosen_NS, strict=True):
        cells[token] = " ".join(map(str, chosen_S.nonzero().flatten().tolist()))
    return cells


def painted(cell: str, coloured: bool) -> str:
    """The cell in the colour of its first slot."""
    first = cell.split()[0] if cell.split() else "-"
    if not coloured or not first.isdecimal():
        return cell
    return f"\x1b[38;5;{COLOURS[int(first) % len(COLOURS)]}m{cell}\x1b[0m"


if __name__ == "__main__":
    run_verb(main)
