"""Any of transformers' fast tokenizers, as published: byte-level BPE, SentencePiece's unigram and BPE, WordPiece.

Only its tokenizer.json is used, through `tokenizers`; no code of a model is run. Its truncation and padding are
switched off, and what it puts around a text (a beginning-of-text token, ...) is never asked for: packing ends each
document with the end-of-text token, and nothing else is added.

Decision: text never becomes a special token. `tokenizers` keeps the added tokens out, but a unigram model (Kudo 2018)
holds `</s>` as a piece like any other, and a page of HTML would then end documents; so where the vocabulary's pieces
are matched as they are, such a spelling is cut in two first. Other texts keep their ids. Where the tokens do not keep
every byte of a text, `data/tokens/token_bytes.py` says what holds.
"""

import json
import pathlib
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field
from tokenizers import Tokenizer

from speciate.config.components import OneOf
from speciate.config.contracts.data import SourceOptions, TokenizerOptions
from speciate.data.tokens.token_bytes import specials

SOURCE = "tokenizer"


class Options(TokenizerOptions):
    """The options of a published tokenizer."""

    archive: Annotated[SourceOptions, OneOf("data/fetch/sources")]
    """Where its files are: {kind: tokenizer_files, repository: owner/name, revision: ...}, or {..., path: ...}."""
    end_of_text: str | None = Field(None, min_length=1)
    """The special token that ends a document; null: the eos_token of tokenizer_config.json."""

    def published_archive(self) -> SourceOptions:
        """Return where the published files come from."""
        return self.archive


def build(options: Options, texts: Iterable[str], archive: pathlib.Path | None) -> Tokenizer:
    """The tokenizer in `archive`; `texts` are not read.

    Raises:
        ValueError: no archive, no tokenizer.json in it, or one that `tokenizers` cannot load.
    """
    text = _files(options, archive)["tokenizer.json"]
    try:
        description = json.loads(Tokenizer.from_str(text).to_str())  # with every key there is
        tokenizer = Tokenizer.from_str(json.dumps(_apart(description)))
    except Exception as error:  # `tokenizers` raises nothing narrower
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"tokenizer.archive: tokenizer.json cannot be loaded: {type(error).__name__}: {said}"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def end_of_text(options: Options, tokenizer: Tokenizer, archive: pathlib.Path | None) -> str:
    """The token that ends a document, as the options or the published config name it.

    Raises:
        ValueError: neither names one, or it is no special token; the message lists those.
    """
    named = options.end_of_text or _eos(_files(options, archive).get("tokenizer_config.json"))
    there = specials(tokenizer)
    if named in there:
        return named
    said = "tokenizer_config.json names none" if named is None else f"{named} is no special token of it"
    raise ValueError(f"tokenizer.end_of_text: {said}; its special tokens: {', '.join(there) or 'none'}")


def _files(options: Options, archive: pathlib.Path | None) -> dict[str, str]:
    """File name -> text, of the archive."""
    if archive is None:
        raise ValueError("tokenizer: kind pretrained needs the archive of its source")
    found = options.archive.component().read(options.archive, SOURCE, archive)
    files = {pathlib.PurePosixPath(item.id).name: item.text or "" for item in found}
    if "tokenizer.json" not in files:
        raise ValueError(f"tokenizer.archive: must give tokenizer.json, not {', '.join(sorted(files))}")
    return files


def _eos(config: str | None) -> str | None:
    """The eos_token of a tokenizer_config.json, which is a string or an object with its content."""
    try:
        eos = json.loads(config or "{}").get("eos_token")
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"tokenizer.archive: tokenizer_config.json cannot be read: {error}") from None
    return eos.get("content") if isinstance(eos, dict) else eos


def _apart(description: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer, with spelled-out special tokens cut after their first character, after all other cuts."""
    special = [token["content"] for token in description["added_tokens"] if token["special"]]
    spelled = [f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in special if len(token) > 1]
    if description["model"]["type"] == "BPE" or not spelled:
        return description
    cut = {"type": "Split", "pattern": {"Regex": "|".join(spelled)}, "behavior": "Isolated", "invert": False}
    steps = [step for step in (description["pre_tokenizer"], cut) if step is not None]
    return description | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
