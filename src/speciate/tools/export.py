"""Export a finished run as a folder that transformers loads.

The folder holds the next-token model, without what an objective added to it (further heads: `parts.*`). It loads where
this package is not installed. A model of GPT-2's, Llama's or Mixtral's shape is written as transformers' own class. Any
other comes with its code: `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`. The folder's README
says which, and what the model was trained on. Before the folder gets its name it is loaded once by its own code, and
must give the run's own logits.

Example:
    speciate export --run results/default/runs/auxiliary/seed0 --output auxiliary
"""

import argparse
import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from speciate.cli import VERSION, log
from speciate.config.components import options_within
from speciate.config.run import RunSpec
from speciate.data.mixture.manifest import read_mixture
from speciate.data.tokens.manifest import TokenizerManifest, read_manifest_of
from speciate.graph.run_paths import read_metadata, read_vocabulary, run_paths, tokenizer_folder
from speciate.io import atomic_folder, sha256
from speciate.model.hf.auto_classes import SpeciateConfig, SpeciateForCausalLM
from speciate.model.hf.convert import export_weights
from speciate.model.hf.folder_code import imported_code
from speciate.model.hf.model_card import model_card
from speciate.model.hf.written import family_of
from speciate.model.transformer import Transformer
from speciate.training.checkpoint.load_run import load_run

TOLERANCE = 1e-4
"""Largest difference of logits, as a share of the largest logit."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of the finished run")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="what `fit` wrote (default: the run's copy of it)")
    parser.add_argument(
        "--weights",
        default="model.safetensors",
        help="which of the run's weights to export: ema.safetensors, best.safetensors, snapshots/step<n>.safetensors "
        "(default: %(default)s)",
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder to write; it must not exist")


def main(arguments: argparse.Namespace) -> None:
    """Convert the run, check it, and write the folder."""
    if arguments.output.exists():
        raise ValueError(f"{arguments.output}: exists already; remove it or give another --output")
    tokenizer = tokenizer_folder(arguments.run, arguments.tokenizer)
    manifest = read_manifest_of(read_vocabulary(arguments.run), tokenizer, "--tokenizer")
    run, model = load_run(arguments.run, manifest.vocabulary, arguments.weights)
    if not run.model.causal:
        raise ValueError(
            f"{arguments.run}: its model sees the whole block (causal: false) and does not predict the next token, "
            f"which is all that AutoModelForCausalLM serves; it cannot be exported"
        )
    for options in options_within(run.model):
        if options.looks_ahead():
            raise ValueError(
                f"{arguments.run}: {options.kind} looks at later tokens (non_causal: true), so its logits do not "
                f"predict the next token; it cannot be exported"
            )
    left_out = sum(parameter.numel() for parameter in model.parts.parameters())
    model.parts.clear()
    logging.disable_progress_bar()
    with atomic_folder(arguments.output) as temp_path:
        architecture = write_model(run, model, manifest, tokenizer, folder=temp_path)
        difference = compare_logits(model, temp_path, manifest.vocabulary)
        (temp_path / "README.md").write_text(
            model_card(
                run,
                model,
                architecture,
                arguments.output.name,
                facts=training_facts(run, arguments.run, arguments.weights, manifest),
                difference=difference,
            ),
            encoding="utf-8",
        )
    if left_out:
        log(f"{run.ablation} seed {run.seed}: left out {left_out:,} parameters of parts.*, which no next token needs")
    log(f"{run.ablation} seed {run.seed}: wrote a {architecture}; its logits differ by at most {difference:.1e}")


def write_model(
    run: RunSpec, model: Transformer, manifest: TokenizerManifest, tokenizer: pathlib.Path, *, folder: pathlib.Path
) -> str:
    """Write the model and the tokenizer; return the name of the model's class."""
    ids = {"bos_token_id": manifest.end_of_text, "eos_token_id": manifest.end_of_text}
    exported = to_transformers(run, model, {"vocab_size": manifest.vocabulary, **ids})
    exported.generation_config = GenerationConfig(**ids, pad_token_id=manifest.end_of_text)
    exported.save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(tokenizer / "tokenizer.json")),
        bos_token=manifest.end_token,
        eos_token=manifest.end_token,
        pad_token=manifest.end_token,
        padding_side="left",  # a padded text is continued where it ends
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=run.model.context,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    return type(exported).__name__


def to_transformers(run: RunSpec, model: Transformer, vocabulary: dict[str, Any]) -> PreTrainedModel:
    """Convert the model to a class of transformers; `vocabulary` holds the config's keys about the vocabulary."""
    family = family_of(run.model)
    if family is None:
        ours = SpeciateForCausalLM(SpeciateConfig(run.model.model_dump(mode="json"), **vocabulary))
        ours.model.load_state_dict(model.state_dict())
        return ours
    settings: dict[str, Any] = dict(family.config(run.model) or {})
    theirs: PreTrainedModel = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(settings.pop("model_type"), **vocabulary, **settings)
    )
    parameters, rules = dict(model.named_parameters()), family.rules(run.model)
    assert {rule.name for rule in rules} == set(parameters), "a parameter would be lost"
    weights = export_weights(parameters, rules)
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    theirs.tie_weights()
    return theirs


@torch.no_grad()
def compare_logits(model: Transformer, folder: pathlib.Path, vocabulary: int) -> float:
    """Return the largest difference between the run's logits and the folder's, on random tokens.

    Raises:
        ValueError: the difference is more than rounding explains.
    """
    length = min(model.context, 64)
    token_BT = torch.randint(vocabulary, (2, length), generator=torch.Generator().manual_seed(0))
    with loaded_alone(folder) as loaded:
        ours_BTV, theirs_BTV = model(token_BT), loaded(token_BT).logits
    difference = float((ours_BTV - theirs_BTV).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(ours_BTV.abs().max())):
        raise ValueError(
            f"{folder}: the exported logits differ from the run's by {difference:.1e}; nothing is exported"
        )
    return difference


@contextlib.contextmanager
def loaded_alone(folder: pathlib.Path) -> Iterator[PreTrainedModel]:
    """Load the folder by transformers' code and its own, as a process does that knows nothing of this package."""
    if "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        with imported_code(folder) as code:
            yield code.SpeciateForCausalLM.from_pretrained(folder).eval()
    else:
        yield AutoModelForCausalLM.from_pretrained(folder).eval()


def training_facts(run: RunSpec, folder: pathlib.Path, weights: str, tokenizer: TokenizerManifest) -> dict[str, str]:
    """Return what the folder's README says of the training: study, arm, seed, text and digests."""
    spec_file, settings = folder / "spec.json", run.training
    metadata = read_metadata(folder)
    study, text = f"unknown: {folder.name} is in no study's results", "unknown"
    digests: dict[str, str] = metadata.get("data", {})
    with contextlib.suppress(ValueError):
        paths = run_paths(spec_file, run, [])
        study = f"`{paths.home.name}`"
        now = {"mixture.json": sha256(paths.mixture / "mixture.json")}
        digests = digests or now
        # data that were made again since say nothing of this run
        if now.items() <= digests.items():
            blocks = read_mixture(paths.mixture).train_blocks
            text = ", ".join(f"`{domain}` ({count:,} blocks)" for domain, count in blocks.items())
    tokens = settings.num_steps * settings.blocks_per_step * run.model.context
    steps = f"{settings.num_steps:,} steps of {settings.blocks_per_step} blocks of {run.model.context} tokens"
    failed = {"failed": metadata.get("reason", "unknown")} if metadata.get("state") == "failed" else {}
    return {
        "study": study,
        "arm and seed": f"`{run.ablation}`, {run.seed}",
        "objective, optimizer, start": f"`{run.objective.kind}`, `{run.optimizer.kind}`, `{run.start.kind}`",
        "length": f"{steps}: {tokens:,} tokens",
        **failed,
        "text": text,
        "data": ", ".join(f"sha256 of {name}: `{digest}`" for name, digest in digests.items()) or "unknown",
        "tokenizer": f"`{tokenizer.kind}`, {tokenizer.vocabulary:,} ids; sha256: `{tokenizer.fingerprint}`",
        "spec": f"sha256 of spec.json: `{sha256(spec_file)}`",
        "weights": f"sha256 of {weights}: `{sha256(folder / weights)}`",
        "written by": f"Speciate {VERSION}",
    }
