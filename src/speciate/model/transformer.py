"""The decoder: embeddings, blocks, a final norm, a head; from GPT-2's shape to Llama's, as the config says.

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
from speciate.model.initial_weights import initialise
from speciate.model.norm import norm
from speciate.model.token_batch import BuildContext, TokenBatch


class Transformer(nn.Module):
    """A decoder-only language model, its initial weights decided by `torch.manual_seed`.

    Args:
        model: its shape.
        vocabulary: number of token ids.
        parts: what an objective adds to it, by name; they are drawn, saved and trained with the rest, and run by the
            objective alone.
    """

    def __init__(
        self,
        model: ModelSpec,
        vocabulary: int,
        parts: Mapping[str, Callable[[BuildContext], nn.Module]] | None = None,
    ) -> None:
        super().__init__()
        # drawn before anything is built: torch's layers draw initial weights too, more or fewer by the arm
        seed = int(torch.randint(2**62, (), device="cpu"))
        self.context, self.vocabulary = model.context, vocabulary
        self.separate_documents, self.causal = model.separate_documents, model.causal
        self.token_embedding = nn.Embedding(vocabulary, model.width)
        self.position_embedding = nn.Embedding(model.context, model.width) if model.position == "learned" else None
        self.blocks = nn.ModuleList(
            Block(BuildContext(model, layer, vocabulary, seed)) for layer in range(model.num_layers)
        )
        self.norm = norm(model)
        self.unembedding = None if model.tied_head else nn.Linear(model.width, vocabulary, bias=False)
        outside = BuildContext(model, -1, vocabulary, seed)
        self.parts = nn.ModuleDict({name: make(outside) for name, make in (parts or {}).items()})
        initialise(self, seed, model.init_std, model.embedding_std, model.num_layers)

    @property
    def head_VD(self) -> Tensor:
        """The weight of the output layer; the token embedding's own where the head is tied."""
        return self.token_embedding.weight if self.unembedding is None else self.unembedding.weight

    def hidden(self, token_BT: Tensor, document_BT: Tensor | None = None, also_BTD: Tensor | None = None) -> Tensor:
        """What the head reads: the residual stream after the last block and the final norm, (B, T, D).

        Args:
            token_BT: token ids, integer.
            document_BT: document of each position, read where the model separates documents; None: each block is one.
            also_BTD: what is added to the embeddings; broadcastable.

        Raises:
            ValueError: the blocks are longer than the model's context.
        """
        return self._through(self.tokens(token_BT, document_BT), also_BTD)[1]

    def tokens(self, token_BT: Tensor, document_BT: Tensor | None = None) -> TokenBatch:
        """Tokens of whole blocks as the model reads them: their documents apart only where it separates documents."""
        return TokenBatch.of(token_BT, document_BT if self.separate_documents else None)

    def read(self, tokens: TokenBatch) -> Tensor:
        """`hidden` of these tokens, (B, T, D); where they have a cache, they follow those that it has seen.

        Raises:
            ValueError: the blocks are longer than the model's context.
        """
        return self._through(tokens)[1]

    def trunk_and_hidden(self, tokens: TokenBatch) -> tuple[Tensor, Tensor]:
        """The residual stream before the last block, which further heads may start from, and `read`; (B, T, D) each."""
        return self._through(tokens)

    def _through(self, tokens: TokenBatch, also_BTD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        length = tokens.id_BT.shape[1] + (0 if tokens.cache is None else tokens.cache.length)
        if length > self.context:
            raise ValueError(f"a block of {length} tokens is longer than the context, {self.context}")
        x_BTD: Tensor = self.token_embedding(tokens.id_BT)
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding(tokens.position_BT)
        if also_BTD is not None:
            x_BTD = x_BTD + also_BTD
        trunk_BTD = x_BTD
        for block in self.blocks:
            trunk_BTD, x_BTD = x_BTD, block(x_BTD, tokens)
        if tokens.cache is not None:
            tokens.cache.length = length
        normed_BTD: Tensor = self.norm(x_BTD)
        return trunk_BTD, normed_BTD

    def head(self, x_BTD: Tensor) -> Tensor:
        """Logits of the next token, (..., V)."""
        return F.linear(x_BTD, self.head_VD)

    def forward(self, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Logits of the token after each position, (B, T, V). Training and evaluation never hold them whole."""
        return self.head(self.hidden(token_BT, document_BT))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(all parameters, those that act on any one token); embeddings count in both, a tied head once.

    A module whose parameters a token uses only in part says how many it leaves idle, by `num_idle_parameters()`.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    idle = [getattr(module, "num_idle_parameters", int)() for module in model.modules()]
    return total, total - sum(idle)
