"""The small network that estimates how hard each token is: bidirectional transformer blocks and one number per token.

It has its own embeddings, so the denoiser gets no gradient from it and it gets none from the denoiser's loss.
Its blocks are the model's (model/block.py), with attention and a dense layer.

B blocks of T tokens.
"""

from torch import Tensor, nn

from speciate.config.run import ModelSpec
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer


def network_spec(model: ModelSpec, width: int, num_layers: int, num_heads: int) -> ModelSpec:
    """Return the spec of the network's own transformer, in the style of the `model` that it serves."""
    block = {"mixer": {"kind": "attention", "num_heads": num_heads}, "ffn": {"kind": "dense", "hidden": 4 * width}}
    style = {
        key: getattr(model, key) for key in ("context", "norm", "norm_epsilon", "position", "rotary_base", "biases")
    }
    settings = {**style, "width": width, "num_layers": num_layers, "causal": False, "block": block | {"depth": "every"}}
    return ModelSpec.model_validate(settings)


class ImportanceNetwork(nn.Module):
    """A bidirectional transformer with one logit per token."""

    def __init__(self, context: BuildContext, width: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.body = Transformer(network_spec(context.model, width, num_layers, num_heads), context.vocabulary)
        self.out = nn.Linear(width, 1)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Return the logits, (B, T)."""
        logit_BT1: Tensor = self.out(self.body.read(tokens))
        return logit_BT1.squeeze(-1)
