"""Build the tiny model of every family that can be exported: each kind of mixer x feed-forward layer x depth."""

import itertools
from contextlib import AbstractContextManager
from typing import Any

import torch
from tests.every_kind import VOCABULARY, Settings, allowed_in, model_settings, without_balance
from torch import Tensor

from speciate.config.components import options_within
from speciate.config.run import ModelSpec
from speciate.model.depth.skipper import Predictor
from speciate.model.hf.auto_classes import SpeciateConfig, SpeciateForCausalLM
from speciate.model.token_batch import in_domains

LENGTH = 9
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def first_of_each_kind(slot: str) -> dict[str, Settings]:
    """Return one of all settings of `mixer`, `ffn` or `depth` that have the same kinds, and differ in options alone."""
    found: dict[str, Settings] = {}
    kinds_seen: set[str] = set()
    for name, settings in without_balance(allowed_in(slot)).items():
        spec = ModelSpec.model_validate(model_settings(**{slot: settings}))
        kinds = f"{[options.kind for options in options_within(spec)]}{'choice=random' in name}"
        # what looks at later tokens is not exported
        if kinds not in kinds_seen and not any(options.looks_ahead() for options in options_within(spec)):
            kinds_seen.add(kinds)
            found[name] = settings
    return found


SLOTS = ("mixer", "ffn", "depth")
PARTS = [first_of_each_kind(slot) for slot in SLOTS]


def family(*names: str) -> Settings:
    """Return the settings of the model with these mixer, feed-forward layer and depth."""
    return model_settings(**{slot: part[name] for slot, part, name in zip(SLOTS, PARTS, names, strict=True)})


FAMILIES = {"-".join(names): family(*names) for names in itertools.product(*PARTS)}
SAMPLE = ["-".join(list(part)[index % len(part)] for part in PARTS) for index in range(max(map(len, PARTS)))]
"""As many of them as name every mixer, feed-forward layer and depth."""


def build(settings: Settings, **changes: Any) -> SpeciateForCausalLM:
    """Build the model in float64, with predictors that have learned something."""
    spec = ModelSpec.model_validate({**settings, **changes})
    torch.manual_seed(0)
    config = SpeciateConfig(spec.model_dump(mode="json"), VOCABULARY, bos_token_id=0)
    model = SpeciateForCausalLM(config).double().eval()
    for module in model.modules():
        if isinstance(module, Predictor):
            torch.nn.init.normal_(module.down.weight)
    return model


def ids(rows: int = 2, length: int = LENGTH) -> Tensor:
    """Draw rows of different tokens, none of which pads."""
    generator = torch.Generator().manual_seed(1)
    return torch.stack([1 + torch.randperm(VOCABULARY - 1, generator=generator)[:length] for _ in range(rows)])


def domains(rows: int = 2) -> AbstractContextManager[None]:
    """Say that all rows are of domain 1, which a router may need to know."""
    return in_domains(torch.ones(rows, dtype=torch.long))


def padded(token_BT: Tensor, before: int, after: int, pad: int) -> tuple[Tensor, Tensor]:
    """Return the tokens and their mask, with the first row's text between `before` and `after` pads.

    The other rows have as many tokens more.
    """
    more_BT = torch.randint(1, VOCABULARY, (len(token_BT), before), generator=torch.Generator().manual_seed(2))
    less_BT = torch.randint(1, VOCABULARY, (len(token_BT), after), generator=torch.Generator().manual_seed(3))
    whole_BT = torch.cat([more_BT, token_BT, less_BT], dim=1)
    mask_BT = torch.ones_like(whole_BT)
    for columns in (slice(0, before), slice(before + token_BT.shape[1], None)):
        whole_BT[0, columns], mask_BT[0, columns] = pad, 0
    return whole_BT, mask_BT
