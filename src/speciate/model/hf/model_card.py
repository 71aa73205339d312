"""The README of an exported model's folder: how to load it, what it was trained on, and its limits."""

import importlib.metadata
from collections.abc import Iterator, Mapping

from speciate.config.run import ModelSpec, RunSpec
from speciate.model.hf.folder_code import LICENCE
from speciate.model.transformer import Transformer, count_parameters

REQUIRED = ("torch", "transformers", "pydantic")
"""Packages that the code in a folder needs; transformers brings the others."""
CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- speciate
---
# {name}

{total:,} parameters, {active:,} of them active for a token. {shape}

## How to load it

{loading}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}"{trust})
tokenizer = AutoTokenizer.from_pretrained("{folder}")
```

## What it was trained on

| | |
|---|---|
{facts}

## Limits

{limits}
"""
OWN_CLASS = "It is a `{architecture}`, one of transformers' own classes, and needs no other code."
CUSTOM_CODE = """\
No class of transformers computes what this model does, so its code is in this folder: the files `speciate_*.py`. They
run only with `trust_remote_code=True`; read them first. They are copies of Speciate's own files (MIT licence, in
{licence}). Speciate need not be installed; Python 3.11 or later and `pip install {required}` are needed. The folder was
written with {versions}.

Where Speciate is installed, `import speciate.model.hf.auto_classes` loads it without `trust_remote_code`."""


def model_card(
    run: RunSpec, model: Transformer, architecture: str, folder: str, *, facts: Mapping[str, str], difference: float
) -> str:
    """Return the text of the folder's README.

    Args:
        run: the run.
        model: what is exported of it.
        architecture: name of the class that was written.
        folder: name of the folder.
        facts: what is known of the training, by its name.
        difference: largest difference of the folder's logits from the run's.
    """
    total, active = count_parameters(model)
    custom = architecture.startswith("Speciate")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in REQUIRED)
    loading = CUSTOM_CODE.format(licence=LICENCE, required=" ".join(REQUIRED), versions=versions)
    return CARD.format(
        name=f"{run.ablation}, seed {run.seed}",
        total=total,
        active=active,
        shape=_shape(run.model),
        loading=loading if custom else OWN_CLASS.format(architecture=architecture),
        folder=folder,
        trust=", trust_remote_code=True" if custom else "",
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        limits="\n".join(f"- {limit}" for limit in _limits(run, model, architecture, difference)),
    )


def _shape(model: ModelSpec) -> str:
    """Return one sentence about the model's blocks."""
    block = model.block
    kinds = f"mixer `{block.mixer.kind}`, feed-forward layer `{block.ffn.kind}`, depth `{block.depth.kind}`"
    others = sorted({layer for exception in model.exceptions for layer in exception.layers})
    except_for = f"; layers {', '.join(map(str, others))} (from 0) differ, see config.json" if others else ""
    return f"{model.num_layers} blocks of width {model.width}: {kinds}{except_for}."


def _limits(run: RunSpec, model: Transformer, architecture: str, difference: float) -> Iterator[str]:
    """Yield what a user of the folder should know before relying on it."""
    yield (
        "It is a model of an experiment about learned selectors, trained to continue the text above. It follows no "
        "instructions, and its output is not filtered."
    )
    if run.start.kind != "scratch":
        yield f"It does not start from random weights (`{run.start.kind}`): what those knew before, it may know too."
    yield f"It reads at most {run.model.context} tokens."
    yield (
        f"Its logits differed by at most {difference:.1e} from the run's when it was exported. Another processor, "
        "device or version of torch gives other last bits."
    )
    if run.model.separate_documents:
        yield "It was trained with documents kept apart: give it one document in each sequence."
    if architecture.startswith("Speciate"):
        yield "Decoding that cuts the cache (assisted generation, prompt lookup) is refused if a mixer keeps a state."
    if architecture == "MixtralForCausalLM":
        yield (
            "The router's noise, z-loss and load balancing belong to the training that made it. In further training, "
            "transformers' own auxiliary loss takes their place if `output_router_logits=True` asks for it."
        )
    yield "No licence is stated for the weights: it depends on the texts that they were trained on."
