"""Mamba (Gu and Dao 2023, 2312.00752): a mixer with a selective state space instead of attention.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t;    y_t = C_t . h_t + D u_t;    delta, B, C depend on the token

A state of fixed size carries the whole past, so a token costs the same however long the text is. Mamba only reads from
left to right. Shown equal to transformers' MambaMixer on the same weights (tests/model/mixer/test_mamba.py).

B blocks of T tokens, D width.
"""

from torch import Tensor, nn

from speciate.model.ssm.mamba_block import Mamba, Shape
from speciate.model.ssm.mamba_options import MambaSizeOptions
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(MambaSizeOptions):
    """Sizes of the block; the defaults are the paper's."""


class Mixer(nn.Module):
    """One Mamba block, with the layer's cached state."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        self.layer = context.layer
        model = context.model
        shape = Shape.of(model.width, options)
        self.mamba = Mamba(shape, model.biases)

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return what each token gathers from the tokens up to itself, (B, T, D)."""
        past = None if tokens.cache is None else tokens.cache.state(self.layer)
        out_BTD, kept = self.mamba(x_BTD, tokens, past)
        if tokens.cache is not None:
            tokens.cache.set_state(self.layer, *kept)
        return out_BTD  # type: ignore[no-any-return]
