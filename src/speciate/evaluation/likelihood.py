"""How well a finished model predicts held-out text: nats by document, so that intervals can be had over documents.

The auxiliary losses of selectors are no part of it. Bytes are those that the predicted tokens stand for, so that models
with different tokenizers compare in bits per byte.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from speciate.data.blocks import BlockSet
from speciate.model.transformer import Transformer
from speciate.training.observe import batches


@torch.no_grad()
def by_document(
    model: Transformer, objective: nn.Module, blocks: BlockSet, token_bytes_V: npt.NDArray[np.int32]
) -> pd.DataFrame:
    """The loss of `model` on each document of a held-out set.

    Args:
        model: in evaluation mode.
        objective: offers `nats(model, token_BT)`, the loss of each predicted token.
        blocks: B blocks of T tokens; the first token of a block is not predicted.
        token_bytes_V: bytes that each token id stands for.

    Returns:
        One row a document that had a predicted token: document, domain, id, group, nats, tokens, bytes.
    """
    num_documents = len(blocks.documents)
    nats, tokens, num_bytes = (np.zeros(num_documents) for _ in range(3))
    for start, token_BT in batches(torch.from_numpy(blocks.tokens)):
        nats_BS = objective.nats(model, token_BT).double().numpy()  # type: ignore[operator]
        document_BS = blocks.document[start : start + len(token_BT), 1:]
        np.add.at(nats, document_BS, nats_BS)
        np.add.at(tokens, document_BS, 1)
        np.add.at(num_bytes, document_BS, token_bytes_V[token_BT[:, 1:].numpy()])
    table = blocks.documents.assign(nats=nats, tokens=tokens.astype(np.int64), bytes=num_bytes.astype(np.int64))
    return table[table["tokens"] > 0].reset_index(drop=True)
