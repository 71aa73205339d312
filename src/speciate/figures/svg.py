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
    **dict(zip(COLOURS, ("#A2BCED", "#DE6F22", "#E9C333", "#67D592", "#DB89A8", "#A87DDD"), strict=True)),
}
"""Colour of the style -> its colour on a dark page; the categories are told apart under the same kinds of vision."""
_DARK_OF = {light.lower(): dark.lower() for light, dark in DARK.items()}

DIGITS = 1
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
        return f' d="{_shorten_path(text[4:-1])}"' if text.startswith(' d="') else text

    return re.sub(r"\n\s*(?=<)", "\n", COORDINATES.sub(attribute, svg))


def _shorten_path(path: str) -> str:
    """Return a path's commands without spaces, and lines along an axis as one coordinate: 'M0 0H5V9'."""
    steps = [(step[0], step[1:].split()) for step in re.findall(r"[A-Za-z][^A-Za-z]*", path)]
    if any(command not in "MLz" for command, _ in steps):
        return "".join(command + " ".join(numbers) for command, numbers in steps)
    short: list[str] = []
    x = y = before = ""
    for command, numbers in steps:
        if command != "L":
            short.append(command + " ".join(numbers))
        elif numbers == [x, y]:
            # a point that is where the last one is; a path of one point keeps its line, or its caps would not be drawn
            short += [] if len(short) > 1 else [f"L{x} {y}"]
        elif numbers[1] == y:
            # a line that goes on in the direction of the last one replaces it
            onward = short[-1].startswith("H") and len(short) > 1 and _is_onward(before, x, numbers[0])
            before = before if onward else x
            short[-1:] = [f"H{numbers[0]}"] if onward else [short[-1], f"H{numbers[0]}"]
        else:
            short.append(f"V{numbers[1]}" if numbers[0] == x else f"L{numbers[0]} {numbers[1]}")
        x, y = numbers if numbers else (x, y)
    if len(steps) > 3 and [command for command, _ in steps[1:]] == ["L"] * (len(steps) - 1) and [x, y] == steps[0][1]:
        short[-1] = "z"  # the last line goes back to the start
    return "".join(short)


def _is_onward(start: str, middle: str, end: str) -> bool:
    """Return whether `middle` lies between `start` and `end`."""
    return (float(middle) - float(start)) * (float(end) - float(middle)) > 0


def drop_ids(svg: str) -> str:
    """Return the SVG with short ids, without those that nothing refers to, and without groups that hold nothing."""
    used = dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]*)', svg))
    short = {name: f"i{place}" for place, name in enumerate(used)}
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{short[found[1]]}"' if found[1] in short else "", svg)
    svg = re.sub(r'(href="|url\()#([^")]*)', lambda found: f"{found[1]}#{short[found[2]]}", svg)
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
