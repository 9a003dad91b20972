"""Payload bytes to what they say, as plain Python objects: JSON and CBOR. What cannot be read is refused with a reason.

Knows nothing of values and times.
"""

import io
from collections.abc import Mapping
from typing import Any

import cbor2
import msgspec

from transom.core.values import PayloadError

_json = msgspec.json.Decoder()


def from_json(payload: bytes) -> Any:
    try:
        return _json.decode(payload)
    except msgspec.DecodeError as error:
        raise PayloadError(f"malformed JSON: {error}") from None
    except RecursionError:
        raise PayloadError("malformed JSON: nested too deep") from None
    except UnicodeDecodeError:
        raise PayloadError("malformed JSON: invalid UTF-8") from None


def from_cbor(payload: bytes) -> Any:
    """One CBOR item that is the whole payload and no larger than it: shared references (tags 28 and 29) could make a
    few bytes into an object without end."""
    source = io.BytesIO(payload)
    try:
        body = cbor2.CBORDecoder(source).decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError, EOFError) as error:
        raise PayloadError(f"malformed CBOR: {str(error)[:200]}") from None
    if source.tell() != len(payload):
        raise PayloadError(f"malformed CBOR: {len(payload) - source.tell()} bytes after its end")
    left, waiting = len(payload), [body]
    while waiting:
        item = waiting.pop()
        left -= 1  # each item is a byte at least
        if left < 0:
            raise PayloadError("CBOR with shared references")
        if isinstance(item, Mapping):
            waiting += item.keys()
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item
    return body
