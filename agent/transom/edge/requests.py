"""What a remote call may say, verb by verb: bytes in, typed requests or errors that name place, problem and remedy out.

Knows no broker and no pipeline. The same types check what `transom call` sends.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from transom.errors import TransomError
from transom.flags import nearest
from transom.settings.rules import REMOTE

LARGEST = 4096  # bytes of a request
Name = Annotated[str, Meta(min_length=1, max_length=512)]
Id = Annotated[str, Meta(max_length=128)] | int
Text = Annotated[str, Meta(min_length=1, max_length=64)]

NAMES = (*REMOTE, "unmute")  # whoever may mute may end it


class RequestError(TransomError):
    """A remote call that is not answered with what it asks for."""


class Request(Struct, forbid_unknown_fields=True, kw_only=True):
    """id: the caller's own, which comes back with the answer."""

    id: Id


class Ping(Request):
    pass


class Reload(Request):
    pass


class Unmute(Request):
    """Either stream and series, or the id of an alert that is up."""

    stream: Name | None = None
    series: Name | None = None
    alert: Text | None = None


class Mute(Unmute, kw_only=True):
    """duration: as in the configuration, "30m" or a number of seconds. With an alert the mute also ends with it."""

    duration: Text | Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0)]


class Acknowledge(Request):
    alert: Text
    by: Annotated[str, Meta(min_length=1, max_length=128)]


class Explain(Request):
    """See `transom explain`."""

    stream: Name
    series: Name
    target: Name | None = None
    pieces: Annotated[int, Meta(ge=16, le=64)] = 32
    method: Literal["integrated gradients", "occlusion"] | None = None


class SetBudget(Request):
    """false_alarms: as in the configuration, "1/week"."""

    stream: Name
    false_alarms: Text


class OfStream(Request):
    """accept, rollback: what becomes of a newer model of this stream (`transom rollout`)."""

    stream: Name


TYPES: dict[str, type[Request]] = {
    "ping": Ping, "reload": Reload, "mute": Mute, "unmute": Unmute, "acknowledge": Acknowledge, "explain": Explain,
    "set-budget": SetBudget, "accept": OfStream, "rollback": OfStream,
}  # fmt: skip


class _Id(Struct):
    id: Id


def decode(verb: str, payload: bytes) -> Request:
    """Raises RequestError."""
    if len(payload) > LARGEST:
        raise RequestError("payload", f"{len(payload):,} bytes", f"a request has at most {LARGEST:,}")
    try:
        return msgspec.json.decode(payload, type=TYPES[verb])
    except msgspec.ValidationError as error:
        raise invalid(verb, error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("payload", f"is no JSON ({error})", example(verb)) from None


def invalid(verb: str, error: msgspec.ValidationError) -> RequestError:
    text = str(error)
    what, _, where = text.partition(" - at `$")
    return RequestError(where.strip("`.") or "payload", what[:1].lower() + what[1:], example(verb))


def id_of(payload: bytes) -> str | int | None:
    """The id of a request that may be wrong otherwise."""
    if len(payload) > LARGEST:
        return None
    try:
        return msgspec.json.decode(payload, type=_Id).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def example(verb: str) -> str:
    told = {
        "ping": {}, "reload": {}, "mute": {"stream": "pumps", "series": "hall/pump-1/vibration", "duration": "1h"},
        "unmute": {"stream": "pumps", "series": "hall/pump-1/vibration"},
        "acknowledge": {"alert": "5b1f0c6a9d2e4471", "by": "anna"},
        "explain": {"stream": "pumps", "series": "hall/pump-1/vibration"},
        "set-budget": {"stream": "pumps", "false_alarms": "1/day"},
        "accept": {"stream": "pumps"}, "rollback": {"stream": "pumps"},
    }[verb]  # fmt: skip
    return f"write it like {msgspec.json.encode({'id': '1', **told}).decode()}"


def unknown(verb: str) -> RequestError:
    guess = nearest(verb, NAMES)
    return RequestError(f"request/{verb}", "no such call", f"did you mean {guess}?" if guess else
                        f"there are {', '.join(NAMES)}")  # fmt: skip


def made(verb: str, fields: dict[str, Any], request_id: str) -> bytes:
    """A request as it is sent, from fields that may be text. Raises RequestError."""
    if verb not in TYPES:
        raise unknown(verb)
    numbers = {"pieces"}
    try:
        typed = {k: int(v) if k in numbers and str(v).isdigit() else v for k, v in fields.items()}
        return msgspec.json.encode(msgspec.convert({"id": request_id, **typed}, type=TYPES[verb]))
    except msgspec.ValidationError as error:
        raise invalid(verb, error) from None
