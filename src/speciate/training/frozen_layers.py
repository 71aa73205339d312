"""Lower layers that keep the weights they start with: what they make of a block of text is computed once, and kept.

Every arm and seed of a study that starts from one checkpoint runs the same lower layers on the same blocks. With
`start.frozen_layers` their output for each block is a file, named by all that decides its bits, which training,
evaluation and interventions read. Each block is computed alone and in float32, so that its bits do not depend on the
blocks beside it, nor on who computes it first.

B blocks of T tokens, D width.
"""

import hashlib
import os
import pathlib

import numpy as np
import torch
from torch import Tensor

from speciate.config.run import RunSpec
from speciate.io import atomic_write
from speciate.machine import describe
from speciate.model import transformer
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer
from speciate.selection.selection import mark_recomputation

FOLDER = "SPECIATE_FROZEN_LAYERS"
"""Environment variable that names the folder of the files; without it nothing is kept. No result depends on it."""


class FrozenLayers:
    """The output of a model's lowest blocks, from a file where there is one.

    Args:
        model: the model; its embeddings and its lowest blocks no longer learn.
        num_layers: how many blocks are frozen.
        settings: what the blocks do besides their weights, as text.
        folder: where the files are; None: nothing is kept.
    """

    def __init__(self, model: Transformer, num_layers: int, settings: str, folder: pathlib.Path | None) -> None:
        self.num_layers, self.settings, self.folder = num_layers, settings, folder
        lower = [model.token_embedding, *list(model.blocks)[:num_layers]]
        if model.position_embedding is not None:
            lower.append(model.position_embedding)
        self.parameters = [parameter for module in lower for parameter in module.parameters()]
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        self._digest, self._versions = b"", -1

    def outputs(self, model: Transformer, tokens: TokenBatch) -> Tensor:
        """Return the residual stream above the frozen blocks, float32 (B, T, D), without gradients."""
        return torch.cat([self._output(model, tokens, row) for row in range(len(tokens.id_BT))])

    def _output(self, model: Transformer, tokens: TokenBatch, row: int) -> Tensor:
        """Return the output for one block, (1, T, D)."""
        file = None if self.folder is None else self.folder / self._name(tokens, row)
        kept = None if file is None else _read(file, (1, tokens.id_BT.shape[1], model.token_embedding.embedding_dim))
        if kept is not None:
            return torch.from_numpy(kept).to(tokens.id_BT.device)
        device = tokens.id_BT.device.type
        # most runs read what another has computed, so frozen layers are measured in none: what a run says of itself
        # must not depend on which run came first
        with torch.no_grad(), torch.autocast(device, enabled=False), mark_recomputation():
            output_1TD = model.run_lowest(_one_block(tokens, row), self.num_layers)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temp_path, temp_path.open("wb") as stream:
                np.save(stream, output_1TD.cpu().numpy())
        return output_1TD

    def _name(self, tokens: TokenBatch, row: int) -> str:
        """Return the path of a block's file below the folder."""
        digest = hashlib.blake2b(digest_size=16)
        parts = (tokens.id_BT, tokens.position_BT, tokens.document_BT, tokens.real_BT)
        for part in parts:
            digest.update(b"-" if part is None else part[row].cpu().numpy().tobytes() + b"|")
        name = digest.hexdigest()
        return f"{self.digest(tokens.id_BT.device).hex()}/{name[:2]}/{name}.npy"

    def digest(self, device: torch.device) -> bytes:
        """Return a digest of all that decides the bits of an output: weights, settings, code, torch, processor."""
        versions = sum(parameter._version for parameter in self.parameters)
        if versions != self._versions:
            digest = hashlib.blake2b(digest_size=16)
            machine = describe()
            kind = (device.type, machine["instructions"], machine["threads"], torch.__version__)
            digest.update(f"{self.num_layers} {self.settings} {kind}".encode())
            for source in sorted(pathlib.Path(transformer.__file__).parent.rglob("*.py")):
                digest.update(source.read_bytes())
            for parameter in self.parameters:
                digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
            self._digest, self._versions = digest.digest(), versions
        return self._digest


def freeze_layers(model: Transformer, run: RunSpec) -> None:
    """Freeze the embeddings and the lowest blocks of a run's model, and let it read their outputs from files.

    Parameter names and shapes stay as they are. With a tied head the head is frozen too.
    """
    num_layers, folder = run.start.num_frozen_layers(), os.environ.get(FOLDER)
    # arms may differ above
    shared = run.model.model_dump_json(exclude={"num_layers", "block", "exceptions", "tied_head"})
    blocks = [run.model.block_of(layer).model_dump_json() for layer in range(num_layers)]
    settings = "\n".join([shared, *blocks])
    model.frozen_layers = FrozenLayers(model, num_layers, settings, pathlib.Path(folder) if folder else None)


def _one_block(tokens: TokenBatch, row: int) -> TokenBatch:
    """Return one block of a batch as a batch of its own."""
    rows = slice(row, row + 1)
    return TokenBatch.of(
        tokens.id_BT[rows],
        None if tokens.document_BT is None else tokens.document_BT[rows],
        position_BT=tokens.position_BT[rows],
        real_BT=tokens.real_BT[rows] if tokens.padded else None,
    )


def _read(file: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a kept output; None if there is none, or if the file is damaged, so that it is made again."""
    try:
        kept = np.load(file)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.shape == shape and kept.dtype == np.float32 else None
