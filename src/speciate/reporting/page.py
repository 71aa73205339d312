"""Shared code of the study's pages: read tables and figures, and render a template as one file without a network."""

import json
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from speciate.reporting import formats


@dataclass(frozen=True)
class Section:
    """A finding with its figure, caption and tables."""

    name: str
    question: str
    finding: str
    """What the figure shows, in one sentence; empty where the study cannot fill the figure, which is not shown then."""
    caption: str
    limits: str
    """What the figure does not show."""
    picture: Markup
    """A data URI, and that of the rendering for narrow screens. Both have colours for light and for dark pages."""
    narrow_picture: Markup
    tables: Sequence[formats.Table] = ()


def read_tables(folder: pathlib.Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Read the tables called `names`. Raises ValueError naming a table that cannot be read."""
    tables = {}
    for name in names:
        file = folder / f"{name}.parquet"
        try:
            tables[name] = pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: cannot be read as a table: {' '.join(str(error).split())}") from None
    return tables


def read_json(file: pathlib.Path) -> Any:
    """Read a JSON file. Raises ValueError naming the file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None


def read_section(folder: pathlib.Path, name: str, tables: Sequence[formats.Table] = ()) -> Section:
    """Read the figure `name` that `draw` wrote into `folder`. Raises ValueError naming a file that cannot be read."""
    named = read_json(folder / f"{name}.json")
    texts = (named["question"], named["finding"], named["caption"], named["limits"])
    wide, narrow = (_data_uri(file) for file in (folder / f"{name}.svg", folder / "narrow" / f"{name}.svg"))
    return Section(name, *texts, picture=wide, narrow_picture=narrow, tables=tables)


def _data_uri(file: pathlib.Path) -> Markup:
    """Return a picture as a data URI for an attribute in double quotes; raises ValueError naming a file without one.

    An SVG is text, so only what an attribute or a URL cannot hold is escaped: base64 would make it a third longer.
    White space would end the URL in a `srcset`.
    """
    try:
        svg = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    svg = re.sub(r"<[^>]*>", lambda tag: tag[0].replace('"', "'"), re.sub(r">\s+<", "><", svg.strip()))
    return Markup(f"data:image/svg+xml;charset=utf-8,{re.sub(ESCAPED, _escape, svg)}")


ESCAPED = re.compile(r'[%#&"\s]')


def _escape(found: re.Match[str]) -> str:
    """Return a character as a URL writes it."""
    return urllib.parse.quote(found[0], safe="")


def render_page(template: pathlib.Path, **values: Any) -> str:
    """Render the file `template` with `values`; a missing value is an error."""
    environment = jinja2.Environment(
        # a template is next to its stage; files that several templates include, such as page.style.jinja, are here
        loader=jinja2.FileSystemLoader([template.parent, pathlib.Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions: dict[str, Callable[..., str]] = {
        "plain_name": formats.plain_name,
        "join_names": formats.join_names,
        "pluralise": formats.pluralise,
    }
    return environment.get_template(template.name).render(**functions, **values)
