"""The command line's share of the settings: -c FILE and dotted flags such as --broker.host NAME.

Arguments in; the flags' texts by dotted key and the other arguments out. Knows no key and imports nothing heavy.
"""

import argparse
import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DEFAULT_FILES = (Path("transom.toml"), Path("/etc/transom/agent.toml"))

_DOTTED = re.compile(r"--([A-Za-z_][\w-]*\.[^=]+)(?:=(.*))?", re.DOTALL)


def settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds -c; `args.config` is then the file to read (Path or None) and `args.overrides` the dotted flags."""
    group = parser.add_argument_group(
        "settings", "any key of the configuration is also a flag: --broker.host 192.0.2.7, --streams.pumps.step 1m"
    )
    group.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: $TRANSOM_CONFIG, ./transom.toml, /etc/transom/agent.toml)",
    )
    parser.set_defaults(overrides={})


def default_config() -> Path | None:
    """The file that is read when none is named: $TRANSOM_CONFIG, whatever it names, else the first that exists."""
    named = os.environ.get("TRANSOM_CONFIG")
    return Path(named) if named else next((f for f in DEFAULT_FILES if f.exists()), None)


def take_flags(argv: Sequence[str]) -> tuple[dict[str, str | bool], list[str]]:
    """Dotted flags by key, and the arguments that are none.

    A flag takes the next argument unless that starts with "--"; then it is True, which only a true/false key allows.
    Taken before argparse sees them, which would give a flag's value to the first positional argument.
    """
    flags: dict[str, str | bool] = {}
    others: list[str] = []
    rest = iter(range(len(argv)))
    for i in rest:
        found = _DOTTED.fullmatch(argv[i])
        if argv[i] == "--":
            others.extend(argv[i:])
            break
        if found is None:
            others.append(argv[i])
        elif found[2] is not None:
            flags[found[1]] = found[2]
        elif i + 1 < len(argv) and not argv[i + 1].startswith("--"):
            flags[found[1]] = argv[next(rest)]
        else:
            flags[found[1]] = True
    return flags, others


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"broker.host": x} as {"broker": {"host": x}}; keys without a dot, and nested values, pass."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        result = merged(result, value)
    return result


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables as one; where both have a key, tables are merged and of other values the upper one stands."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None."""
    lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None
