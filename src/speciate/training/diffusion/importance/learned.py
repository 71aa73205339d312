"""Importance estimated by a small network, trained alongside the denoiser on each token's loss in nats."""

from torch import Tensor, nn

from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.training.diffusion.importance_network import ImportanceNetwork
from speciate.training.diffusion.importance_options import NetworkImportanceOptions


class Options(NetworkImportanceOptions):
    """Options of the learned importance: the network's size."""

    def learned_share(self) -> float:
        """Return 1: all of the importance is learned."""
        return 1.0


class Importance(nn.Module):
    """The network alone."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        self.network = ImportanceNetwork(context, options.width, options.num_layers, options.num_heads)

    def forward(self, tokens: TokenBatch, surprisal_BT: Tensor) -> tuple[Tensor, None]:
        """Return the network's logits, (B, T), and no known nats."""
        return self.network(tokens), None
