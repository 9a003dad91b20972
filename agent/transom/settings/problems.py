"""A validation error of pydantic as place, problem and remedy, in words for whoever wrote the configuration.

An error and the layers in, a TransomError out. Never shows a secret.
"""

import re
from collections.abc import Iterator, Mapping
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from transom.errors import TransomError
from transom.flags import nearest
from transom.settings.options import Settings
from transom.settings.quantities import shown
from transom.settings.sources import Layers, Loc, dotted

_BOUNDS = {"greater_than_equal": "at least", "less_than_equal": "at most", "greater_than": "more than"}
_TYPES = {
    "int": ("a whole number", "write a whole number"),
    "float": ("a number", "write a number"),
    "finite": ("a finite number", "write a number"),
    "bool": ("true or false", "write true or false"),
    "string": ("text", "put it in quotes"),
    "path": ("a file name", "put it in quotes"),
    "tuple": ("a list", 'write ["a", "b"]'),
    "list": ("a list", 'write ["a", "b"]'),
    "dict": ("a table", ""),
    "model": ("a table", ""),
}
_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}


def explain(error: ErrorDetails, layers: Layers) -> TransomError:
    """A validation error as place, problem and remedy. Values of secrets, and whole tables, are never shown."""
    loc = tuple(str(part) for part in error["loc"])
    place, kind, raw, context = layers.place(loc), error["type"], error["input"], error.get("ctx", {})
    value = "what it is" if {"password", "token"} & set(loc) else "a table" if isinstance(raw, Mapping) else shown(raw)
    if kind == "extra_forbidden":
        return TransomError(place, "unknown key", meant(loc))
    if kind == "missing":
        return TransomError(place, "is missing", f"add {loc[-1]}, as in config/agent.toml")
    if raw is True and place.startswith("flag"):
        return TransomError(place, "needs a value", f"write {place.removeprefix('flag ')} VALUE")
    if kind == "value_error":
        problem, *remedy = context["error"].args
        return TransomError(place, str(problem), " ".join(remedy))
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        guess = nearest(str(raw), known)
        also = f'did you mean "{guess}"? ' if guess else ""
        return TransomError(place, f"{value} is not one of the choices", f"{also}known: {', '.join(known)}")
    if kind in _BOUNDS:
        bound = next(iter(context.values()))
        return TransomError(place, f"must be {_BOUNDS[kind]} {bound:,}, not {value}", "choose a value within that")
    wanted, remedy_ = _TYPES.get(kind.split("_")[0], ("", ""))
    if wanted == "a table":  # its content is not shown: it could be a password in the wrong place
        kind_of = _KINDS.get(type(raw), "that")
        stray = loc[:1] == ("streams",) and len(loc) == 2
        remedy_ = f"write [streams.NAME] with {dotted(loc[1:])} below it" if stray else f"write [{dotted(loc)}]"
        return TransomError(place, f"must be a table, not {kind_of}", remedy_)
    if wanted:
        return TransomError(place, f"must be {wanted}, not {value}", remedy_)
    return TransomError(place, f"{value}: {error['msg'].lower()}", "see config/agent.toml")


def meant(loc: Loc) -> str:
    """What the unknown key at loc may have been: a key beside it, one of that name elsewhere, or all that are known."""
    parent = _section(loc[:-1])
    beside = nearest(loc[-1], parent.model_fields)
    if beside:
        return f"did you mean {dotted((*loc[:-1], beside))}?"
    named = [(place, key) for place, cls in _SECTIONS.items() if place for key in cls.model_fields]
    elsewhere = [f"{place}.{key}" for place, key in named if key == loc[-1]]
    elsewhere += [f"{place}.{key}" for place, key in named if key.startswith(f"{loc[-1]}_")]  # ca for tls.ca_file
    return f"did you mean {elsewhere[0]}?" if elsewhere else f"known: {_known(parent)}"


def _sections(cls: type[BaseModel], place: Loc = ()) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and those of its tables, by their place in a configuration, NAME for what users name."""
    yield dotted(place), cls
    for name, field in cls.model_fields.items():
        kind = field.annotation
        named = get_origin(kind) is dict
        kind = get_args(kind)[1] if named else kind
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _sections(kind, (*place, name, "NAME") if named else (*place, name))


_SECTIONS = dict(_sections(Settings))


def _section(loc: Loc) -> type[BaseModel]:
    generic = ".".join("NAME" if i in (1, 3) and loc[0] == "streams" else part for i, part in enumerate(loc))
    return _SECTIONS.get(generic, Settings)


def _known(cls: type[BaseModel]) -> str:
    return ", ".join(cls.model_fields)
