"""The decoder: embeddings, blocks, a final norm and an output layer; the config picks its shape, GPT-2's to Llama's.

    x = E[token] (+ P[position]);   x = block_l(x), l = 1..L;   logits = norm(x) H^T,   H = E where tied

Shown equal to transformers' GPT2LMHeadModel and LlamaForCausalLM on the same weights (tests/model/test_transformer.py).

B blocks of T tokens, D width, V vocabulary.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.config.run import ModelSpec
from speciate.model.block import Block
from speciate.model.embedding import token_embedding
from speciate.model.initial_weights import initialise
from speciate.model.module_hooks import HasIdleParameters
from speciate.model.norm import norm
from speciate.model.token_batch import BuildContext, TokenBatch


class Transformer(nn.Module):
    """A decoder-only language model whose initial weights follow from `torch.manual_seed`.

    Args:
        model: the shape.
        vocabulary: number of token ids.
        parts: modules that an objective adds, by name. They are initialised, saved and trained with the rest, and only
            the objective runs them.
    """

    def __init__(
        self,
        model: ModelSpec,
        vocabulary: int,
        parts: Mapping[str, Callable[[BuildContext], nn.Module]] | None = None,
    ) -> None:
        super().__init__()
        # drawn before anything is built: torch's layers draw initial weights too, and how many depends on the arm
        seed = int(torch.randint(2**62, (), device="cpu"))
        self.context, self.vocabulary = model.context, vocabulary
        self.separate_documents, self.causal = model.separate_documents, model.causal
        self.token_embedding = token_embedding(vocabulary, model)
        self.position_embedding = nn.Embedding(model.context, model.width) if model.position == "learned" else None
        self.blocks = nn.ModuleList(
            Block(BuildContext(model, layer, vocabulary, seed)) for layer in range(model.num_layers)
        )
        self.norm = norm(model)
        self.unembedding = None if model.tied_head else nn.Linear(model.width, vocabulary, bias=False)
        beside_blocks = BuildContext(model, -1, vocabulary, seed)
        self.parts = nn.ModuleDict({name: build(beside_blocks) for name, build in (parts or {}).items()})
        initialise(self, seed, model.init_std, model.embedding_std, num_layers=model.num_layers)

    @property
    def head_VD(self) -> Tensor:
        """The output layer's weight, (V, D); it is the token embedding's where the head is tied."""
        return self.token_embedding.weight if self.unembedding is None else self.unembedding.weight

    def hidden(self, token_BT: Tensor, document_BT: Tensor | None = None, added_BTD: Tensor | None = None) -> Tensor:
        """Return the input of the output layer: the residual stream after the final norm, (B, T, D).

        Args:
            token_BT: token ids, integer.
            document_BT: document of each position, used if the model separates documents; None: each block is one.
            added_BTD: added to the embeddings; broadcastable.

        Raises:
            ValueError: the blocks are longer than the model's context.
        """
        return self._run_blocks(self.tokens(token_BT, document_BT), added_BTD)[1]

    def tokens(self, token_BT: Tensor, document_BT: Tensor | None = None) -> TokenBatch:
        """Return the batch that the model reads; it keeps documents apart only if the model separates them."""
        return TokenBatch.of(token_BT, document_BT if self.separate_documents else None)

    def read(self, tokens: TokenBatch, embedded_BTD: Tensor | None = None) -> Tensor:
        """Return `hidden` of these tokens, (B, T, D); with a cache, they follow the tokens that it has seen.

        Args:
            tokens: the tokens.
            embedded_BTD: embeddings in place of those of the tokens' ids; positions are still added to them.

        Raises:
            ValueError: the blocks are longer than the model's context.
        """
        return self._run_blocks(tokens, embedded_BTD=embedded_BTD)[1]

    def trunk_and_hidden(self, tokens: TokenBatch) -> tuple[Tensor, Tensor]:
        """Return the residual stream before the last block, where further heads may start, and `read`; (B, T, D)."""
        return self._run_blocks(tokens)

    def _run_blocks(
        self, tokens: TokenBatch, added_BTD: Tensor | None = None, *, embedded_BTD: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        length = tokens.id_BT.shape[1] + (0 if tokens.cache is None else tokens.cache.length)
        if length > self.context:
            raise ValueError(f"a block of {length} tokens is longer than the context, {self.context}")
        x_BTD: Tensor = self.token_embedding(tokens.id_BT) if embedded_BTD is None else embedded_BTD
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding(tokens.position_BT)
        if added_BTD is not None:
            x_BTD = x_BTD + added_BTD
        trunk_BTD = x_BTD
        for block in self.blocks:
            trunk_BTD, x_BTD = x_BTD, block(x_BTD, tokens)
        if tokens.cache is not None:
            tokens.cache.append(tokens.cache.CONTEXT, tokens.context_hash_BT)
            tokens.cache.length = length
        normed_BTD: Tensor = self.norm(x_BTD)
        return trunk_BTD, normed_BTD

    def head(self, x_BTD: Tensor) -> Tensor:
        """Return the logits of the next token, (..., V)."""
        return F.linear(x_BTD, self.head_VD)

    def forward(self, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return the logits of each position's next token, (B, T, V); training and evaluation never hold them all."""
        return self.head(self.hidden(token_BT, document_BT))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return (all parameters, those that one token uses); embeddings count in both, a tied head once.

    A module of whose parameters a token uses only some inherits `HasIdleParameters` (module_hooks.py).
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    idle = sum(module.num_idle_parameters() for module in model.modules() if isinstance(module, HasIdleParameters))
    return total, total - idle
