"""Write the JSON schema of a study file, and the page of all its keys.

Both are generated from the models. With --check nothing is written, and a file that is out of date is an error.

Example:
    speciate describe --schema workflow/schemas/study.schema.json --page docs/config.md
"""

import argparse
import json
import pathlib
from typing import Any

from speciate.cli import log
from speciate.config.components import kinds_in, options_of
from speciate.config.definitions import PACKAGE
from speciate.config.run import LayerGroup, RunSpec
from speciate.config.study import Study
from speciate.io import atomic_write

PAGE_TITLE = """# Every key of a study file

Do not edit: `make docs` makes this page from `src/speciate/config/{study,data,run}.py` and the components' `Options`.
A component's `kind` is the name of its file; `router: hash` is short for `router: {kind: hash}`. In a study file
`base` holds the keys of a run except `ablation` and `seed`. `extends` names a study file, or a list of them, that this
one is merged over, key by key. `keep` says what to keep of them: `keep: {ablations: [dense], domains: [code]}`. What it
does not mention stays whole, and hypotheses about ablations that are left out go with them. `speciate config --study
FILE` prints a study with everything that it extends, and where each key comes from.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schema", type=pathlib.Path, required=True, help="JSON schema of a study file to write")
    parser.add_argument("--page", type=pathlib.Path, required=True, help="page of keys to write, Markdown")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")


def main(arguments: argparse.Namespace) -> None:
    """Generate the schema and the page, and write or compare them."""
    for file, text in ((arguments.schema, study_schema()), (arguments.page, keys_page())):
        if arguments.check:
            if not file.is_file() or file.read_text(encoding="utf-8") != text:
                raise ValueError(f"{file} is out of date; run `make docs`")
        else:
            with atomic_write(file) as temp_path:
                temp_path.write_text(text, encoding="utf-8")
            log(f"wrote {file}")


def study_schema() -> str:
    """Return the JSON schema of a study file: Study, with the keys of a run under `base`."""
    study = Study.model_json_schema()
    base = _run_schema()
    definitions = {**study.pop("$defs", {}), **base.pop("$defs", {})}
    base["required"] = [key for key in base["required"] if key not in ("ablation", "seed")]
    for key in ("ablation", "seed"):
        del base["properties"][key]
    study["properties"]["base"] = base
    study["properties"]["extends"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "A study file that this one is merged over, or several, each merged over those before it.",
    }
    study["properties"]["keep"] = {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "string"}},
        "description": "Dotted path of a mapping -> the entries to keep there of what the extended files bring. "
        "Hypotheses about ablations that are left out go with them.",
    }
    study["$defs"] = definitions
    study["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(study, indent=1, sort_keys=True) + "\n"


def _run_schema() -> dict[str, Any]:
    """Return a run's JSON schema, with the short form of exceptions that study files may use."""
    run = RunSpec.model_json_schema()
    run["$defs"]["LayerGroup"] = LayerGroup.model_json_schema()
    run["$defs"]["ModelSpec"]["properties"]["layer_groups"] = {
        "type": "object",
        "additionalProperties": {"$ref": "#/$defs/LayerGroup"},
        "default": {},
        "description": "Group name -> layers with another block, of which only the differences are written. "
        "Stands for `exceptions`; give one or the other.",
    }
    return run


def keys_page() -> str:
    """Return the Markdown page: a table for the study, for each of its parts, and for each component."""
    study, base = Study.model_json_schema(), _run_schema()
    parts = {**study["$defs"], **base["$defs"]}
    sections = [PAGE_TITLE, _section("Study", study), _section("Run", base)]
    sections += [_section(name, parts[name]) for name in sorted(parts)]
    sections.append("# Components\n")
    for folder in component_folders():
        for kind in kinds_in(folder):
            sections.append(_section(f"{folder}: {kind}", options_of(folder, kind).model_json_schema()))
    return "\n".join(sections)


def component_folders() -> list[str]:
    """Return the folders that hold components, such as 'model/moe/router'."""
    folders = {file.parent.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py")}
    return sorted(folder for folder in folders if folder != "." and kinds_in(folder))


def _section(title: str, model: dict[str, Any]) -> str:
    lines = [f"## {title}\n"]
    if model.get("description"):
        lines.append(" ".join(model["description"].split()) + "\n")
    properties = {key: value for key, value in model["properties"].items() if key != "kind"}
    if not properties:
        return "\n".join([*lines, "No keys besides `kind`.\n"]) if "kind" in model["properties"] else "\n".join(lines)
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, value in properties.items():
        default = "required" if key in model.get("required", []) else f"`{json.dumps(value.get('default'))}`"
        meaning = " ".join(value.get("description", "").split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {_type(value)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _type(value: dict[str, Any]) -> str:
    """Describe a field's type and bounds in a few words."""
    if "$ref" in value:
        name = str(value["$ref"]).rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        titles = [choice["title"] for choice in value["anyOf"] if "/" in choice.get("title", "")]
        if titles:
            return f"kind of `{titles[0].rsplit('/', 1)[0]}`"
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"])
    if "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    if value.get("type") == "object":
        inner = value.get("additionalProperties") or next(iter(value.get("patternProperties", {}).values()), None)
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    bounds = [f"{sign} {value[key]:g}" for key, sign in signs if key in value]
    return " ".join([value.get("type", "any"), ", ".join(bounds)]).strip()
