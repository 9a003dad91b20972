"""TOML file, environment and flags as nested tables over each other, and where each value came from.

A file name and flags in; Layers and the problems with reading them out. Checks no value.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import EnvSettingsSource

from transom.errors import SettingsError, TransomError
from transom.flags import merged, nearest, nested
from transom.settings.options import ENV_DELIMITER, ENV_PREFIX, Settings

Loc = tuple[str, ...]

_FILES = (
    ("agent", "state"),
    ("broker", "password_file"),
    ("broker", "tls", "ca_file"),
    ("broker", "tls", "cert_file"),
    ("broker", "tls", "key_file"),
    ("http", "token_file"),
    ("broker", "tls", "key_password_file"),
    ("privacy", "series_key_file"),
    ("models", "updates_folder"),
    ("models", "updates_ca_file"),
)


@dataclass(frozen=True, slots=True)
class Layers:
    """The sources as nested tables. merged: all over each other; file_read: False when the file's part is lacking."""

    config: Path | None
    flags: dict[str, Any]
    environment: dict[str, Any]
    merged: dict[str, Any]
    file_read: bool

    @property
    def folder(self) -> Path:
        """What file names in the configuration are relative to."""
        return self.config.parent if self.config else Path()

    def place(self, loc: Loc) -> str:
        """Where the value at a key comes from, or where it is missing."""
        key = dotted(loc)
        if _has(self.flags, loc):
            return f"flag --{key}"
        if _has(self.environment, loc):
            return f"environment {ENV_PREFIX}{ENV_DELIMITER.join(map(_bare, loc)).upper().replace('-', '_')}"
        return f"{self.config}: {key}" if self.config else key


def read_layers(config: Path | None, overrides: Mapping[str, Any]) -> tuple[Layers, list[TransomError]]:
    """overrides: flags by dotted key, or nested tables."""
    problems = _foreign_variables()
    try:
        file = read_toml(config) if config else {}
    except SettingsError as error:
        problems += error.problems
        file = None
    environment = _known_names(EnvSettingsSource(Settings)(), file or {})
    flags = nested(overrides)
    rooted = _rooted(file or {}, config.parent.absolute()) if config else {}
    for layer in (environment, flags):
        rooted = merged(rooted, _rooted(layer, Path.cwd()))
    return Layers(config, flags, environment, rooted, file is not None), problems


def read_toml(file: Path) -> dict[str, Any]:
    """The file's tables. Raises SettingsError when it is missing, unreadable, not UTF-8 or not TOML, with the line."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsError(
            [TransomError(str(file), f"cannot be read: {error.strerror}", "check the path and its permissions")]
        ) from None
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem, place, remedy = f"byte 0x{content[error.start]:02x} is not UTF-8", f"line {line}", "save it as UTF-8"
    except tomllib.TOMLDecodeError as error:
        problem, _, place = str(error).partition(" (at ")
        place, remedy = place.rstrip(")"), "correct the TOML there"
    except RecursionError:
        problem, place, remedy = "nested too deep", "", "write the tables of the reference configuration"
    raise SettingsError([TransomError(": ".join(filter(None, (str(file), place))), problem, remedy)])


def _known_names(environment: dict[str, Any], file: Mapping[str, Any]) -> dict[str, Any]:
    """Names of streams and channels as in the file: a variable has no lower case and no hyphen."""
    streams = environment.get("streams")
    if not isinstance(streams, dict):
        return environment
    written = file.get("streams", {})
    result = {}
    for name, table in streams.items():
        spelled = _spelled(name, written)
        channels = table.get("channels") if isinstance(table, dict) else None
        if isinstance(channels, dict):
            known = written.get(spelled, {}).get("channels", {}) if isinstance(written.get(spelled), dict) else {}
            table = {**table, "channels": {_spelled(c, known): v for c, v in channels.items()}}
        result[spelled] = table
    return {**environment, "streams": result}


def _spelled(name: str, known: object) -> str:
    folded = {str(k).lower().replace("-", "_"): str(k) for k in (known if isinstance(known, dict | list) else ())}
    return folded.get(name, name)


def _foreign_variables() -> list[TransomError]:
    """Variables that look like settings and belong to no section; pydantic-settings passes over them."""
    problems = []
    for name in sorted(os.environ):
        section, delimiter, _ = name.removeprefix(ENV_PREFIX).partition(ENV_DELIMITER)
        if name.startswith(ENV_PREFIX) and delimiter and section.lower() not in Settings.model_fields:
            known = nearest(section, Settings.model_fields)
            remedy = (
                f"did you mean {name.replace(section, known.upper(), 1)}?"
                if known
                else f"known: {', '.join(Settings.model_fields)}"
            )
            problems.append(TransomError(f"environment {name}", f"no section {section.lower()!r}", remedy))
    return problems


def _rooted(tables: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The tables with file names complete: ~ and $NAME expanded, relative ones starting at the folder.

    A model is a file when it has a slash or ends in .pt or .onnx; else it is the name of a shipped one.
    """
    result = merged({}, tables)
    streams = tables.get("streams")
    names = list(streams) if isinstance(streams, Mapping) else []
    own = [("streams", name, key) for name in names for key in ("model", "keys_file")]
    for loc in [*_FILES, *own]:
        raw = _at(tables, loc)
        if isinstance(raw, str) and raw and (loc[-1] != "model" or "/" in raw or raw.endswith((".pt", ".onnx"))):
            value: Any = str(folder / os.path.expanduser(os.path.expandvars(raw)))  # noqa: PTH111 pathlib's can fail
            for part in reversed(loc):
                value = {part: value}
            result = merged(result, value)
    return result


def _at(tables: object, loc: Loc) -> object:
    for part in loc:
        tables = tables.get(part) if isinstance(tables, Mapping) else None
    return tables


def dotted(loc: Loc) -> str:
    """A key as it is written in TOML, on one line."""
    return ".".join(part if re.fullmatch(r"[\w-]+", part) else f'"{_bare(part)}"' for part in loc)


def _bare(part: str) -> str:
    return part if part.isprintable() else ascii(part)[1:-1]


def _has(tables: object, loc: Loc) -> bool:
    """Whether the tables say anything at a key, or something that is no table on the way to it."""
    for part in loc:
        if not isinstance(tables, Mapping):
            return True
        if part not in tables:
            return False
        tables = tables[part]
    return True
