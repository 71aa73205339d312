"""What the study's pages share: one file each that needs no network, a picture and a caption a section."""

import base64
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd

from speciate.reporting import formats


@dataclass(frozen=True)
class Section:
    """One question with its figure, caption and tables."""

    name: str
    question: str
    caption: str
    picture: str
    """A data URI."""
    tables: Sequence[formats.Table] = ()


def read_tables(folder: pathlib.Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The tables called `names`. Raises ValueError naming the one that cannot be read."""
    tables = {}
    for name in names:
        file = folder / f"{name}.parquet"
        try:
            tables[name] = pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: cannot be read as a table: {' '.join(str(error).split())}") from None
    return tables


def read_json(file: pathlib.Path) -> Any:
    """What a JSON file holds. Raises ValueError naming the file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None


def read_section(folder: pathlib.Path, name: str, tables: Sequence[formats.Table] = ()) -> Section:
    """The section of the figure `name`, which `draw` wrote into `folder`. Raises ValueError where it did not."""
    told = read_json(folder / f"{name}.json")
    try:
        picture = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
    except OSError as error:
        raise ValueError(f"{folder / f'{name}.svg'}: cannot be read: {error}") from None
    return Section(name, told["question"], told["caption"], f"data:image/svg+xml;base64,{picture}", tables)


def render_page(template: pathlib.Path, **values: Any) -> str:
    """The page that the file `template` makes of `values`; a value that is not there is an error."""
    environment = jinja2.Environment(
        # the template is beside its stage; what several of them include, such as page.style.jinja, is beside this file
        loader=jinja2.FileSystemLoader([template.parent, pathlib.Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words: dict[str, Callable[..., str]] = {
        "spoken": formats.plain_name,
        "listed": formats.join_names,
        "counted": formats.pluralise,
    }
    return environment.get_template(template.name).render(**words, **values)
