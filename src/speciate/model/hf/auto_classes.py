"""Our Transformer as a model of transformers: what `speciate export` writes where no class of transformers serves.

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

A model with the shape of GPT-2, Llama or Mixtral needs none of this: it is exported as one of them. Every other model
(other experts, mixers and depths) is a `SpeciateForCausalLM`: our Transformer behind transformers' interface. So
`generate`, with its cache, padding, sampling and beams, and `save_pretrained` work. A copy of this file, with all that
it imports, lies in the exported folder (folder_code.py). Where this package is installed, importing this file registers
the classes, and the folder loads without its copy and without `trust_remote_code`.

B blocks of T tokens, S tokens including the cached ones, V vocabulary.
"""

import os
import pathlib
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from speciate.config.components import options_within
from speciate.config.run import ModelSpec
from speciate.model.cache import Cache
from speciate.model.hf.folder_code import write_code
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer

AUTO_MAP = {
    "AutoConfig": "speciate_model_hf_auto_classes.SpeciateConfig",
    "AutoModelForCausalLM": "speciate_model_hf_auto_classes.SpeciateForCausalLM",
}
"""Class of transformers -> where the copy of this file in a folder has the class that serves there."""


class SpeciateConfig(PreTrainedConfig):
    """Config of an exported model: `model` holds the settings of a `ModelSpec`, `vocab_size` is V."""

    model_type = "speciate"

    def __init__(self, model: dict[str, Any] | None = None, vocab_size: int = 0, **others: Any) -> None:
        self.model = model or {}
        self.vocab_size = vocab_size
        # other tools look for these names
        self.hidden_size = self.model.get("width")
        self.num_hidden_layers = self.model.get("num_layers")
        self.max_position_embeddings = self.model.get("context")
        # a tied head of ours is the embedding itself, so there is no second weight to tie
        super().__init__(**{**others, "tie_word_embeddings": False})

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write the config, and the code by which a process without this package loads the model."""
        if self.model:
            write_code(pathlib.Path(save_directory), ModelSpec.model_validate(self.model))
            self.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, push_to_hub, **kwargs)


class GenerationCache(Cache):
    """Our cache, with the methods that transformers' generation calls."""

    def get_seq_length(self) -> int:
        """Return the number of tokens read so far."""
        return self.length

    def reorder_cache(self, row_B: Tensor) -> None:
        """Keep these rows of the batch, for beam search."""
        self.select(row_B)


class SpeciateForCausalLM(PreTrainedModel, GenerationMixin):
    """Our Transformer as a model of transformers."""

    config_class = SpeciateConfig
    base_model_prefix = "model"
    _no_split_modules = ["Block"]
    _supports_sdpa = True
    _is_stateful = True  # recurrent states cannot be cut, as transformers' assisted decoding needs

    def __init__(self, config: SpeciateConfig) -> None:
        super().__init__(config)
        # transformers builds on the meta device, but ours draws weights and computes angles while it is built
        with torch.device("cpu"):
            self.model = Transformer(ModelSpec.model_validate(config.model), config.vocab_size)
        saved = self.model.state_dict()
        self._computed = [
            (module, name, value.clone())
            for path, module in self.model.named_modules()
            for name, value in module.named_buffers(recurse=False)
            if f"{path}.{name}".lstrip(".") not in saved
        ]
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        """Restore buffers that no file holds (angles), which loading overwrites; the Transformer draws its weights."""
        for owner, name, value in self._computed:
            if module is owner:
                module.get_buffer(name).copy_(value)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Return False: `forward` makes the cache."""
        return False

    def get_input_embeddings(self) -> torch.nn.Module:
        embedding: torch.nn.Module = self.model.token_embedding
        return embedding

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the inputs of a step of `generate`.

        Raises:
            ValueError: the model needs whole blocks.
        """
        spec_of_model = ModelSpec.model_validate(self.config.model)
        if any(options.needs_whole_block() for options in options_within(spec_of_model)):
            raise ValueError(
                "choice.capacity_factor: counts the tokens of a whole block; the model cannot generate token by token"
            )
        prepared: dict[str, Any] = super().prepare_inputs_for_generation(*args, **kwargs)  # type: ignore[misc]
        return prepared

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: GenerationCache | None = None,
        *,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **ignored: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits, (B, T, V), or those of the last `logits_to_keep` of the T positions.

        Args:
            input_ids: token ids, (B, T); with a cache, the new ones.
            attention_mask: (B, S), 0 at padding, on either side.
            position_ids: (B, T); by default counted from the first token that is no padding.
            past_key_values: the cache that an earlier call returned.
            labels: (B, T), for the mean loss of the next token; -100 is left out.
            use_cache: whether to return a cache.
            logits_to_keep: number of positions, or their indices; 0: all.
            ignored: arguments that transformers passes for other models.
        """
        cache = GenerationCache() if past_key_values is None and use_cache else past_key_values
        first, length = 0 if cache is None else cache.length, input_ids.shape[1]
        real_BT = None
        if attention_mask is not None and not bool(attention_mask.all()):
            real_BT = (attention_mask != 0)[:, first : first + length]
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, first : first + length]
        position_BT = None if position_ids is None else position_ids.expand_as(input_ids)
        tokens = TokenBatch.of(input_ids, cache=cache, position_BT=position_BT, real_BT=real_BT)
        x_BTD = self.model.read(tokens)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.model.head(x_BTD[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size)
        past: Any = cache
        return CausalLMOutputWithPast(loss=loss, logits=logits_BTV, past_key_values=past)


if __name__.startswith("speciate."):  # transformers finds the classes of a folder's copy by AUTO_MAP
    AutoConfig.register(SpeciateConfig.model_type, SpeciateConfig, exist_ok=True)
    AutoModelForCausalLM.register(SpeciateConfig, SpeciateForCausalLM, exist_ok=True)
