"""What a setting may be beyond its type: topics, names, hosts, time zones, files, and keys that exclude each other.

A value or the merged tables in; the value, or a ValueError(problem, remedy), or a list of problems out. Opens no file;
`secrets` does.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from zoneinfo import ZoneInfo, available_timezones

from transom.core.topics import Pattern
from transom.errors import PatternError, TransomError
from transom.flags import nearest
from transom.settings import arriving, secrets, senders
from transom.settings.quantities import parse_list, shown

# transom/<id>/<these> are the agent's own topics
RESERVED = ("status", "info", "health", "request", "response", "models", "update")
# unmute is allowed with mute
REMOTE = ("ping", "reload", "mute", "acknowledge", "explain", "set-budget", "accept", "rollback")

Path_ = tuple[str, ...]


class Origins(Protocol):
    """Where the merged tables come from."""

    @property
    def merged(self) -> dict[str, Any]: ...

    def place(self, loc: Path_) -> str: ...


# --- one value ----------------------------------------------------------------------------------------------------


def lower(raw: object) -> object:
    return raw.lower() if isinstance(raw, str) else raw


def text(raw: object) -> object:
    """5 for "5": a version is easily written as a number."""
    return str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw


def topic_level(name: str) -> str:
    if not name or any(c in "/+#" or not c.isprintable() for c in name) or len(name) > 128:
        raise ValueError(
            f"{shown(name)} is not one topic level", "use 1 to 128 characters without / + # and control characters"
        )
    return name


def plain_topic(name: str) -> str:
    if not name or any(c in "+#" or not c.isprintable() for c in name) or name.strip("/") != name or len(name) > 128:
        raise ValueError(
            f"{shown(name)} is no topic to publish under",
            "use 1 to 128 characters without + # and control characters, and no / at the ends",
        )
    return name


def host(name: str) -> str:
    if "://" in name or "@" in name:  # not shown: it may hold a password
        raise ValueError(
            "is an address with more than a host name", "write the name alone; port, username and tls are keys"
        )
    if not name or any(c.isspace() or not c.isprintable() or c == "/" for c in name):
        raise ValueError(f"{shown(name)} is not a host name", 'write a name or an address, as in "192.0.2.7"')
    if re.fullmatch(r"[^:]+:\d+", name):
        raise ValueError(f"{shown(name)} has a port in it", "write the port as broker.port")
    return name


def alpn(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not 1 <= len(name) <= 255 or not name.isascii() or not name.isprintable():  # RFC 7301, section 3.1
            raise ValueError(f"{shown(name)} is no protocol's name", 'write 1 to 255 characters of ASCII, as in "mqtt"')
    return names


def own_address(name: str) -> str:
    """An address to listen at. No other name than localhost: to ask for one could hold the agent up."""
    try:
        return name if name == "localhost" else str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        raise ValueError(
            f"{shown(name)} is not an IP address", 'write "127.0.0.1", "::1", "0.0.0.0" or an address of this host'
        ) from None


def one_line(raw: str) -> str:
    if not raw or not raw.isprintable():
        raise ValueError(f"{shown(raw)} is not one line of text", "use 1 or more characters, none of them control ones")
    return raw


def keepalive(ms: int) -> int:
    if not 1000 <= ms <= 65_535_000:
        raise ValueError(f"{ms / 1000:g} seconds is not possible in MQTT", 'write "1s" to "65535s"')
    return ms


def digest(raw: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", raw):
        raise ValueError(f"{shown(raw)} is not a SHA-256", "write its 64 hexadecimal digits, as sha256sum prints them")
    return raw.lower()


def topic(pattern: str) -> str:
    try:
        Pattern.parse(pattern)
    except PatternError as error:
        raise ValueError(f"{shown(pattern)} {error.problem}", error.remedy) from None
    return pattern


def remote(verbs: tuple[str, ...]) -> tuple[str, ...]:
    for verb in verbs:
        if verb not in REMOTE:
            guess = nearest(verb, REMOTE)
            hint = f'did you mean "{guess}"?' if guess and verb != "unmute" else f"there are {', '.join(REMOTE)}"
            raise ValueError(f"{shown(verb)} is no remote call", hint)
    if len(set(verbs)) < len(verbs):
        raise ValueError(f"{shown(list(verbs))} names a call twice", "name each once")
    return verbs


def timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        guess = nearest(name, available_timezones()) or "Europe/Berlin"
        raise ValueError(f"{shown(name)} is not a known time zone", f'write an IANA name such as "{guess}"') from None
    return name


def channels(raw: object) -> object:
    """A list of names as a table of channels with nothing said about them."""
    names = parse_list(raw)
    if not isinstance(names, list | tuple):
        return raw
    if not all(isinstance(n, str) and n for n in names):
        raise ValueError(f"{shown(raw)} is not a list of names", 'write ["temperature", "humidity"]')
    if len(set(names)) < len(names):
        raise ValueError(f"{shown(raw)} names a channel twice", "name each channel once")
    return {n: {} for n in names}


# --- across keys --------------------------------------------------------------------------------------------------


def across(layers: Origins, *, need_streams: bool) -> list[TransomError]:
    """Problems between keys and with the files they name. Works on the raw tables, so that a wrong type hides none."""
    raw = layers.merged
    models = _table(raw, "models")
    found = [
        *_broker(_table(raw, "broker")), *secrets.http(_table(raw, "http")), *secrets.privacy(_table(raw, "privacy")),
        *arriving.across(raw),
        *secrets.file(("models", "updates_ca_file"), models.get("updates_ca_file"), secrets.LARGEST_PEM),
    ]  # fmt: skip
    streams = raw.get("streams", {})
    if need_streams and streams in ({}, None):
        found.append(
            (("streams",), "nothing to watch", 'add [streams.NAME] with topic = "plant/{site}/{device}/{channel}"')
        )
    for name, table in streams.items() if isinstance(streams, Mapping) else ():
        if isinstance(table, Mapping):
            rules = [*_stream(name, table), *senders.rules(table, _table(raw, "broker"))]
            found += [(("streams", name, *loc), problem, remedy) for loc, problem, remedy in rules]
    return [TransomError(layers.place(loc), problem, remedy) for loc, problem, remedy in found]


def _table(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = raw.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _broker(broker: Mapping[str, Any]) -> Iterator[tuple[Path_, str, str]]:
    if "password" in broker and "password_file" in broker:
        yield ("broker", "password_file"), "password is set too", "keep one of broker.password and broker.password_file"
    elif ("password" in broker or "password_file" in broker) and "username" not in broker:
        key = "password" if "password" in broker else "password_file"
        yield ("broker", key), "there is no username to go with it", "set broker.username"
    tls = _table(broker, "tls")
    if "key_file" in tls and "cert_file" not in tls:
        yield ("broker", "tls", "key_file"), "there is no certificate to go with it", "set broker.tls.cert_file"
    yield from secrets.file(("broker", "password_file"), broker.get("password_file"), secrets.LARGEST_PASSWORD)
    for key in ("ca_file", "cert_file", "key_file", "key_password_file"):
        yield from secrets.file(("broker", "tls", key), tls.get(key), secrets.LARGEST_PEM)


def _stream(name: str, stream: Mapping[str, Any]) -> Iterator[tuple[Path_, str, str]]:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", name):
        yield (), f"{shown(name)} is not a stream's name", "use letters, digits, _ and -"
    if name in RESERVED:
        yield (), f"{shown(name)} is the name of one of the agent's own topics", "choose another name"
    if "threshold" in stream and "false_alarms" in stream:
        yield ("threshold",), "false_alarms is set too", "keep one of threshold and false_alarms"
    if stream.get("payload") == "number":
        for key in ("value", "time"):
            if key in stream:
                yield (key,), 'has no meaning with payload = "number"', 'remove it, or set payload = "json"'
    pattern, series = stream.get("topic"), stream.get("series", ())
    if isinstance(pattern, str):
        try:
            parsed, levels = Pattern.parse(pattern), parse_list(series)
            if isinstance(levels, list | tuple) and all(isinstance(level, str) for level in levels):
                parsed.check_series(levels)
                if len(set(levels)) < len(levels):
                    yield ("series",), f"{shown(series)} names a level twice", "name each level once"
        except PatternError as error:
            if error.problem.startswith("has no level"):  # a bad pattern is reported as such already
                yield ("series",), f"topic {error.problem}", error.remedy
        except ValueError:
            pass  # no list: reported with its type
