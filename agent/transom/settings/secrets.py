"""Secrets and the files that hold them: the broker's password, the live page's token, certificates.

Raw tables in, tables with their secrets or problems out. No problem shows a secret.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from transom.settings.quantities import shown

LARGEST_PASSWORD = 64 << 10  # MQTT 5.0, section 3.1.3.6: its length has two bytes
LARGEST_PEM = 16 << 20
LARGEST_TOKEN = 4 << 10
LEAST_KEY = 32  # characters of the secret of pseudonyms
HELD = {("broker", "password"): LARGEST_PASSWORD, ("http", "token"): LARGEST_TOKEN}  # secrets that KEY_file may hold

Problem = tuple[tuple[str, ...], str, str]


def token(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,256}", secret.get_secret_value()):
        raise ValueError(
            "is too short or has other characters than letters, digits and . _ ~ + / = -",
            "use 16 to 256 of them, as in: openssl rand -hex 16",
        )
    return secret


def page(port: int | None, own: str, *, guarded: bool) -> None:
    """The live page: at which port and address, and whether there is a token. Raises ValueError."""
    if port is None:
        raise ValueError("page is set and there is no port", "set http.port, as in port = 9099")
    if not guarded and own != "localhost" and not ipaddress.ip_address(own).is_loopback:
        raise ValueError(
            f"page is set and other hosts reach {own}", "set http.token_file, or leave http.host at 127.0.0.1"
        )


def http(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems between the keys of the raw table."""
    if "token" in raw and "token_file" in raw:
        yield ("http", "token_file"), "token is set too", "keep one of http.token and http.token_file"
    yield from file(("http", "token_file"), raw.get("token_file"), LARGEST_TOKEN)


def privacy(raw: Mapping[str, Any]) -> Iterator[Problem]:
    yield from file(("privacy", "series_key_file"), raw.get("series_key_file"), LARGEST_PASSWORD, LEAST_KEY)


def file(loc: tuple[str, ...], name: object, limit: int, least: int = 1) -> Iterator[Problem]:
    """What is wrong with the file that a key names. limit: bytes; least: characters."""
    if not isinstance(name, str):
        return
    try:
        found = len(read_text(Path(name), limit))
        if not found:
            yield loc, f"{shown(name)} is empty", "write the file's content or remove the key"
        elif found < least:
            yield loc, f"{shown(name)} has {found} characters, too few", f"write {least} or more: openssl rand -hex 32"
    except OSError as error:
        yield loc, f"{shown(name)} cannot be read: {error.strerror}", "check the path and its permissions"
    except ValueError as error:
        yield loc, f"{shown(name)} {error}", "check that it is the right file"


def read_text(file: Path, limit: int) -> str:
    """The file's text without the line's end. Raises OSError, and ValueError for what is no such text."""
    if file.exists() and not file.is_file():
        raise ValueError("is not a regular file")  # a pipe could block for ever, and can be read only once
    with file.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"is larger than {limit >> 10:,} KiB")
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def with_secrets(raw: dict[str, Any]) -> dict[str, Any]:
    """A copy of the tables with what stands in the files of HELD; `rules.across` says which of them are bad."""
    result = dict(raw)
    for (section, key), limit in HELD.items():
        table = result.get(section)
        name = table.get(f"{key}_file") if isinstance(table, Mapping) and key not in table else None
        if isinstance(table, Mapping) and isinstance(name, str):
            try:
                secret = read_text(Path(name), limit)
            except (OSError, ValueError):
                continue
            result[section] = {**table, key: secret} if secret or section == "broker" else table
    return result
