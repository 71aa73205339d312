"""Multi-token prediction heads: each predicts a token some positions after the next one (Gloeckle et al. 2024).

    block:   l_t = norm_i(block_i(trunk_t)) H^T     trunk: the residual stream before the last block; H the model's head
    linear:  l_t = x_t H_i^T                        x: the input of the model's own head

Head i of 1, 2, ... predicts token t + 1 + i from the tokens up to t; head 0 is the model's own last block, norm and
output layer. After training the heads can draft tokens (evaluation/speculative.py). A head's block keeps what it needs
of earlier tokens in its own cache.

B blocks of T tokens, D width, V vocabulary.
"""

from dataclasses import replace

from torch import Tensor, nn

from speciate.config.run import BlockSpec
from speciate.model.block import Block
from speciate.model.module_hooks import CountsFlops
from speciate.model.norm import norm
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer


class PredictionHead(nn.Module):
    """Base of a further head; its logits are `weight` times the output of `read`.

    Args:
        ahead: i, the number of positions after the next token.
    """

    def __init__(self, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead

    def read(self, trunk_BTD: Tensor, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the output layer's input, (B, T, D), from the trunk and the input of the model's own head."""
        raise NotImplementedError

    def weight(self, model: Transformer) -> Tensor:
        """Return the output layer's weight, (V, D)."""
        raise NotImplementedError


class BlockHead(CountsFlops, PredictionHead):
    """A block and a norm on the trunk, followed by the model's own output layer.

    Args:
        context: the model.
        ahead: i.
        block: options of the block.
    """

    def __init__(self, context: BuildContext, ahead: int, block: BlockSpec) -> None:
        super().__init__(ahead)
        one_block = context.model.model_copy(update={"block": block, "exceptions": ()})
        self.block = Block(replace(context, model=one_block))
        self.norm = norm(context.model)
        self.logits_flops = 2.0 * context.vocabulary * context.model.width

    def read(self, trunk_BTD: Tensor, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the norm's output."""
        normed_BTD: Tensor = self.norm(self.block(trunk_BTD, tokens))
        return normed_BTD

    def weight(self, model: Transformer) -> Tensor:
        """Return the weight of the model's own output layer."""
        return model.head_VD

    def num_flops(self, length: float) -> float:
        """Return the FLOPs of one token's logits, which the model's own count leaves out."""
        return self.logits_flops * (length - 1 - self.ahead) / length


class LinearHead(CountsFlops, PredictionHead):
    """A separate output layer on the input of the model's own head.

    Args:
        context: the model.
        ahead: i.
    """

    def __init__(self, context: BuildContext, ahead: int) -> None:
        super().__init__(ahead)
        self.unembedding = nn.Linear(context.model.width, context.vocabulary, bias=False)

    def read(self, trunk_BTD: Tensor, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the input of the model's own head."""
        return x_BTD

    def weight(self, model: Transformer) -> Tensor:
        """Return the weight of its own output layer."""
        return self.unembedding.weight

    def num_flops(self, length: float) -> float:
        """Return minus the FLOPs of a block's last tokens, which have no target."""
        return -2.0 * self.unembedding.weight.numel() * (1 + self.ahead) / length


def prediction_heads(model: Transformer) -> list[PredictionHead]:
    """Return the further heads of a model, nearest first; there are none unless its objective added some."""
    return [part for part in model.parts.values() if isinstance(part, PredictionHead)]
