"""The token embedding, and its scale: x = s E[token] (Gemma, Gemini Team 2024, 2403.08295: s = sqrt(width)).

The output layer of a model with a tied head reads E without the scale.
"""

from torch import Tensor, nn

from speciate.config.run import ModelSpec


class ScaledEmbedding(nn.Embedding):
    """An embedding whose rows are multiplied by a number when they are looked up."""

    scale: float = 1.0

    def forward(self, id_BT: Tensor) -> Tensor:
        """Return the scaled rows, (..., D)."""
        scaled: Tensor = super().forward(id_BT) * self.scale
        return scaled


def token_embedding(vocabulary: int, model: ModelSpec) -> nn.Embedding:
    """Build the token embedding of a model."""
    if model.embedding_scale == 1:
        return nn.Embedding(vocabulary, model.width)
    embedding = ScaledEmbedding(vocabulary, model.width)
    embedding.scale = model.embedding_scale
    return embedding
