"""Load somebody's model with its tokenizer, ready to be recorded: a transformers folder, a hub id, or a run of ours."""

import pathlib
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn

from speciate.data.tokens.manifest import read_manifest
from speciate.io import is_out_of_memory
from speciate.model.hf.auto_classes import SpeciateConfig, SpeciateForCausalLM
from speciate.training.checkpoint.load_run import load_run

DTYPES = {
    "auto": "auto",
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""Name of a precision -> what transformers is told; auto: the checkpoint's own."""


class LoadedModel(NamedTuple):
    """A model and its tokenizer."""

    model: nn.Module
    tokenizer: Any
    source: str
    """What was loaded, as a page names it."""


def load_model(
    name: str, *, dtype: str = "auto", device: str = "cpu", tokenizer: pathlib.Path | None = None
) -> LoadedModel:
    """Load a model in evaluation mode.

    Args:
        name: a folder that transformers can read, an id on its hub, or the folder of a finished run of a study.
        dtype: a name of DTYPES.
        device: where the model goes; `auto` spreads it over all devices.
        tokenizer: the folder of another tokenizer; None: the model's own.

    Raises:
        ValueError: there is no such model, it is damaged, or it lacks a tokenizer; names it.
    """
    if dtype not in DTYPES:
        raise ValueError(f"--dtype: {dtype} is none of {', '.join(DTYPES)}")
    folder = pathlib.Path(name).expanduser()
    if (folder / "spec.json").is_file():
        return _load_run(folder, tokenizer, device=device)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"{name}: holds neither a model's config.json nor a run's spec.json")
    return _load_pretrained(str(folder) if folder.is_dir() else name, tokenizer, dtype=dtype, device=device)


def _load_run(folder: pathlib.Path, tokenizer: pathlib.Path | None, *, device: str) -> LoadedModel:
    from transformers import PreTrainedTokenizerFast

    fitted = tokenizer or folder / "tokenizer"
    manifest = read_manifest(fitted)
    run, model = load_run(folder, manifest.vocabulary)
    ours = SpeciateForCausalLM(
        SpeciateConfig(run.model.model_dump(mode="json"), manifest.vocabulary, eos_token_id=manifest.end_of_text)
    )
    model.parts.clear()
    ours.model.load_state_dict(model.state_dict())
    ours.train(False)
    fast = PreTrainedTokenizerFast(tokenizer_file=str(fitted / "tokenizer.json"), eos_token=manifest.end_token)
    torch.nn.Module.to(ours, "cpu" if device == "auto" else device)
    return LoadedModel(ours, fast, str(folder))


def _load_pretrained(name: str, tokenizer: pathlib.Path | None, *, dtype: str, device: str) -> LoadedModel:
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{name}: is no model that transformers can read: {first_line(error)}") from None
    auto = auto_class_of(config)
    where = {"device_map": "auto"} if device == "auto" else {}
    try:
        model, found = auto.from_pretrained(name, dtype=DTYPES[dtype], output_loading_info=True, **where)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"{name}: the weights cannot be loaded: {first_line(error)}") from None
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ValueError(f"{name}: the weights lack {missing[0]} and {len(missing) - 1} more; they would be random")
    try:
        fast = AutoTokenizer.from_pretrained(str(tokenizer or name))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{tokenizer or name}: has no tokenizer that can be read: {first_line(error)}") from None
    return LoadedModel(model.eval() if device == "auto" else model.eval().to(device), fast, name)


def auto_class_of(config: Any) -> Any:
    """Return the class of transformers that loads a model of this config: the first that knows it.

    Raises:
        ValueError: none does.
    """
    from transformers import models

    auto = models.auto.modeling_auto
    for known in (
        auto.AutoModelForCausalLM,
        auto.AutoModelForSeq2SeqLM,
        auto.AutoModelForImageTextToText,
        auto.AutoModelForTokenClassification,
        auto.AutoModel,
    ):
        if type(config) in known._model_mapping:
            return known
    raise ValueError(f"{config.model_type}: transformers has no language model of this type")


def first_line(error: Exception) -> str:
    """Return the first line of a library's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
