"""The part of our model of transformers that every task shares: building, loading, resizing and checkpointing.

V vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel

from speciate.config.run import ModelSpec
from speciate.model.module_hooks import HasTokenTable
from speciate.model.transformer import Transformer
from speciate.selection.selection import selectors

LAST_STEP = math.nextafter(1.0, 0.0)
"""Progress of the last step of a run."""


class TransformerModel(PreTrainedModel):
    """Holds our Transformer under `model`, as transformers' model classes hold theirs.

    Args:
        config: holds the settings of a `ModelSpec` as `model`, and V as `vocab_size`.
    """

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    gradient_checkpointing = False
    _no_split_modules = ["Block"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.spec = ModelSpec.model_validate(config.model)
        self.model = self._draw_model()
        saved = self.model.state_dict()
        self._computed = {path: value.clone() for path, value in self.model.named_buffers() if path not in saved}
        """Buffers that no file holds (angles)."""
        self._paths: dict[int, str] = {}
        """Path of each module by its id, while weights are set."""
        self._drawn: dict[str, Tensor] | None = None
        self._is_built = False
        self.post_init()  # type: ignore[no-untyped-call]
        self._is_built = True

    def _draw_model(self) -> Transformer:
        # transformers builds on the meta device, but ours draws weights and computes angles while it is built
        with torch.device("cpu"):
            model = Transformer(self.spec, self.config.vocab_size)
        # a run's warm-ups and annealed noise are over when it is exported, and nobody here tells its selectors so
        for selector in selectors(model).values():
            selector.before_update(LAST_STEP)
        return model

    def initialize_weights(self) -> None:
        """Set what a loaded file lacks: computed buffers (angles), and weights, drawn as those of a new model."""
        self._paths = {id(module): path for path, module in self.model.named_modules()}
        super().initialize_weights()  # type: ignore[no-untyped-call]
        self._paths, self._drawn = {}, None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Do it for one module; or draw a new embedding or output layer, of a vocabulary that grows."""
        path = self._paths.get(id(module))
        if path is None:
            std = self.spec.embedding_std if isinstance(module, nn.Embedding) else self.spec.init_std
            for name, weight in module.named_parameters(recurse=False):
                weight.zero_() if name == "bias" else weight.normal_(0.0, std)
            return
        prefix = f"{path}." if path else ""
        for name, value in [*module.named_buffers(recurse=False), *module.named_parameters(recurse=False)]:
            if prefix + name in self._computed:
                value.copy_(self._computed[prefix + name])
            elif self._is_built and not getattr(value, "_is_hf_initialized", False):
                if self._drawn is None:
                    self._drawn = self._draw_model().state_dict()
                value.copy_(self._drawn[prefix + name])

    def get_input_embeddings(self) -> nn.Module:
        embedding: nn.Module = self.model.token_embedding
        return embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.token_embedding = value

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the output layer; None where the token embedding serves as one."""
        head: nn.Module | None = self.model.unembedding
        return head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output layer.

        Raises:
            ValueError: the token embedding serves as one.
        """
        if self.model.unembedding is None:
            raise ValueError("set_output_embeddings: the output layer is the token embedding (tied_head: true)")
        self.model.unembedding = new_embeddings

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Change the number of token ids, in the routers' tables of ids too; the arguments are transformers'."""
        embedding = super().resize_token_embeddings(*args, **kwargs)
        self.model.vocabulary = self.config.vocab_size
        for module in self.model.modules():
            if isinstance(module, HasTokenTable):
                module.resize_vocabulary(self.config.vocab_size)
        return embedding

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = checkpoint, every_n_layers: int = 1
    ) -> None:
        """Let the backward pass recompute every `every_n_layers`-th block.

        Raises:
            ValueError: an option is given that the blocks' own recomputation does not have.
        """
        if enable and gradient_checkpointing_func is not checkpoint:  # transformers passes a partial of it
            if gradient_checkpointing_func.func is not checkpoint:
                raise ValueError("offload: is not supported; the inputs of blocks stay where they are")
            options = {"use_reentrant": False, **gradient_checkpointing_func.keywords}
            refused = [name for name, value in options.items() if (name, value) != ("use_reentrant", False)]
            if refused:
                raise ValueError(f"{refused[0]}: is not supported; blocks are recomputed with use_reentrant=False")
        self.gradient_checkpointing = enable
        for index, block in enumerate(self.model.blocks):
            block.recompute = enable and index % every_n_layers == 0
