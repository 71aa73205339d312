"""Test against the published generator, and check that only a block's own tokens decide its numbers."""

import torch

from speciate.model.bit_mixing import mix_bits
from speciate.training.diffusion.fixed_uniforms import GOLDEN, uniforms


def splitmix64(state: int) -> int:
    """Run the published steps in Python's integers."""
    state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ state >> 27) * 0x94D049BB133111EB) % 2**64
    return state ^ state >> 31


def test_it_mixes_as_splitmix64() -> None:
    states = [0, 1, 2**63 - 1, -1, GOLDEN, 123456789]
    expected = [splitmix64(state % 2**64) for state in states]
    assert [value % 2**64 for value in mix_bits(torch.tensor(states)).tolist()] == expected
    assert splitmix64(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first number from seed 0, as published


def test_a_block_has_its_own_numbers_in_any_batch() -> None:
    token_BT = torch.randint(9, (5, 7))
    assert torch.equal(uniforms(token_BT, 3)[2:4], uniforms(token_BT[2:4], 3))
    assert not torch.equal(uniforms(token_BT, 3), uniforms(token_BT, 4))


def test_they_are_uniform() -> None:
    uniform_BT = uniforms(torch.arange(400 * 50).view(400, 50), 0)
    count = torch.histc(uniform_BT.float(), 10, 0, 1)
    assert (count - 2000).abs().max() < 5 * (2000 * 0.9) ** 0.5
    assert abs(torch.corrcoef(uniform_BT[:, :2].T)[0, 1]) < 5 / 400**0.5
