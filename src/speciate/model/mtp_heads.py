"""Further heads beside a model's own: each predicts a token some places after the next one (Gloeckle et al. 2024).

    block:   l_t = norm_i(block_i(trunk_t)) H^T     trunk: the residual stream before the last block; H the model's own
    linear:  l_t = x_t H_i^T                        x: what the model's own head reads

Head i of 1, 2, ... predicts token t + 1 + i from the tokens up to t; head 0 is the model's own last block, norm and
output layer. Beside training they draft: evaluation/speculative.py. What a head's block needs of earlier tokens it
keeps in a cache of its own.

B blocks of T tokens, D width, V vocabulary.
"""

from dataclasses import replace

from torch import Tensor, nn

from speciate.config.run import BlockSpec
from speciate.model.block import Block
from speciate.model.norm import norm
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer


class PredictionHead(nn.Module):
    """One further head; `weight` times what `read` gives are its logits.

    Args:
        ahead: i, places after the next token.
    """

    def __init__(self, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead

    def read(self, trunk_BTD: Tensor, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """What the output layer reads, (B, T, D), of the trunk and of what the model's own head reads."""
        raise NotImplementedError

    def weight(self, model: Transformer) -> Tensor:
        """The output layer's weight, (V, D)."""
        raise NotImplementedError


class BlockHead(PredictionHead):
    """A block and a norm on the trunk, before the model's own output layer.

    Args:
        place: where in the model.
        ahead: i.
        block: what the block is.
    """

    def __init__(self, place: BuildContext, ahead: int, block: BlockSpec) -> None:
        super().__init__(ahead)
        alone = place.model.model_copy(update={"block": block, "exceptions": ()})
        self.block = Block(replace(place, model=alone))
        self.norm = norm(place.model)
        self.logits_flops = 2.0 * place.vocabulary * place.model.width

    def read(self, trunk_BTD: Tensor, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """The norm's output."""
        normed_BTD: Tensor = self.norm(self.block(trunk_BTD, tokens))
        return normed_BTD

    def weight(self, model: Transformer) -> Tensor:
        """The model's own."""
        return model.head_VD

    def num_flops(self, length: int) -> float:
        """Of one token's logits, which the model's own count leaves out; see model/profiling/flops.py."""
        return self.logits_flops * (length - 1 - self.ahead) / length


class LinearHead(PredictionHead):
    """An output layer of its own on what the model's own head reads.

    Args:
        place: where in the model.
        ahead: i.
    """

    def __init__(self, place: BuildContext, ahead: int) -> None:
        super().__init__(ahead)
        self.unembedding = nn.Linear(place.model.width, place.vocabulary, bias=False)

    def read(self, trunk_BTD: Tensor, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """As it is."""
        return x_BTD

    def weight(self, model: Transformer) -> Tensor:
        """Its own."""
        return self.unembedding.weight

    def num_flops(self, length: int) -> float:
        """Of a block's last tokens, which have no target; see model/profiling/flops.py."""
        return -2.0 * self.unembedding.weight.numel() * (1 + self.ahead) / length


def prediction_heads(model: Transformer) -> list[PredictionHead]:
    """The further heads of a model, nearest first; none where its objective added none."""
    return [part for part in model.parts.values() if isinstance(part, PredictionHead)]
