"""Read the prose of a MediaWiki export (XML): the paragraphs of each article, one text a section, grouped by article.

Decision: articles are long (28 kB on average in the extract of the default study) and few, and a held-out set of ten
documents cannot carry statistics. Their sections have the size of a file of code. `group` is the article, so no article
straddles a split. Only paragraphs are kept. Lists, tables, headings, formulas, references and templates go, except the
few templates that stand for words in a sentence. A whole paragraph goes if it held a formula, still holds markup, or
does not end as a sentence does (a stray caption, a line that announces a list).
"""

import io
import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import mwparserfromhell
from mwparserfromhell import nodes

from speciate.config.contracts.data import ReaderOptions
from speciate.data.passage import Passage
from speciate.data.reading_errors import ReadingError, explain_errors

DROP_MARK = "\x00"
"""Replaces something without which its whole paragraph is dropped."""
BLOCK_MARK = "\x01"
"""Replaces the start of a list item or heading: its line is not a paragraph."""
GONE_MARK = "\x02"
"""Replaces something left out, so that what follows does not look like the start of a line."""
SILENT_TAGS = {"ref", "references"}
LAYOUT_TAGS = {"table", "gallery", "timeline", "imagemap", "div", "center", "hr"}
LINK_PREFIX = re.compile(r"\s*:?\s*([\w-]+):\S")
"""The namespace, sister project or language of a link."""
EMBEDDED_PREFIXES = {"file", "image", "media", "category"}
UNREADABLE_TAGS = {"math", "chem", "source", "syntaxhighlight", "code", "pre", "score", "poem"}
LIST_TAGS = {"li", "dd", "dt", "ol", "ul", "dl"}
BACK_MATTER = {
    "bibliography", "citations", "external links", "footnotes", "further reading", "gallery", "notes", "references",
    "see also", "sources", "works cited", "notes and references", "references and notes", "works", "filmography",
}  # fmt: skip
WORD_TEMPLATES = {
    "convert": ("1", "2"), "cvt": ("1", "2"), "lang": ("2",), "transl": ("2",), "nowrap": ("1",), "small": ("1",),
    "nihongo": ("1",), "smaller": ("1",), "angbr": ("1",), "vanchor": ("1",), "as of": ("As of", "1"), "sc": ("1",),
    "quote": ("1",), "flag": ("1",), "val": ("1",), "nbsp": (" ",), "'s": ("'s",), "·": ("·",), "ndash": ("–",),
    "spaced ndash": (" – ",), "mdash": ("—",), "snd": (" – ",), "'": ("'",), "' \"": ("' \"",), "-\"": ("'\"",),
}  # fmt: skip
"""Templates that stand for words -> which of their parameters (or what fixed text) they read as."""
FORMULA_TEMPLATES = {
    "chem", "eqm", "e", "frac", "sfrac", "math", "music", "ipa", "vr", "ordered list", "carbon", "coord",
}  # fmt: skip
"""Templates without which a sentence makes no sense."""
LEFTOVER = re.compile(rf"{DROP_MARK}|\||\[\[|\]\]|\{{\{{|\}}\}}|</?\w|__[A-Z]+__|https?://")
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
REPAIRS = (
    (re.compile(r"\s+"), " "),
    (re.compile(r"[\x02\u200b\u200e\u200f\ufeff]"), ""),
    (re.compile(r"'{2,}"), ""),
    (re.compile(r"\(\s*[,;:/–-]*\s*(?:or|and)?\s*[,;]*\s*\)"), ""),
    (re.compile(r"\(\s*(?:[,;]\s*)*"), "("),
    (re.compile(r"(?:\s*[,;])+\s*\)"), ")"),
    (re.compile(r"\s+([,;.:)])"), r"\1"),
    (re.compile(r" {2,}"), " "),
)


class Options(ReaderOptions):
    """The prose of an export of Wikipedia."""


def read(options: Options, member: str, data: bytes, where: str) -> Iterator[Passage]:
    """Yield the sections of every article (namespace 0, no redirect) as 'title#number', in the group 'title'.

    Raises:
        ReadingError: the XML is incomplete, or a page lacks its title or text; the message names `where` and the line
            or page.
    """
    # unknown encodings, half a surrogate pair in an entity, and markup nested by thousands have errors of their own
    with explain_errors(where, "is not a complete XML export"):
        for _, element in ET.iterparse(io.BytesIO(data)):
            if element.tag.rpartition("}")[2] == "page":
                fields = {child.tag.rpartition("}")[2]: child for child in element.iter()}
                yield from _sections(fields, where)
                element.clear()


def _sections(fields: dict[str, ET.Element], where: str) -> Iterator[Passage]:
    if "title" not in fields or "ns" not in fields or "text" not in fields:
        raise ReadingError(f"{where}: a page lacks its title, namespace or text")
    title = fields["title"].text or ""
    if fields["ns"].text != "0" or "redirect" in fields:
        return
    article = mwparserfromhell.parse(fields["text"].text or "", skip_style_tags=False)
    for number, section in enumerate(article.get_sections(levels=[2], include_lead=True, flat=False)):
        headings = section.filter_headings(matches=lambda heading: heading.level == 2)
        if headings and str(headings[0].title.strip_code()).strip().lower() in BACK_MATTER:
            continue
        yield Passage(f"{title}#{number}", title, article_prose(section))


def article_prose(code: Any) -> str:
    """Return the paragraphs of parsed wiki text, one a line."""
    lines = _plain_text(code).split("\n")
    # a line that starts with a space is preformatted; adjacent lines form one paragraph
    blocks = [" " if line.startswith((" ", "|", "!")) or BLOCK_MARK in line else line for line in lines]
    paragraphs = [
        "\n".join(run) for blank, run in itertools.groupby(blocks, key=lambda line: not line.strip()) if not blank
    ]
    kept = [_repair(paragraph) for paragraph in paragraphs if not LEFTOVER.search(paragraph)]
    return "\n".join(paragraph for paragraph in kept if SENTENCE_END.search(paragraph))


def _repair(paragraph: str) -> str:
    """Return `paragraph` on one line, with the holes that templates left in it closed."""
    for pattern, replacement in REPAIRS:
        paragraph = pattern.sub(replacement, paragraph)
    return paragraph.strip()


def _plain_text(code: Any) -> str:
    """Return the text that a reader of the page sees, with DROP_MARK in lines that cannot be read as prose."""
    return "" if code is None else "".join(_plain_node(node) for node in code.nodes)


def _plain_node(node: Any) -> str:
    if isinstance(node, nodes.Text):
        return str(node.value)
    if isinstance(node, nodes.HTMLEntity):
        return str(node.normalize())
    if isinstance(node, nodes.Template):
        return _template_text(node)
    if isinstance(node, nodes.Wikilink):
        prefix = LINK_PREFIX.match(str(node.title))
        if prefix and (node.text is None or prefix[1].lower() in EMBEDDED_PREFIXES):
            return GONE_MARK
        return _plain_text(node.title if node.text is None else node.text)
    if isinstance(node, nodes.ExternalLink):
        return _plain_text(node.title) if node.brackets else DROP_MARK
    if isinstance(node, nodes.Heading):
        return BLOCK_MARK
    if isinstance(node, nodes.Tag):
        name = str(node.tag).strip().lower()
        if name in LIST_TAGS:
            return BLOCK_MARK
        if name in UNREADABLE_TAGS:
            return DROP_MARK
        if name in LAYOUT_TAGS:
            return "\n\n"
        return GONE_MARK if name in SILENT_TAGS else " " if name == "br" else _plain_text(node.contents)
    return ""  # comments, arguments of templates


def _template_text(node: Any) -> str:
    name = str(node.name).strip().lower()
    if name in FORMULA_TEMPLATES:
        return DROP_MARK
    parameters = WORD_TEMPLATES.get("lang" if name.startswith("lang-") else name, ())
    if name.startswith("lang-"):
        parameters = ("1",)
    words = []
    for parameter in parameters:
        if not parameter.isdigit():
            words.append(parameter)
        elif node.has(parameter):
            words.append(_plain_text(node.get(parameter).value))
    return GONE_MARK + (words[0] if len(words) == 1 else " ".join(word.strip() for word in words))
