"""Test what TokenBatch keeps for selected columns, and positions in documents."""

import torch

from speciate.model.token_batch import TokenBatch


def test_identity_survives_a_choice_of_columns() -> None:
    token_BT = torch.tensor([[5, 6, 7, 8], [9, 5, 6, 7]])
    tokens = TokenBatch.of(token_BT, torch.tensor([[0, 0, 1, 1], [2, 2, 2, 3]]))
    assert tokens.position_BT.tolist() == [[0, 1, 0, 1], [0, 1, 2, 0]]
    assert tokens.document_BT is not None
    assert tokens.document_BT.tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
    some = tokens.select(torch.tensor([[1, 3], [0, 2]]))
    assert some.id_BT.tolist() == [[6, 8], [9, 6]]
    assert some.position_BT.tolist() == [[1, 1], [0, 2]]
    assert some.index_BT.tolist() == [[1, 3], [4, 6]]
    assert some.document_BT is not None
    assert some.document_BT.tolist() == [[0, 1], [0, 0]]
    again = some.select(torch.tensor([[1], [1]]))
    assert again.index_BT.tolist() == [[3], [6]]
    assert torch.equal(token_BT.flatten()[again.index_BT], again.id_BT)


def test_without_documents_there_stay_none() -> None:
    assert TokenBatch.of(torch.zeros(2, 3)).select(torch.tensor([[0], [1]])).document_BT is None


def test_a_document_that_comes_again_is_a_context_of_its_own() -> None:
    tokens = TokenBatch.of(torch.zeros(1, 6), torch.tensor([[4, 4, 7, 4, 4, 4]]))
    assert tokens.position_BT.tolist() == [[0, 1, 0, 0, 1, 2]]
    assert tokens.document_BT is not None
    assert tokens.document_BT.tolist() == [[0, 0, 1, 2, 2, 2]]


def test_without_documents_positions_are_those_of_the_block() -> None:
    assert TokenBatch.of(torch.zeros(2, 3)).position_BT.tolist() == [[0, 1, 2]] * 2
