"""Importance from a small network and from frequency: 0.7 of the network's nats and 0.3 of the surprisal (ATAT)."""

from pydantic import Field
from torch import Tensor, nn

from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.training.diffusion.importance_network import ImportanceNetwork
from speciate.training.diffusion.importance_options import NetworkImportanceOptions


class Options(NetworkImportanceOptions):
    """Options of the mixed importance: the network's size and its share."""

    share: float = Field(0.7, gt=0, lt=1)
    """Share of the learned part in the importance; the rest is the surprisal of the token's frequency."""

    def learned_share(self) -> float:
        """Return the share that the config sets."""
        return self.share


class Importance(nn.Module):
    """The network's estimate combined with the token's surprisal."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        self.network = ImportanceNetwork(context, options.width, options.num_layers, options.num_heads)

    def forward(self, tokens: TokenBatch, surprisal_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's logits and the surprisal, (B, T) each."""
        return self.network(tokens), surprisal_BT
