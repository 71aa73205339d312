"""Our Transformer as a model of transformers: what `speciate export` writes where no class of transformers serves.

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

A model with the shape of GPT-2, Llama or Mixtral needs none of this: it is exported as one of them. Every other model
(other experts, mixers and depths) is a `SpeciateForCausalLM`: our Transformer behind transformers' interface. It does
what that library's own mixtures of experts do, and refuses by name what it cannot do (docs/transformers.md). A copy of
this file, with all that it imports, lies in the exported folder (folder_code.py). Where this package is installed,
importing this file registers the classes, and the folder loads without its copy and without `trust_remote_code`.

B blocks of T tokens, S tokens including the cached ones, D width, V vocabulary.
"""

import inspect
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
)
from transformers.modeling_outputs import MoeCausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from speciate.config.components import options_within
from speciate.config.run import ModelSpec
from speciate.model.hf.folder_code import write_code
from speciate.model.hf.generation_cache import GenerationCache
from speciate.model.hf.model_inputs import is_packed, refuse_unknown, token_batch
from speciate.model.hf.recorded_outputs import record_outputs
from speciate.model.hf.transformer_model import TransformerModel
from speciate.selection.selection import selectors

LOSS_ARGUMENTS = ("num_items_in_batch", "shift_labels")
"""Arguments of `forward` that transformers passes on to the loss."""

AUTO_MAP = {
    "AutoConfig": "speciate_model_hf_auto_classes.SpeciateConfig",
    "AutoModelForCausalLM": "speciate_model_hf_auto_classes.SpeciateForCausalLM",
}
"""Class of transformers -> where the copy of this file in a folder has the class that serves there."""


class SpeciateConfig(PreTrainedConfig):
    """Config of an exported model.

    `model` holds the settings of a `ModelSpec`, `vocab_size` is V. As in transformers' mixtures of experts,
    `output_router_logits` adds the selectors' auxiliary loss to the loss, times `router_aux_loss_coef`. It is 1,
    because each part of that loss has its weight in `model`.
    """

    model_type = "speciate"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        model: dict[str, Any] | None = None,
        vocab_size: int = 0,
        *,
        use_cache: bool = True,
        output_router_logits: bool = False,
        router_aux_loss_coef: float = 1.0,
        **others: Any,
    ) -> None:
        self.model = model or {}
        self.vocab_size = vocab_size
        self.use_cache = use_cache
        self.output_router_logits, self.router_aux_loss_coef = output_router_logits, router_aux_loss_coef
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


class SpeciateForCausalLM(TransformerModel, GenerationMixin):
    """Our Transformer as a model of transformers that predicts the next token."""

    config_class = SpeciateConfig
    accepts_loss_kwargs = True  # the Trainer then passes num_items_in_batch
    _is_stateful = True  # recurrent states cannot be cut, as transformers' assisted decoding needs

    def __init__(self, config: SpeciateConfig) -> None:
        super().__init__(config)
        components = list(options_within(self.spec))
        self._needs_ids = next((options.kind for options in components if options.reads_token_ids), None)
        self._whole_block = next((options.kind for options in components if options.needs_whole_block()), None)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Return False: `forward` makes the cache."""
        return False

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate as transformers does.

        Raises:
            ValueError: the model needs whole blocks.
        """
        if self._whole_block is not None:
            raise ValueError(
                f"choice: {self._whole_block}: chooses among the tokens of a whole block; "
                "it cannot generate token by token"
            )
        return super().generate(*args, **kwargs)  # type: ignore[misc]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: GenerationCache | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_router_logits: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **loss_arguments: Any,
    ) -> MoeCausalLMOutputWithPast:
        """Return the logits, (B, T, V), or those of the last `logits_to_keep` of the T positions.

        Args:
            input_ids: token ids, (B, T); with a cache, the new ones.
            attention_mask: (B, S), 0 at padding, before or after a row's tokens.
            position_ids: (B, T); by default counted from the first token that is no padding. Without attention_mask and
                cache, positions that start again keep several texts of a row apart.
            past_key_values: the cache that an earlier call returned.
            inputs_embeds: token embeddings in place of input_ids, (B, T, D).
            labels: (B, T), for the mean loss of the next token; -100 is left out.
            use_cache: whether to return a cache; by default only in evaluation, as the config says.
            output_attentions: refused: no layer holds its attention weights.
            output_hidden_states: whether to return each block's input, and the last norm's output.
            output_router_logits: whether to return the logits of the routers of experts, and to add the auxiliary loss
                of all selectors to the loss; by default as the config says.
            logits_to_keep: number of positions, or their indices; 0: all.
            loss_arguments: `num_items_in_batch`, by which the summed loss is divided in place of the labels' number;
                `shift_labels`, the labels of each position's next token, in place of labels.

        Raises:
            TypeError: an argument is unknown.
            ValueError: an argument is refused; names it.
        """
        refuse_unknown(loss_arguments, FORWARD_ARGUMENTS, LOSS_ARGUMENTS)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if self.config.output_attentions if output_attentions is None else output_attentions:
            raise ValueError("output_attentions: is not supported; no layer holds its attention weights")
        if inputs_embeds is not None and self._needs_ids is not None:
            raise ValueError(f"inputs_embeds: router {self._needs_ids} looks at the ids of tokens; give input_ids")
        with_loss = labels is not None or loss_arguments.get("shift_labels") is not None
        if with_loss and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise ValueError("logits_to_keep: must be 0 with labels, which need the logits of all positions")
        cache = self._cache(past_key_values, use_cache, packed=is_packed(position_ids, attention_mask))
        if input_ids is None:
            assert inputs_embeds is not None
            input_ids = torch.zeros(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
        tokens = token_batch(input_ids, attention_mask, position_ids, cache, context=self.model.context)

        with_routers = self.config.output_router_logits if output_router_logits is None else output_router_logits
        if with_routers and not selectors(self.model):
            raise ValueError("output_router_logits: no layer of this model has a router")
        with_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        with record_outputs(
            self.model, hidden_states=with_states not in (None, False), routers=with_routers
        ) as recorded:
            x_BTD = self.model.read(tokens, inputs_embeds)
        if cache is not None:
            cache.extend(tokens.real_BT, tokens.position_BT)

        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.model.head(x_BTD[:, kept])
        loss = self._loss(logits_BTV, labels, loss_arguments) if with_loss else None
        auxiliary = recorded.auxiliary_loss()
        if loss is not None and auxiliary is not None:
            loss = loss + self.config.router_aux_loss_coef * auxiliary * self._share(labels, loss_arguments)
        past: Any = cache
        routers: Any = recorded.router_logits(x_BTD)
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=auxiliary,
            logits=logits_BTV,
            past_key_values=past,
            hidden_states=recorded.hidden_states(x_BTD),
            router_logits=routers,
        )

    def _cache(self, past: Any, use_cache: bool | None, *, packed: bool) -> GenerationCache | None:
        """Return the cache to fill, or None."""
        if past is not None and not isinstance(past, GenerationCache):
            raise ValueError(
                f"past_key_values: must be the cache that this model returned, or an empty GenerationCache(), "
                f"not a {type(past).__name__}"
            )
        recomputes = self.gradient_checkpointing and torch.is_grad_enabled()
        if use_cache is None:
            default = self.config.use_cache and not (
                self.training or packed or recomputes or self._whole_block is not None
            )
            use_cache = default or past is not None
        if recomputes and (use_cache or past is not None):
            raise ValueError(
                "use_cache: a block that is recomputed (gradient checkpointing) would cache its tokens twice"
            )
        if packed and (use_cache or past is not None):
            raise ValueError("position_ids: start again within a row; a cache holds one text, so give use_cache=False")
        return GenerationCache() if past is None and use_cache else past

    def _loss(self, logits_BTV: Tensor, labels: Tensor | None, arguments: dict[str, Any]) -> Tensor:
        given = {name: value for name, value in arguments.items() if value is not None}
        loss: Tensor = self.loss_function(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size, **given)
        return loss

    def _share(self, labels: Tensor | None, arguments: dict[str, Any]) -> Tensor | float:
        """Return this call's share of the predicted tokens by whose number the loss is divided.

        With it the auxiliary losses of an accumulated batch add up to their mean, as the losses do.
        """
        num_items = arguments.get("num_items_in_batch")
        if num_items is None:
            return 1.0
        shifted = arguments.get("shift_labels")
        if shifted is None:
            assert labels is not None
            shifted = labels[..., 1:]
        share: Tensor = (shifted != -100).sum() / num_items
        return share


FORWARD_ARGUMENTS = tuple(inspect.signature(SpeciateForCausalLM.forward).parameters)
"""Arguments of `forward`, to name the one that a misspelt one means."""

if __name__.startswith("speciate."):  # transformers finds the classes of a folder's copy by AUTO_MAP
    AutoConfig.register(SpeciateConfig.model_type, SpeciateConfig, exist_ok=True)
    AutoModelForCausalLM.register(SpeciateConfig, SpeciateForCausalLM, exist_ok=True)
