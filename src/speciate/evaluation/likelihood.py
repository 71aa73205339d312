"""A finished model's loss on held-out text: nats by document, so that intervals can be computed over documents.

It leaves out the auxiliary losses of selectors. Bytes are those that the predicted tokens stand for, so that models
with different tokenizers are comparable in bits per byte. Where a tokenizer does not keep every byte
(`data/tokens/token_bytes.py`), a document's own bytes are shared among its tokens in proportion to the bytes of their
spelling.

B blocks of T tokens, S = T - 1 predictions of a block, N counted predictions, E estimates, D documents.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from speciate.data.blocks import BlockSet
from speciate.model.token_batch import in_domains
from speciate.model.transformer import Transformer
from speciate.training.objective_base import Objective
from speciate.training.probe import batches

COLUMNS = ("document", "domain", "id", "group", "nats", "tokens", "bytes")
"""Columns of the loss by document."""


@torch.no_grad()
def nll_by_document(
    model: Transformer,
    objective: Objective,
    blocks: BlockSet,
    token_bytes_V: npt.NDArray[np.int32],
    *,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """Return the loss of `model` on each document of a held-out set.

    Args:
        model: in evaluation mode.
        objective: gives each predicted token's loss, and which of them count.
        blocks: B blocks of T tokens; the first token of a block is not predicted.
        token_bytes_V: bytes that each token id stands for.
        device: the model's device; the blocks are moved there.

    Returns:
        One row for each document with a predicted token: document, domain, id, group, nats, tokens, bytes. If the
        objective estimates the loss, nats_draws too: the independent unbiased estimates of the document's nats, (E,),
        whose mean is `nats`.
    """
    num_documents = len(blocks.documents)
    nats, tokens, num_bytes = (np.zeros(num_documents) for _ in range(3))
    estimate_ED: npt.NDArray[np.float64] | None = None
    for start, token_BT in batches(torch.from_numpy(blocks.tokens)):
        document_BT = blocks.document[start : start + len(token_BT)]
        inputs = (model, token_BT.to(device), torch.from_numpy(document_BT).long().to(device))
        loss_mask_BS = objective.loss_mask(*inputs).cpu().numpy()
        with in_domains(torch.from_numpy(blocks.domain[start : start + len(token_BT)]).long().to(device)):
            nll_EBS = objective.nll_estimates(*inputs)
        nll_EN = nll_EBS.double().cpu().numpy()[:, loss_mask_BS]
        document_N = document_BT[:, 1:][loss_mask_BS]
        np.add.at(nats, document_N, nll_EN.mean(0))
        estimate_ED = np.zeros((len(nll_EN), num_documents)) if estimate_ED is None else estimate_ED
        np.add.at(estimate_ED.T, document_N, nll_EN.T)
        np.add.at(tokens, document_N, 1)
        np.add.at(num_bytes, document_N, token_bytes_V[token_BT[:, 1:].numpy()[loss_mask_BS]])
    document_bytes, token_bytes = (blocks.documents[name].to_numpy(np.float64) for name in ("bytes", "surface"))
    # a document's own bytes, shared among its tokens; where the tokenizer is lossless the factor is 1
    num_bytes *= np.divide(document_bytes, token_bytes, out=np.ones(num_documents), where=token_bytes > 0)
    columns: dict[str, object] = {
        "nats": nats,
        "tokens": tokens.astype(np.int64),
        "bytes": np.rint(num_bytes).astype(np.int64),
    }
    if estimate_ED is not None and objective.is_estimated:
        columns["nats_draws"] = list(estimate_ED.T)
    table = blocks.documents[["document", "domain", "id", "group"]].assign(**columns)
    return table[table["tokens"] > 0].reset_index(drop=True)
