"""The mixture's manifest, `mixture.json`: domains, labels, packs, and how many blocks each domain has."""

import pathlib

from speciate.config.components import Strict
from speciate.config.run import read_spec


class MixtureManifest(Strict):
    """The contents of `mixture.json`."""

    domains: list[str]
    """Domains of the packs, in the study's order; a block's domain is an index into this list."""
    labels: list[str]
    """Domain labels of the held-out documents: the same as `domains`, unless the mixture is a control that relabels."""
    block_length: int
    vocabulary: int
    end_of_text: int
    tokenizer_fingerprint: str
    packs: dict[str, str]
    """Domain -> folder of its pack, relative to the mixture's folder."""
    train_blocks: dict[str, int]
    """Domain -> number of its training blocks in the mixture."""
    epochs: dict[str, float]
    """Domain -> its training blocks in the mixture over the blocks in its pack; 1 means each block once."""
    held_out_blocks: dict[str, int]
    """Held-out set -> number of blocks of each domain in it."""
    available_blocks: dict[str, dict[str, int]]
    """Split -> domain -> number of blocks in its pack."""
    imbalance: float
    """Training tokens of the largest domain over those of the smallest, before mixing."""
    warnings: list[str]


def read_mixture(folder: pathlib.Path) -> MixtureManifest:
    """Read the `mixture.json` in `folder`. Raises ValueError naming the file."""
    return read_spec(MixtureManifest, folder / "mixture.json")
