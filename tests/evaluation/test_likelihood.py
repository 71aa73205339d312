"""Test the loss by document against a model whose every probability is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from speciate.data.blocks import BlockSet
from speciate.evaluation.likelihood import nll_by_document
from speciate.training.objective_base import Objective


class Known(Objective):
    """Act as an objective and its model in one: token v has the probability (v + 1) / 10 after any token."""

    def forward(self, model: nn.Module, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def token_nll(self, model: nn.Module, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        return -torch.log((token_BT[:, 1:] + 1) / 10)

    def loss_mask(self, model: nn.Module, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        return torch.ones_like(token_BT[:, 1:], dtype=torch.bool)


class Separate(Known):
    """Leave out each document's first token."""

    def loss_mask(self, model: nn.Module, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        return document_BT[:, 1:] == document_BT[:, :-1]


@pytest.fixture
def blocks() -> BlockSet:
    documents = pd.DataFrame(
        {"document": [0, 1, 2, 3], "domain": ["a", "a", "b", "b"], "id": list("wxyz"), "group": list("wxyz")}
    ).assign(bytes=[1, 110, 50, 11], surface=[1, 110, 50, 11])
    return BlockSet(
        name="test",
        domains=("a", "b"),
        tokens=np.array([[0, 1, 2, 3], [3, 2, 1, 0]]),
        document=np.array([[0, 0, 1, 1], [2, 3, 3, 3]], dtype=np.int32),
        domain=np.array([0, 1], dtype=np.int32),
        documents=documents,
        types=None,
    )


def test_nats_tokens_and_bytes_go_to_the_predicted_tokens_document(blocks: BlockSet) -> None:
    known = Known()
    table = nll_by_document(known, known, blocks, np.array([0, 1, 10, 100], dtype=np.int32))
    # document 2 has only a block's first token, which is not predicted
    assert table["id"].tolist() == ["w", "x", "z"]
    assert table["tokens"].tolist() == [1, 2, 3]
    assert table["bytes"].tolist() == [1, 110, 11]
    expected = [-np.log(0.2), -np.log(0.3) - np.log(0.4), -np.log(0.3) - np.log(0.2) - np.log(0.1)]
    np.testing.assert_allclose(table["nats"], expected, rtol=1e-6)


def test_where_tokens_do_not_keep_every_byte_a_documents_own_bytes_are_shared_among_them(blocks: BlockSet) -> None:
    """Document w has 30 bytes, but its tokens spell 10; z's tokens spell nothing at all."""
    blocks.documents["bytes"] = [30, 55, 7, 11]
    blocks.documents["surface"] = [10, 110, 7, 0]
    known = Known()
    table = nll_by_document(known, known, blocks, np.array([0, 1, 10, 100], dtype=np.int32))
    assert table["bytes"].tolist() == [3, 55, 11]
    assert list(table.columns) == ["document", "domain", "id", "group", "nats", "tokens", "bytes"]


def test_a_prediction_that_does_not_count_is_no_ones(blocks: BlockSet) -> None:
    table = nll_by_document(Separate(), Separate(), blocks, np.array([0, 1, 10, 100], dtype=np.int32))
    assert table["id"].tolist() == ["w", "x", "z"]
    assert table["tokens"].tolist() == [1, 1, 2]
    assert table["bytes"].tolist() == [1, 100, 1]
    np.testing.assert_allclose(table["nats"], [-np.log(0.2), -np.log(0.4), -np.log(0.2) - np.log(0.1)], rtol=1e-6)


class Estimated(Known):
    """Return four estimates of each token's nats, up to .3 nats off."""

    is_estimated = True

    def nll_estimates(self, model: nn.Module, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        off_E = torch.tensor([-0.3, -0.1, 0.1, 0.3])[:, None, None]
        return self.token_nll(model, token_BT, document_BT) + off_E


def test_an_estimated_loss_keeps_each_of_its_estimates(blocks: BlockSet) -> None:
    token_bytes_V = np.array([0, 1, 10, 100], dtype=np.int32)
    exact, table = (nll_by_document(nn.Linear(1, 1), known, blocks, token_bytes_V) for known in (Known(), Estimated()))
    assert "nats_draws" not in exact
    np.testing.assert_allclose(table["nats"], exact["nats"], rtol=1e-6)
    # all tokens of a document deviate together
    for row, nats in zip(table.itertuples(), exact["nats"], strict=True):
        np.testing.assert_allclose(row.nats_draws, nats + np.array([-0.3, -0.1, 0.1, 0.3]) * row.tokens, rtol=1e-5)
