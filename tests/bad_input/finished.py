"""Define what can go wrong with a finished run, such as a folder without its tokenizer, and with the error rates."""

import hashlib
import json
import shutil
from collections.abc import Callable

from tests.bad_input.case import Case, Place, separately
from tests.bad_input.small import Command, Ended

from speciate.config.run import RunSpec, canonical_json

SPEC = {
    "ablation": "arm",
    "seed": 0,
    "model": {
        "width": 16,
        "num_layers": 1,
        "context": 32,
        "block": {
            "mixer": {"kind": "attention", "num_heads": 2},
            "ffn": {"kind": "dense", "hidden": 16},
            "depth": "every",
        },
    },
    "objective": "causal",
    "optimizer": "adamw",
    "schedule": "cosine",
}
MEMORY = "import torch, resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))"


def copied(verb: str, *arguments: str) -> Callable[[Place], Command]:
    """Return a command about a copy of a run's folder, `run`, and its study's tokenizer, `tokenizer`."""

    def make(place: Place) -> Command:
        (file,) = place.reference.glob("results/data/fit/*/tokenizer.json")
        shutil.copytree(file.parent, place.folder / "tokenizer")
        (place.folder / "run").mkdir()
        (place.folder / "run" / "spec.json").write_text(canonical_json(RunSpec.model_validate(SPEC)))
        vocabulary = {"tokens": 280, "tokenizer": hashlib.sha256(b"another").hexdigest()}
        (place.folder / "run" / "run.json").write_text(json.dumps({"vocabulary": vocabulary}))
        return Command(verb, arguments)

    return make


def little_memory(place: Place, command: Command) -> Ended:
    """Run the command in a process that may not have more than 8 GiB of addresses."""
    return separately(place, command, MEMORY)


def verified(content: str) -> Callable[[Place], Command]:
    """Return a command that compares results with a file of digests with this content."""

    def make(place: Place) -> Command:
        (place.folder / "digests.json").write_text(content)
        given = ("--results", "results", "--study", "small", "--ablation", "arm", "--digests", "digests.json")
        return Command("verify", given)

    return make


def cut_off(place: Place) -> None:
    """Leave a run with choices that were cut off."""
    (place.folder / "runs/arm/seed0/probe.safetensors").write_bytes(b"cut")


def explored(spoil: Callable[[Place], None]) -> Callable[[Place], Command]:
    """Return a command that writes the explorer of a study of one run, of which `spoil` spoils a file."""

    def make(place: Place) -> Command:
        (mixture,) = place.reference.glob("results/data/balance/*/mixture.json")
        (tokenizer,) = place.reference.glob("results/data/fit/*/tokenizer.json")
        (place.folder / "runs/arm/seed0").mkdir(parents=True)
        spoil(place)
        arms = [{"name": "arm", "about": ""}]
        spec = place.spec(study="small", arms=arms, seeds=[0], num_steps={"arm": 1})
        given = ("--spec", spec, "--runs", "runs", "--tables", "tables", "--mixture-folder", str(mixture.parent))
        return Command("explore", (*given, "--tokenizer-folder", str(tokenizer.parent), "--output", "explorer.html"))

    return make


ELSEWHERE = "run/spec.json: is not in results/<study>/runs/arm/seed0, so name the paths on the command line: "
CASES = [
    Case(
        "Finished run",
        "a copied folder of a run that holds no tokenizer",
        copied("generate", "--run", "run", "--prompt", "a"),
        ELSEWHERE + "--tokenizer",
    ),
    Case(
        "Finished run",
        "the tokenizer of another study",
        copied("export", "--run", "run", "--tokenizer", "tokenizer", "--output", "model"),
        "--tokenizer: tokenizer is not the run's tokenizer: its fingerprint is KEY, not KEY",
    ),
    Case(
        "Finished run",
        "a folder that is not a tokenizer's",
        copied("export", "--run", "run", "--tokenizer", "run", "--output", "model"),
        "--tokenizer: run holds no tokenizer.json; name the folder that `fit` wrote",
    ),
    Case(
        "Finished run",
        "a copied folder is evaluated, and no mixture is named",
        copied("evaluate", "--spec", "run/spec.json", "--token-bytes", "tokenizer/token_bytes.npy"),
        ELSEWHERE + "--mixture-folder",
    ),
    Case(
        "Finished run",
        "a block that does not fit into memory",
        copied("cost", "--spec", "run/spec.json", "--lengths", "2000000000", "--output", "cost.csv"),
        "--lengths: there is not enough memory for a block of 2000000000 tokens: a tensor of N bytes does not fit",
        run=little_memory,
    ),
    Case(
        "Finished run",
        "a block of one token",
        copied("cost", "--spec", "run/spec.json", "--lengths", "1", "--output", "cost.csv"),
        "--lengths: a block needs at least two tokens, not 1",
    ),
    Case(
        "Finished run",
        "results are compared with a file that holds no digests",
        verified("[]"),
        "digests.json: holds no data, families and numbers, as `--update` writes them",
    ),
    Case(
        "Finished run",
        "digests that were cut off",
        verified('{"data": {'),
        "digests.json: is not JSON: WHY",
    ),
    Case(
        "Finished run",
        "digests are compared where no run was trained",
        verified('{"data": {}, "families": {}, "numbers": {}}'),
        "results/small/runs/arm/seed0/run.json: there is no such file",
    ),
    Case(
        "Finished run",
        "the explorer of a run whose choices were cut off",
        explored(cut_off),
        "runs/arm/seed0/probe.safetensors: cannot be read: WHY; train and evaluate the run anew",
    ),
    Case(
        "Finished run",
        "the explorer of a study without tables",
        explored(lambda place: None),
        "tables/experts.parquet: cannot be read as a table: WHY",
    ),
    Case(
        "Error rates",
        "a topic that there is not",
        lambda place: Command("calibrate", ("--output", "page.md", "--topics", "weather")),
        "--topics: there is no topic weather; there are KINDS",
    ),
    Case(
        "Error rates",
        "no effort at all",
        lambda place: Command("calibrate", ("--output", "page.md", "--effort", "0")),
        "--effort: must be above 0 and at most 100, not N",
    ),
]
