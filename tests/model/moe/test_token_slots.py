"""Test that tables of token ids grow evenly, and keep what they have."""

import torch
from tests.every_kind import VOCABULARY, model_settings
from tests.model.hf.families import build

from speciate.model.moe.token_slots import resize_slots


def test_an_added_id_goes_to_the_slot_with_the_fewest() -> None:
    slot_V = torch.tensor([2, 2, 0, 4, 2])
    assert resize_slots(slot_V, 9, [0, 2, 4]).tolist() == [2, 2, 0, 4, 2, 0, 4, 0, 4]
    assert resize_slots(slot_V, 2, [0, 2, 4]).tolist() == [2, 2]
    assert resize_slots(slot_V, 5, [0, 2, 4]).tolist() == slot_V.tolist()


def test_a_domain_keeps_its_slots_when_the_vocabulary_grows() -> None:
    ffn = {"kind": "moe", "num_experts": 4, "hidden": 20, "router": {"kind": "oracle", "domains": 2}, "balance": "none"}
    model = build(model_settings(ffn=ffn))
    before_GV = model.model.blocks[1].ffn.router.scorer.slot_GV.clone()
    model.resize_token_embeddings(VOCABULARY + 8)
    after_GV = model.model.blocks[1].ffn.router.scorer.slot_GV
    assert torch.equal(after_GV[:, :VOCABULARY], before_GV)
    for domain, slots in enumerate(([0, 2], [1, 3])):
        assert after_GV[domain].bincount(minlength=4)[slots].tolist() == [29, 29]
