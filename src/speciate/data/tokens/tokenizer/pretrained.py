"""A published fast tokenizer of transformers: byte-level BPE, SentencePiece's unigram and BPE, or WordPiece.

Only tokenizer.json is used, through `tokenizers`; no code of a model runs. Dropout, truncation and padding are switched
off, and tokens around a text (a beginning-of-text token, ...) are not added; the stage says what it switched off.
Packing ends each document with the end-of-text token and adds nothing else.

Decision: text never becomes a special token. `tokenizers` does not match the special tokens here, but a unigram model
(Kudo 2018) holds `</s>` as an ordinary entry, so a page of HTML would end documents. Where the vocabulary's entries are
matched directly, such a spelling is therefore cut in two first. Other texts keep their ids.

Added tokens that are not special (`<think>` of Qwen and DeepSeek) are ordinary vocabulary: a text that spells one gets
its id, as in `tokenizers` and `transformers`, since the published model was trained so. Set `"special": true` for them
in tokenizer.json where text must not become them.

A tokenizer may lose text (`data/tokens/loss.py`). What is lost is counted and warned of; a document of which nothing is
left, or a domain of which less than half is, is an error. For tokenizers that do not keep every byte of a text, see
`data/tokens/token_bytes.py`.
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
from speciate.data.tokens.token_bytes import special_tokens

SOURCE = "tokenizer"


class Options(TokenizerOptions):
    """Options of a published tokenizer."""

    archive: Annotated[SourceOptions, OneOf("data/fetch/sources")]
    """Source of its files: {kind: tokenizer_files, repository: owner/name, revision: ...}, or {..., path: ...}."""
    end_of_text: str | None = Field(None, min_length=1)
    """Special token that ends a document; null uses the eos_token of tokenizer_config.json."""

    def published_archive(self) -> SourceOptions:
        """Return the source of the published files."""
        return self.archive


def build(options: Options, texts: Iterable[str], archive: pathlib.Path | None) -> Tokenizer:
    """Build the tokenizer in `archive`; `texts` are not read.

    Raises:
        ValueError: there is no archive, it has no tokenizer.json, or `tokenizers` cannot load that file.
    """
    text = _read_files(options, archive)["tokenizer.json"]
    try:
        description = json.loads(Tokenizer.from_str(text).to_str())  # to_str writes every key
        tokenizer = Tokenizer.from_str(json.dumps(_split_special_spellings(description)))
    except Exception as error:  # `tokenizers` raises nothing narrower
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"tokenizer.archive: tokenizer.json cannot be loaded: {type(error).__name__}: {reason}"
        ) from None
    return tokenizer


def end_of_text(options: Options, tokenizer: Tokenizer, archive: pathlib.Path | None) -> str:
    """Return the token that ends a document, as the options or the published config name it.

    Raises:
        ValueError: neither names one, or it is not a special token; the message lists the special tokens.
    """
    token = options.end_of_text or _read_eos_token(_read_files(options, archive).get("tokenizer_config.json"))
    available = special_tokens(tokenizer)
    if token in available:
        return token
    problem = "tokenizer_config.json names none" if token is None else f"{token} is not a special token"
    raise ValueError(f"tokenizer.end_of_text: {problem}; the special tokens are: {', '.join(available) or 'none'}")


def _read_files(options: Options, archive: pathlib.Path | None) -> dict[str, str]:
    """Read the archive's files: file name -> text."""
    if archive is None:
        raise ValueError("tokenizer: kind pretrained needs the archive of its source")
    passages = options.archive.component().read(options.archive, SOURCE, archive)
    files = {pathlib.PurePosixPath(passage.id).name: passage.text or "" for passage in passages}
    if "tokenizer.json" not in files:
        raise ValueError(f"tokenizer.archive: must hold tokenizer.json, not {', '.join(sorted(files))}")
    return files


def _read_eos_token(config: str | None) -> str | None:
    """Return the eos_token of a tokenizer_config.json: a string, or an object that holds it as its content."""
    try:
        eos = json.loads(config or "{}").get("eos_token")
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"tokenizer.archive: tokenizer_config.json cannot be read: {error}") from None
    return eos.get("content") if isinstance(eos, dict) else eos


def _split_special_spellings(description: dict[str, Any]) -> dict[str, Any]:
    """Return the tokenizer with a last pre-tokenizer step that cuts spelled-out special tokens after one character."""
    special = [token["content"] for token in description["added_tokens"] if token["special"]]
    spelled = [f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in special if len(token) > 1]
    if description["model"]["type"] == "BPE" or not spelled:
        return description
    cut = {"type": "Split", "pattern": {"Regex": "|".join(spelled)}, "behavior": "Isolated", "invert": False}
    steps = [step for step in (description["pre_tokenizer"], cut) if step is not None]
    return description | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
