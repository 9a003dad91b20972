"""The configuration: flags over environment over TOML file over defaults, in; frozen Settings, or every problem, out.

The options themselves stand in options.py and streams.py. Nothing here opens a model or a socket.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from transom.errors import SettingsError, TransomError
from transom.settings import rules, secrets
from transom.settings.http import HttpSettings
from transom.settings.options import (
    AgentSettings,
    BrokerSettings,
    ModelsSettings,
    PrivacySettings,
    Settings,
    TlsSettings,
)
from transom.settings.problems import explain, meant
from transom.settings.sources import read_layers
from transom.settings.streams import ChannelSettings, StreamSettings

__all__ = [
    "AgentSettings",
    "BrokerSettings",
    "ChannelSettings",
    "HttpSettings",
    "ModelsSettings",
    "PrivacySettings",
    "Reading",
    "Settings",
    "StreamSettings",
    "TlsSettings",
    "load_settings",
    "read",
]


@dataclass(frozen=True, slots=True)
class Reading:
    """A configuration as far as it could be read. settings: None when there are problems; streams: those without;
    models: what the others name, by stream; trust: which model files may run, None where that has problems."""

    settings: Settings | None
    streams: dict[str, StreamSettings]
    models: dict[str, str]
    folder: Path
    problems: list[TransomError]
    trust: ModelsSettings | None = None


def load_settings(config: Path | None, overrides: Mapping[str, Any], *, need_streams: bool = True) -> Settings:
    """Flags over environment over file over defaults. Raises SettingsError with every problem.

    config: TOML file or None; overrides: flags by dotted key, or nested tables; need_streams: none is a problem.
    """
    reading = read(config, overrides, need_streams=need_streams)
    if reading.settings is None:
        raise SettingsError(reading.problems)
    return reading.settings


def read(config: Path | None, overrides: Mapping[str, Any], *, need_streams: bool = True) -> Reading:
    """As `load_settings`, but gives the problems together with what could be read."""
    layers, problems = read_layers(config, overrides)
    problems += rules.across(layers, need_streams=need_streams and layers.file_read)
    settings = None
    raw = secrets.with_secrets(layers.merged)
    for key in [k for k in raw if k.startswith("_")]:  # pydantic-settings would take these as arguments of its own
        problems.append(TransomError(layers.place((key,)), "unknown key", meant((key,))))
        del raw[key]
    try:
        settings = Settings(**raw)
        settings._config = config
    except ValidationError as error:
        problems += [
            explain(details, layers)
            for details in error.errors(include_url=False)
            if layers.file_read or details["type"] != "missing"  # an unreadable file may have said it
        ]
    streams, models = {}, {}
    tables = raw.get("streams")
    for name, table in tables.items() if isinstance(tables, Mapping) else ():
        try:
            streams[name] = StreamSettings.model_validate(table)
        except ValidationError:  # among the problems already
            if isinstance(table, Mapping) and isinstance(table.get("model"), str):
                models[name] = table["model"]
    trust = None
    with contextlib.suppress(ValidationError):  # among the problems already
        trust = ModelsSettings.model_validate(raw.get("models", {}))
    return Reading(None if problems else settings, streams, models, layers.folder, problems, trust)
