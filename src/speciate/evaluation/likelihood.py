"""How well a finished model predicts held-out text: nats by document, so that intervals can be had over documents.

The auxiliary losses of selectors are no part of it. Bytes are those that the predicted tokens stand for, so that models
with different tokenizers compare in bits per byte; where a tokenizer does not keep every byte (`data/tokens/token_bytes.py`), a
document's own bytes, shared among its tokens in proportion to the bytes of their spelling.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from speciate.data.blocks import BlockSet
from speciate.model.token_batch import in_domains
from speciate.model.transformer import Transformer
from speciate.training.loss.objective import Objective
from speciate.training.probe import batches

COLUMNS = ("document", "domain", "id", "group", "nats", "tokens", "bytes")
"""Of the loss by document."""


@torch.no_grad()
def nll_by_document(
    model: Transformer,
    objective: Objective,
    blocks: BlockSet,
    token_bytes_V: npt.NDArray[np.int32],
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """The loss of `model` on each document of a held-out set.

    Args:
        model: in evaluation mode.
        objective: offers `nats`, the loss of each predicted token, and `counted`, which of them have a part in it.
        blocks: B blocks of T tokens; the first token of a block is not predicted.
        token_bytes_V: bytes that each token id stands for.
        device: where the model is; the blocks are brought there.

    Returns:
        One row a document that had a predicted token: document, domain, id, group, nats, tokens, bytes; and nats_draws
        of an objective that estimates them, one that has `draws`: its independent unbiased estimates of the document's
        nats, (draws,), whose mean is `nats`.
    """
    num_documents = len(blocks.documents)
    nats, tokens, num_bytes = (np.zeros(num_documents) for _ in range(3))
    sums_ED: npt.NDArray[np.float64] | None = None
    for start, token_BT in batches(torch.from_numpy(blocks.tokens)):
        document_BT = blocks.document[start : start + len(token_BT)]
        portion = (model, token_BT.to(device), torch.from_numpy(document_BT).long().to(device))
        counted_BS = objective.loss_mask(*portion).cpu().numpy()
        with in_domains(torch.from_numpy(blocks.domain[start : start + len(token_BT)]).long().to(device)):
            draws_EBS = objective.nll_estimates(*portion)
        draws_EN = draws_EBS.double().cpu().numpy()[:, counted_BS]
        document_N = document_BT[:, 1:][counted_BS]
        np.add.at(nats, document_N, draws_EN.mean(0))
        sums_ED = np.zeros((len(draws_EN), num_documents)) if sums_ED is None else sums_ED
        np.add.at(sums_ED.T, document_N, draws_EN.T)
        np.add.at(tokens, document_N, 1)
        np.add.at(num_bytes, document_N, token_bytes_V[token_BT[:, 1:].numpy()[counted_BS]])
    whole, surface = (blocks.documents[name].to_numpy(np.float64) for name in ("bytes", "surface"))
    # a document's own bytes, shared among its tokens; where the tokenizer is lossless the factor is 1
    num_bytes *= np.divide(whole, surface, out=np.ones(num_documents), where=surface > 0)
    found: dict[str, object] = {
        "nats": nats,
        "tokens": tokens.astype(np.int64),
        "bytes": np.rint(num_bytes).astype(np.int64),
    }
    if sums_ED is not None and objective.is_estimated:
        found["nats_draws"] = list(sums_ED.T)
    table = blocks.documents[["document", "domain", "id", "group"]].assign(**found)
    return table[table["tokens"] > 0].reset_index(drop=True)
