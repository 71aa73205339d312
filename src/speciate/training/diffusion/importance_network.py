"""The small network that says how hard each token is: bidirectional transformer blocks on the tokens, one number each.

It has embeddings of its own, so nothing that it learns reaches the denoiser, and nothing of the denoiser's loss reaches
it. Its blocks are the model's (model/block.py), of attention and a dense layer.

B blocks of T tokens.
"""

from torch import Tensor, nn

from speciate.config.run import ModelSpec
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer


def shape(model: ModelSpec, width: int, num_layers: int, num_heads: int) -> ModelSpec:
    """The estimator's own model, in the style of the `model` that it serves."""
    block = {"mixer": {"kind": "attention", "num_heads": num_heads}, "ffn": {"kind": "dense", "hidden": 4 * width}}
    style = {
        key: getattr(model, key) for key in ("context", "norm", "norm_epsilon", "position", "rotary_base", "biases")
    }
    settings = {**style, "width": width, "num_layers": num_layers, "causal": False, "block": block | {"depth": "every"}}
    return ModelSpec.model_validate(settings)


class ImportanceNetwork(nn.Module):
    """(tokens) -> one logit a token."""

    def __init__(self, place: BuildContext, width: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.body = Transformer(shape(place.model, width, num_layers, num_heads), place.vocabulary)
        self.out = nn.Linear(width, 1)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """(B, T)."""
        logit_BT1: Tensor = self.out(self.body.read(tokens))
        return logit_BT1.squeeze(-1)
