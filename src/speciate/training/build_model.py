"""Build the model of a run: the decoder that its spec describes, with what its objective adds.

An objective's Options may ask for `extra_tokens` more token ids than the tokenizer has ([MASK]: the last one). Its file
defines `parts(options, run)`: modules by name, such as further heads or an importance estimator. They belong to the
model and are saved with it.
"""

import torch

from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training.frozen_layers import freeze_layers


def build_model(run: RunSpec, vocabulary: int) -> Transformer:
    """Return the run's model with its initial weights, which follow from the run's seed whoever builds it.

    Torch's own generator is left as it was, so that the noise of training does not depend on how much a model draws.

    Args:
        run: the run's spec.
        vocabulary: number of the tokenizer's token ids.
    """
    parts = run.objective.component().parts(run.objective, run)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        model = Transformer(run.model, vocabulary + run.objective.extra_tokens, parts)
    if run.start.num_frozen_layers():
        freeze_layers(model, run)
    return model
