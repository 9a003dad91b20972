"""What the settings of models that arrive may be: keys, ways, groups, addresses, sizes, and what needs what.

A value or the merged tables in; the value, or a ValueError(problem, remedy), or problems out. Opens nothing.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from transom.flags import nearest
from transom.settings.quantities import format_size, shown

ORIGINS = ("mqtt", "folder", "https")
LARGEST = 128 << 20  # bytes: 1,024 chunks of the largest size (dialects/updates.py)

Problem = tuple[tuple[str, ...], str, str]


def public_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    for key in keys:
        if not re.fullmatch(r"RW[Q-T][A-Za-z0-9+/]{53}", key):
            raise ValueError(
                f"{shown(key)} is no public key", "write the line that begins with RW, as transom keygen shows it"
            )
    return keys


def origins(ways: tuple[str, ...]) -> tuple[str, ...]:
    for way in ways:
        if way not in ORIGINS:
            guess = nearest(way, ORIGINS)
            hint = f'did you mean "{guess}"?' if guess else f"there are {', '.join(ORIGINS)}"
            raise ValueError(f"{shown(way)} is no way by which models arrive", hint)
    if len(set(ways)) < len(ways):
        raise ValueError(f"{shown(list(ways))} names a way twice", "name each once")
    return ways


def groups(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not name or any(c in "/+#" or not c.isprintable() for c in name) or len(name) > 128:
            raise ValueError(
                f"{shown(name)} is not one topic level", "use 1 to 128 characters without / + # and control characters"
            )
    if len(names) > 16 or len(set(names)) < len(names):
        raise ValueError(f"{len(names)} groups, or one named twice", "name at most 16, each once")
    return names


def https_url(url: str) -> str:
    """Without a name and password in it: it is shown in logs."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{shown(url)} is no address", 'write "https://host/model.pt"') from None
    if "@" in parts.netloc:  # not shown: it may hold a password
        raise ValueError("has a name or a password in it", "let the server give the file to this host without one")
    if parts.scheme.lower() != "https" or not parts.hostname or port == 0 or not url.isascii() or not url.isprintable():
        raise ValueError(f"{shown(url)} is no https address", 'write "https://host/model.pt"; nothing else is fetched')
    if any(c.isspace() for c in url) or parts.fragment or len(url) > 2000:
        raise ValueError(f"{shown(url)} cannot be asked for", "leave spaces and # out, at most 2,000 characters")
    return url


def largest(size: int) -> int:
    if not 1024 <= size <= LARGEST:
        raise ValueError(f"{format_size(size)} is too small or too large", "choose 1KiB to 128MiB")
    return size


def across(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Keys that have no meaning without another."""
    models, streams = raw.get("models"), raw.get("streams")
    models = models if isinstance(models, Mapping) else {}
    ways = models.get("updates") or ()
    if "folder" in ways and not models.get("updates_folder"):
        yield ("models", "updates"), '"folder" has no folder', "set models.updates_folder"
    if "mqtt" in ways and not models.get("trusted_keys"):
        yield ("models", "updates"), '"mqtt" without a key that is trusted', "set models.trusted_keys (transom keygen)"
    for name, table in streams.items() if isinstance(streams, Mapping) else ():
        if isinstance(table, Mapping):
            for one, other in (("update_url", "update_sha256"), ("update_sha256", "update_url")):
                if one in table and other not in table:
                    yield ("streams", name, one), f"there is no {other} to go with it", f"set streams.{name}.{other}"
