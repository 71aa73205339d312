"""Test that wiki text yields prose, without markup, lists, tables and pages that are not articles."""

import mwparserfromhell
import pytest

from speciate.data.fetch.readers.wikipedia import Options, article_prose, read
from speciate.data.passage import Passage


def plain(text: str) -> str:
    return article_prose(mwparserfromhell.parse(text, skip_style_tags=False))


def page(title: str, text: str, namespace: int = 0, extra: str = "") -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f"<page><title>{title}</title><ns>{namespace}</ns><id>1</id>{extra}"
        f"<revision><id>2</id><text>{text}</text></revision></page>"
    )


def export(*pages: str) -> bytes:
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'''Bold''' and ''it'' at [[Place|a place]] of [[Name]]s.", "Bold and it at a place of Names."),
        ("One.<ref name=a>{{cite web|url=x}}</ref> Two<ref name=a/>.", "One. Two."),
        ("It is {{convert|10|km|mi}} to {{lang|fr|Paris}}{{citation needed|date=May}}.", "It is 10 km to Paris."),
        ("Ada ({{IPAc-en|x}}; {{lang-la|Adda}}; 1815) was.", "Ada (Adda; 1815) was."),
        ("Ada ({{IPAc-en|x}}) was.", "Ada was."),
        ("A first line\nand its second.", "A first line and its second."),
        ("Keep.\n\nThe area is <math>x^2</math>\nof all things.\n\nKeep too.", "Keep.\nKeep too."),
        ("Text.\n* A list item.\n# A number.\n: An indent.\nMore.", "Text.\nMore."),
        ("== A heading. ==\nText.\n=== Deeper. ===\nMore.", "Text.\nMore."),
        ("Text.\n{| class=x\n|-\n| cell.\n|}\nMore.", "Text.\nMore."),
        ("[[File:A.jpg|thumb|A [[caption]].]] Text. [[Category:X]]", "Text."),
        ("[[2001: A Film]] and [[wikt:word|word]].", "2001: A Film and word."),
        ("Broken [[link. And {{template.\n\nFine.", "Fine."),
        (" preformatted.\nText.", "Text."),
        ("These are:\n* one\n\nA caption\n\nFine.", "Fine."),
        ("A&nbsp;b &ndash; c<!-- d -->.<br>E.", "A b – c. E."),
        ("See [http://x.org the site] now.", "See the site now."),
        ("See http://x.org now.", ""),
    ],
)
def test_prose(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_articles_come_in_sections_under_one_group() -> None:
    text = "Lead.\n\n== History ==\nOld.\n\n=== Late ===\nNew.\n\n== References ==\nA book.\n\n== Use ==\nIt is used."
    data = export(
        page("Talk:A", "Talk.", namespace=1),
        page("B", "#REDIRECT [[A]]", extra='<redirect title="A"/>'),
        page("A & co".replace("&", "&amp;"), text),
    )
    assert list(read(Options(kind="wikipedia"), "m", data, "w")) == [
        Passage("A & co#0", "A & co", "Lead."),
        Passage("A & co#1", "A & co", "Old.\nNew."),
        Passage("A & co#3", "A & co", "It is used."),
    ]


def test_a_cut_off_export_is_refused() -> None:
    with pytest.raises(ValueError, match="source s: member m is not a complete XML export"):
        list(read(Options(kind="wikipedia"), "m", export(page("A", "Text."))[:-40], "source s: member m"))
    with pytest.raises(ValueError, match="source s: member m: a page lacks its title, namespace or text"):
        list(read(Options(kind="wikipedia"), "m", export("<page><title>A</title></page>"), "source s: member m"))
