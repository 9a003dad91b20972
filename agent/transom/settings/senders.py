"""How a stream knows its senders: what may be set together, and the file with the devices' keys.

That file is TOML: a device and its key, or its keys while one takes the place of another. No error shows a key.
"""

import base64
import binascii
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transom.core.topics import Pattern
from transom.errors import PatternError
from transom.settings.quantities import shown

LEAST = 16  # bytes of a key
MOST_KEYS = 4  # of a device: the new one, the old one, and two to spare
LARGEST = 64 << 20  # bytes of the file
EXAMPLE = 'write lines such as "hall/pump-1" = "0f3c…"'
OPEN = 0o027  # rights that nobody but the owner, and a group that only reads, should have

Keys = dict[str, tuple[bytes, ...]]


def read_keys(file: Path) -> Keys:
    """Keys by device, each as hexadecimal digits or base64. Raises OSError and ValueError(problem, remedy)."""
    if file.exists() and not file.is_file():
        raise ValueError("is not a regular file", "check that it is the right file")
    mode = file.stat().st_mode & 0o777
    if mode & OPEN:
        raise ValueError(f"can be read or changed by others (its mode is {mode:o})", f"type: chmod 600 {file}")
    with file.open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"is larger than {LARGEST >> 20} MiB", "check that it is the right file")
    try:
        table = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text", "check that it is the right file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        where = re.search(r"at (line \d+|end of document)", str(error))  # no more of it: the rest could show a key
        raise ValueError(f"is no TOML ({where[0] if where else 'nested too deep'})", EXAMPLE) from None
    if not table:
        raise ValueError("names no device", EXAMPLE)
    return {device: _keys(device, raw) for device, raw in table.items()}


def _keys(device: str, raw: object) -> tuple[bytes, ...]:
    texts = raw if isinstance(raw, list) else [raw]
    keys = [_key(text) for text in texts if isinstance(text, str)]
    good = [key for key in keys if len(key) >= LEAST]
    if not good or len(good) < len(texts) or len(texts) > MOST_KEYS:
        raise ValueError(
            f"{device[:80]!r} has no key of {LEAST} bytes or more, or something else beside it",
            f"write hexadecimal digits or base64, or a list of 1 to {MOST_KEYS}; make one with: openssl rand -hex 32",
        )
    return tuple(good)


def _key(text: str) -> bytes:
    """b"" for what is no key."""
    try:
        return bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]+", text) else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def rules(stream: Mapping[str, Any], broker: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Problems between a stream's keys and the broker's: (where in the stream, problem, remedy)."""
    sender, pattern, file = stream.get("sender"), stream.get("topic"), stream.get("keys_file")
    if sender is not None and "sender_property" not in broker:
        yield ("sender",), "nobody says where the sender is named", "set broker.sender_property"
    if sender is not None and str(broker.get("protocol")) == "3.1.1":
        yield ("sender",), "MQTT 3.1.1 has no user properties", 'set broker.protocol = "5", or use keys_file'
    if isinstance(sender, str) and isinstance(pattern, str):
        try:
            Pattern.parse(pattern).check_text(sender)
        except PatternError as error:
            if error.problem.startswith("has no level"):  # a bad pattern is reported as such already
                yield ("sender",), f"topic {error.problem}", error.remedy
    if isinstance(file, str):
        try:
            read_keys(Path(file))
        except OSError as error:
            yield (
                ("keys_file",),
                f"{shown(file)} cannot be read: {error.strerror}",
                "check the path and its permissions",
            )
        except ValueError as error:
            problem, remedy = error.args
            yield ("keys_file",), f"{shown(file)} {problem}", remedy
