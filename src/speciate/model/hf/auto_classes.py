"""Importing this module lets transformers' Auto classes load what `speciate export` wrote.

    import speciate.model.hf.auto_classes
    model = AutoModelForCausalLM.from_pretrained(folder)

A model of GPT-2's or Llama's own shape needs none of this: it is exported as theirs. All else (experts, other mixtures
of norm, position and activation) is a `SpeciateForCausalLM`: our Transformer behind their interface, so that
`generate`, with its cache, padding, sampling and beams, and `save_pretrained` work.

B blocks of T tokens, S of them with those before, V vocabulary.
"""

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
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer


class SpeciateConfig(PreTrainedConfig):
    """`model`: the settings of a `speciate.config.run.Model`; `vocab_size`: V."""

    model_type = "speciate"

    def __init__(self, model: dict[str, Any] | None = None, vocab_size: int = 0, **others: Any) -> None:
        self.model = model or {}
        self.vocab_size = vocab_size
        # what other tools look for under these names
        self.hidden_size = self.model.get("width")
        self.num_hidden_layers = self.model.get("num_layers")
        self.max_position_embeddings = self.model.get("context")
        # of our head, which is the embedding itself where it is tied, there is no second name to tie
        super().__init__(**{**others, "tie_word_embeddings": False})


class GenerationCache(Cache):
    """Our cache, with the names that generation calls it by."""

    def get_seq_length(self) -> int:
        """Tokens read so far."""
        return self.length

    def reorder_cache(self, row_B: Tensor) -> None:
        """Keeps these rows, for beams."""
        self.take(row_B)


class SpeciateForCausalLM(PreTrainedModel, GenerationMixin):
    """Our Transformer as one of theirs."""

    config_class = SpeciateConfig
    base_model_prefix = "model"
    _no_split_modules = ["Block"]
    _supports_sdpa = True
    _is_stateful = True  # recurrent states cannot be cut, as transformers' own speculation would ask

    def __init__(self, config: SpeciateConfig) -> None:
        super().__init__(config)
        # they build models without memory; ours draws its weights and computes its angles as it is built
        with torch.device("cpu"):
            self.model = Transformer(ModelSpec.model_validate(config.model), config.vocab_size)
        filed = self.model.state_dict()
        self._computed = [
            (module, name, value.clone())
            for path, module in self.model.named_modules()
            for name, value in module.named_buffers(recurse=False)
            if f"{path}.{name}".lstrip(".") not in filed
        ]
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        """Puts back what no file holds (angles); loading overwrites it. The weights the Transformer draws itself."""
        for owner, name, value in self._computed:
            if module is owner:
                module.get_buffer(name).copy_(value)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """No: `forward` makes the cache."""
        return False

    def get_input_embeddings(self) -> torch.nn.Module:
        """The token embedding."""
        embedding: torch.nn.Module = self.model.token_embedding
        return embedding

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What a step of `generate` reads. Raises ValueError where the model needs whole blocks."""
        spec_of_model = ModelSpec.model_validate(self.config.model)
        if any(options.needs_whole_block() for options in options_within(spec_of_model)):
            raise ValueError("choice.capacity_factor: is a share of a whole block; it cannot generate token by token")
        prepared: dict[str, Any] = super().prepare_inputs_for_generation(*args, **kwargs)  # type: ignore[misc]
        return prepared

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: GenerationCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **ignored: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V), or of the last `logits_to_keep` of the T positions.

        Args:
            input_ids: token ids, (B, T); with a cache those that are new.
            attention_mask: (B, S), 0 where there is padding, on either side.
            position_ids: (B, T); by default counted from the first token that is no padding.
            past_key_values: what an earlier call returned.
            labels: (B, T), for the mean loss of the next token; -100 is left out.
            use_cache: return a cache.
            logits_to_keep: 0: all.
            ignored: what transformers passes on for other models.
        """
        cache = GenerationCache() if past_key_values is None and use_cache else past_key_values
        first, length = 0 if cache is None else cache.length, input_ids.shape[1]
        index_BT = torch.arange(input_ids.numel(), device=input_ids.device).view(input_ids.shape)
        document_BT = None
        if attention_mask is not None and not bool(attention_mask.all()):
            # padding is a document of its own, so that no token of the text sees it
            document_BT = (attention_mask == 0).long()[:, first : first + length]
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, first : first + length]
        if position_ids is None:
            position_ids = index_BT % length + first
        position_BT = position_ids.expand_as(input_ids)
        x_BTD = self.model.read(TokenBatch(input_ids, position_BT, index_BT, document_BT, cache))
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.model.head(x_BTD[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size)
        given: Any = cache
        return CausalLMOutputWithPast(loss=loss, logits=logits_BTV, past_key_values=given)


AutoConfig.register(SpeciateConfig.model_type, SpeciateConfig, exist_ok=True)
AutoModelForCausalLM.register(SpeciateConfig, SpeciateForCausalLM, exist_ok=True)
