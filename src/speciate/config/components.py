"""Components by file name: `router: hash` in a config means the file `model/moe/router/hash.py`.

There is no registry and no `if kind ==`. Every component file opens with a class `Options`: the keys that a config may
set, with their types, bounds and explanations. The workflow's side of the project has no torch, and still must refuse a
wrong config before it builds a graph of jobs. So `options_of` runs that one class from the file's source, without the
rest of the file. Adding a component means adding a file.
"""

import ast
import functools
import importlib
import inspect
import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic
import pydantic_core
from pydantic import BaseModel, ConfigDict

from speciate.config.definitions import component_files, file_of, run_definitions

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON schema, with the string under each field of the source as the field's description.

        Pydantic's own `use_attribute_docstrings` reads the source of every class when the class is made. That takes an
        eighth of a small job's import time (docs/log.md), so it happens here only when a schema is asked for.
        """
        made: dict[str, Any] = handler.resolve_ref_schema(handler(schema))
        for field, text in _field_texts(cls).items():
            made["properties"][field]["description"] = text
        return made


class _OneClassPerModule(ModelMetaclass):
    """Makes the class `Options` of a module only once, however often its class statement runs.

    `options_of` runs the statement without the rest of the file; importing the file runs it again. Both give the same
    class, so `isinstance(spec.router, learned.Options)` holds.
    """

    _made: ClassVar[dict[str, type]] = {}

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **settings: Any) -> type:
        module = namespace.get("__module__", "")
        if name != "Options" or not module.startswith("speciate."):
            return super().__new__(mcs, name, bases, namespace, **settings)
        if module not in mcs._made:
            mcs._made[module] = super().__new__(mcs, name, bases, namespace, **settings)
        elif "__classcell__" in namespace:  # a method calls super(), which looks its class up here
            namespace["__classcell__"].cell_contents = mcs._made[module]
        return mcs._made[module]


class ComponentOptions(Strict, metaclass=_OneClassPerModule):
    """Options of one component, whatever its slot; `config/contracts` adds the hooks of each slot.

    The methods and class variables here are the hooks that a component may override.
    """

    kind: str
    """The stem of the component's file."""

    causal_only: ClassVar[bool] = False
    """Whether it works only in models whose positions see nothing but the positions before them."""
    reads_token_ids: ClassVar[bool] = False
    """Whether it looks at the ids of tokens, so that embeddings alone do not tell it what to do."""

    @classmethod
    def module_name(cls) -> str:
        """Return the import path of the component's file."""
        return cls.__module__

    def looks_ahead(self) -> bool:
        """Return whether later tokens change how it treats earlier ones; the run's loss is then no likelihood."""
        return False

    def needs_whole_block(self) -> bool:
        """Return whether it must see a block's tokens together, so that a model with it cannot decode one at a time."""
        return False

    def check_domains(self, domains: tuple[str, ...]) -> None:
        """Raise ValueError, with the reason, if it cannot work with a study's domains."""

    def check(self, model: Any) -> None:
        """Raise ValueError, with the reason, if it does not fit the rest of the model, a ModelSpec."""

    def check_run(self, run: Any) -> None:
        """Raise ValueError, with the reason, if it does not fit the rest of the run, a RunSpec."""


@functools.cache
def _field_texts(model: type[Strict]) -> dict[str, str]:
    """Return the string under each field of `model` in the source, inherited fields included."""
    texts: dict[str, str] = {}
    for cls in reversed([cls for cls in model.__mro__ if issubclass(cls, Strict)]):
        tree = ast.parse(file_of(cls.__module__).read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        body = next(node.body for node in classes if node.name == cls.__name__)
        for pair in itertools.pairwise(body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    if name in model.model_fields:
                        texts[name] = inspect.cleandoc(text)
    return texts


def kinds_in(folder: str) -> list[str]:
    """Return the kinds in a component folder such as 'model/moe/router': its files that define `Options`."""
    files = component_files(folder).items()
    return [kind for kind, file in files if "\nclass Options(" in file.read_text(encoding="utf-8")]


@functools.cache
def options_of(folder: str, kind: str) -> type[ComponentOptions]:
    """Return the class `Options` of `folder/kind.py` without importing the file.

    Raises:
        ValueError: there is no such file, or it has no `Options`; the message lists the kinds that exist.
    """
    if not kind.isidentifier() or kind not in kinds_in(folder):
        renamed = f"it is called {RENAMED_KINDS[kind]} now; " if kind in RENAMED_KINDS else ""
        raise ValueError(f"'{kind}' is not a kind of {folder}; {renamed}available: {', '.join(kinds_in(folder))}")
    module = ".".join(["speciate", *folder.split("/"), kind])
    options: type[ComponentOptions] = run_definitions(module, "Options")["Options"]
    return options


class ConfigErrors(ValueError):
    """Errors in a config, as (path of the field, reason). It carries them through pydantic's nested validation."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {why}" for path, why in errors))
        self.errors = errors


UNKNOWN = "unknown key"
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
"""What a study, a domain, a source, an ablation or a component may be called: it is part of paths and of commands."""

RENAMED_KEYS = {
    "rate": "lr",
    "rate_scales": "lr_scales",
    "adamw_rate": "adamw_lr",
    "clip": "max_grad_norm",
    "accumulation": "grad_accumulation",
}
"""Former key of a config -> its present name, which the error about the former key gives."""
RENAMED_KINDS = {"teacher": "oracle_model"}
"""Former kind of a component -> its present name."""


def _unknown(key: object) -> str:
    """Return the reason given for a key that does not exist."""
    return f"{UNKNOWN}; it is called {RENAMED_KEYS[str(key)]} now" if key in RENAMED_KEYS else UNKNOWN


def config_errors(error: pydantic.ValidationError) -> list[tuple[str, str]]:
    """Return every error in `error` as (dotted path of the field, reason), in the terms of the config's author."""
    errors: list[tuple[str, str]] = []
    for item in error.errors(include_url=False):
        path = ".".join(_shown_key(part) for part in item["loc"] if part != "[key]")
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ConfigErrors):
            errors += [(".".join(filter(None, (path, inner))), why) for inner, why in cause.errors]
        elif item["type"] == "extra_forbidden":
            errors.append((path, _unknown(item["loc"][-1])))
        elif item["type"] == "missing":
            errors.append((path, "is missing"))
        elif cause is not None:
            errors.append((path, str(cause)))
        elif item["type"] == "string_pattern_mismatch" and item["ctx"]["pattern"] == NAME_PATTERN:
            errors.append((path, f"{item['input']!r} is not a name: a to z, 0 to 9 and _, beginning with a letter"))
        else:
            errors.append((path, f"{item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r}"))
    return errors


def _shown_key(part: str | int) -> str:
    """Return a key as it is shown in a message: quoted, with escapes, where it is empty or cannot be seen."""
    text = str(part)
    return text if text and text.isprintable() else repr(text)


def _with_kinds_that_have_it(errors: list[tuple[str, str]], folder: str, kind: str) -> list[tuple[str, str]]:
    """Return the same errors; for a key that other kinds of the folder know, the reason names these kinds."""
    explained = []
    for path, why in errors:
        if why == _unknown(path):
            owners = [other for other in kinds_in(folder) if path in options_of(folder, other).model_fields]
            if owners:
                why = f"{UNKNOWN} of {kind}; {', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it"
            elif RENAMED_KEYS.get(path) not in options_of(folder, kind).model_fields:
                why = UNKNOWN
        explained.append((path, why))
    return explained


class OneOf:
    """Marks a config field as the name of a file: `router: Annotated[RouterOptions, OneOf("model/moe/router")]`.

    It validates `{kind: K, ...}`, or just `K`, into the Options of `folder/K.py`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def _validate(self, value: Any) -> ComponentOptions:
        if isinstance(value, ComponentOptions):
            return value
        settings = {"kind": value} if isinstance(value, str) else value
        if not isinstance(settings, dict) or not isinstance(settings.get("kind"), str):
            raise ValueError(f"needs a kind of {self.folder}: one of {', '.join(kinds_in(self.folder))}")
        try:
            return options_of(self.folder, settings["kind"]).model_validate(settings)
        except pydantic.ValidationError as error:
            raise ConfigErrors(_with_kinds_that_have_it(config_errors(error), self.folder, settings["kind"])) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> pydantic_core.CoreSchema:
        return pydantic_core.core_schema.no_info_plain_validator_function(
            self._validate,
            serialization=pydantic_core.core_schema.plain_serializer_function_ser_schema(
                lambda options: options.model_dump(mode="json")
            ),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for kind in kinds_in(self.folder):
            choice = pydantic.TypeAdapter(options_of(self.folder, kind)).json_schema(ref_template="#/$defs/{model}")
            choice.pop("$defs", None)
            choice["title"] = f"{self.folder}/{kind}"
            choice["properties"]["kind"] = {"const": kind}
            choices.append(choice)
        return {"anyOf": [{"enum": kinds_in(self.folder)}, *choices]}


def options_within(value: Any) -> Iterator[ComponentOptions]:
    """Yield all component options inside a spec, outermost first. A stage's code depends on them beyond its imports."""
    if isinstance(value, ComponentOptions):
        yield value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from options_within(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from options_within(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from options_within(item)


def component_module(options: ComponentOptions) -> ModuleType:
    """Import the module that `options` configure. The slot's contract in `config/contracts` says what the module
    must define.
    """
    return importlib.import_module(options.module_name())
