"""Write figures as SVG for pages: with colours for dark pages too, and in half the bytes that matplotlib takes.

An SVG carries two sets of colours, and the reader's browser chooses: where the reader prefers dark pages, a rule of CSS
gives each colour of the style its dark one. A program that knows no media queries, and print, sees the colours as they
are drawn. Colours that stand for values (of a lift, of a share) stay as they are: a darker one must keep its meaning.
"""

import pathlib
import re

from matplotlib.figure import Figure

from speciate.figures import style
from speciate.figures.style import ACCENT, COLOURS, FAINT, HAIR, INK, PAPER, QUIET

DARK_PAPER = "#16181B"
DARK = {
    PAPER: DARK_PAPER,
    INK: "#ECEAE6",
    QUIET: "#A9A9A9",
    FAINT: "#7A7A7A",
    HAIR: "#3A3D42",
    ACCENT: "#FF9557",
    **dict(zip(COLOURS, ("#8FA2FF", "#FF8A78", "#D9C84A", "#63CE93", "#F48AD2", "#BBA9FF"), strict=True)),
}
"""Colour of the style -> its colour on a dark page."""
_DARK_OF = {light.lower(): dark.lower() for light, dark in DARK.items()}

DIGITS = 2
"""Digits of a coordinate after the point; its unit is a 72nd of an inch, which a screen shows as two pixels or so."""
COORDINATES = re.compile(r' (?:d|x|y|x1|x2|y1|y2|width|height|transform|points)="[^"]*"')
LONG_NUMBER = re.compile(rf"-?\d+\.\d{{{DIGITS + 1},}}(?![\de])")
STYLE = re.compile(r' style="([^"]*)"')


def save(figure: Figure, target: pathlib.Path) -> None:
    """Write the figure in the format of the target's suffix; an SVG is prepared for pages."""
    style.save(figure, target)
    if target.suffix == ".svg":
        target.write_text(prepare(target.read_text(encoding="utf-8")), encoding="utf-8")


def prepare(svg: str) -> str:
    """Return a figure's SVG in fewer bytes, with its colours for dark pages."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    return share_styles(drop_ids(shorten(svg)))


def shorten(svg: str) -> str:
    """Return the SVG with rounded coordinates and without indentation."""

    def rounded(number: re.Match[str]) -> str:
        text = f"{float(number[0]):.{DIGITS}f}".rstrip("0").rstrip(".")
        return "0" if text == "-0" else text

    def attribute(found: re.Match[str]) -> str:
        text = " " + " ".join(found[0].split()).replace(' "', '"')
        # the scale of a pattern or of a glyph is small, and a product with it is not
        if "matrix" in text or "scale" in text:
            return text
        if text.startswith(' transform="rotate(-0 '):
            return ""
        text = LONG_NUMBER.sub(rounded, text)
        return re.sub(r"(?<=[\d\"a-zA-Z]) ?([MLCQHVZz]) ?(?=[-\d\"MLCQHVZz])", r"\1", text) if text[1] == "d" else text

    return re.sub(r"\n\s*(?=<)", "\n", COORDINATES.sub(attribute, svg))


def drop_ids(svg: str) -> str:
    """Return the SVG without the ids that nothing in it refers to, and without groups that hold nothing."""
    used = set(re.findall(r'(?:href="|url\()#([^")]*)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    return re.sub(r"<g/>\n?", "", svg)


def share_styles(svg: str) -> str:
    """Return the SVG with a class for each style, and with rules that give the classes their colours on dark pages."""
    names: dict[str, str] = {}

    def name_of(found: re.Match[str]) -> str:
        return f' class="{names.setdefault(found[1], f"s{len(names)}")}"'

    svg = STYLE.sub(name_of, svg)
    light = "".join(f".{name}{{{rule}}}" for rule, name in names.items())
    dark = "".join(f".{name}{{{colours}}}" for rule, name in names.items() if (colours := _dark_colours(rule)))
    start = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:start]}\n<style>{light}@media (prefers-color-scheme: dark){{{dark}}}</style>{svg[start:]}"


def _dark_colours(rule: str) -> str:
    """Return what a style changes on a dark page; empty where it has no colour of the figures' style."""
    pairs = re.findall(r"\b(fill|stroke): (#[0-9a-f]{6})", rule)
    return ";".join(f"{what}:{_DARK_OF[colour]}" for what, colour in pairs if colour in _DARK_OF)
