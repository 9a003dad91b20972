"""The annotated reference configuration, made from the options themselves so that it cannot drift from them.

Settings' classes in, the text of config/agent.toml out, or the page docs/settings.md. Keys that have no fixed default
stand in the first commented out.
"""

import json
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from transom.settings.options import (
    AgentSettings,
    BrokerSettings,
    HomeAssistantSettings,
    HttpSettings,
    ModelsSettings,
    TlsSettings,
)  # fmt: skip
from transom.settings.streams import ChannelSettings, StreamSettings

HEAD = """\
Every setting of Transom with its default, unit and meaning. Made by: python -m transom.settings

A line such as "#key = value" has an example: what holds without it is told above it. All other lines are the
defaults and can be left out. The smallest useful file is examples/smallest.toml.

Durations are text with a unit ("500ms", "90s", "5m", "1h 30m", "2d", "1w") or a number of seconds.
File names may hold ~ and $VARIABLES; relative ones start at the folder of this file.

Each key is also a variable and a flag. Flags win over variables, variables over this file:
  TRANSOM_BROKER__HOST=192.0.2.7 transom run
  transom run --broker.host 192.0.2.7 --streams.pumps.false_alarms 1/day

`transom check -c FILE` finds every mistake in a file at once."""

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("agent", AgentSettings),
    ("broker", BrokerSettings),
    ("broker.tls", TlsSettings),
    ("homeassistant", HomeAssistantSettings),
    ("http", HttpSettings),
    ("models", ModelsSettings),
    ("streams.pumps", StreamSettings),
    ("streams.pumps.channels.temperature", ChannelSettings),
)
WIDTH = 115


def reference() -> str:
    """The text of config/agent.toml."""
    parts = ["\n".join(_comment(HEAD))]
    for table, cls in SECTIONS:
        optional = cls is ChannelSettings
        mark = "#" if optional else ""
        parts.append("\n".join([*_comment(_prose(cls)), f"{mark}[{table}]"]))
        defaults = cls.model_construct().model_dump(mode="json", warnings=False)
        for key, field in cls.model_fields.items():
            if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
                parts.append("\n".join([*_comment(field.description or ""), mark + _line(key, field, defaults)]))
    return "\n\n".join(parts) + "\n"


PAGE = """\
# Settings

Every setting, made from the program: `python -m transom.settings --page > docs/settings.md`. The same as a file to
start from is [config/agent.toml](../config/agent.toml); how files, variables and flags come together, and how
durations, sizes and budgets are written, says [configuration.md](configuration.md).

A key is written in its table of the file, as a flag (`--broker.host 192.0.2.7`) or as a variable
(`TRANSOM_BROKER__HOST=192.0.2.7`). Changes are taken while the agent runs, but for those of `agent.id`, `agent.state`
and `agent.durability`, which are refused, and of `agent.inbox`, which waits for the next start."""


def page() -> str:
    """The text of docs/settings.md."""
    parts = [PAGE]
    for table, cls in SECTIONS:
        defaults = cls.model_construct().model_dump(mode="json", warnings=False)
        rows = [f"## [{table}]", "", _prose(cls), "", "| key | default | meaning |", "|---|---|---|"]
        for key, field in cls.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                continue
            rows.append(f"| `{key}` | {_default(key, field, defaults)} | {_meaning(field)} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _default(key: str, field: FieldInfo, defaults: dict[str, object]) -> str:
    """Of a key without a fixed one its example."""
    if field.is_required():
        return f"needed, such as `{_cell(_toml(field.examples[0]))}`" if field.examples else "needed"
    if field.examples:
        return f"none; such as `{_cell(_toml(field.examples[0]))}`"
    return f"`{_cell(_toml(defaults[key]))}`"


def _meaning(field: FieldInfo) -> str:
    return _cell(field.description or "").replace("<", "\\<")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(cls: type[BaseModel]) -> str:
    text = " ".join((cls.__doc__ or "").split())
    if cls is StreamSettings:
        return f"{text} The name, here pumps, is part of the topics that are published."
    return text


def _line(key: str, field: FieldInfo, defaults: dict[str, object]) -> str:
    if field.examples:
        mark = "" if field.is_required() else "#"
        return f"{mark}{key} = {_toml(field.examples[0])}"
    return f"{key} = {_toml(defaults[key])}"


def _toml(value: object) -> str:
    """TOML text; JSON's strings, numbers, booleans and arrays are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        indent = "  " if line.startswith("  ") else ""
        for part in textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]:
            yield f"# {part}".rstrip()
