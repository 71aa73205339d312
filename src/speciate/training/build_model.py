"""The network of a run: the model that its spec describes, with what its objective adds.

An objective's Options may ask for `extra_tokens` more token ids than the tokenizer has ([MASK]: the last), and its file
may define `parts(options, run)`: modules by name, such as further heads or an importance estimator, that live in the
model's state beside the blocks.
"""

from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer


def build_model(run: RunSpec, vocabulary: int) -> Transformer:
    """The run's model, its initial weights decided by `torch.manual_seed`.

    Args:
        run: its spec.
        vocabulary: token ids of the tokenizer.
    """
    parts = run.objective.component().parts(run.objective, run)
    return Transformer(run.model, vocabulary + run.objective.extra_tokens, parts)
