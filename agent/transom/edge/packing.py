"""A pipeline's snapshot and turns as bytes and back: nested dictionaries of arrays and plain values, in MessagePack.

Says nothing of where the bytes are kept. Raises ValueError for bytes that are none of these.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from transom.core.pipeline import Turn

_ARRAY = "ndarray"
_SEAL = 4  # bytes of a checksum
_turns = msgspec.msgpack.Decoder(list[Turn])
_encode = msgspec.msgpack.Encoder().encode


def seal(data: bytes, place: int = 0) -> bytes:
    """With a checksum before it. place: where it belongs; it is sound nowhere else."""
    return zlib.crc32(data, place & 0xFFFFFFFF).to_bytes(_SEAL, "big") + data


def unseal(sealed: bytes, place: int = 0) -> bytes:
    data = sealed[_SEAL:]
    if zlib.crc32(data, place & 0xFFFFFFFF).to_bytes(_SEAL, "big") != sealed[:_SEAL]:
        raise ValueError("the checksum does not fit")
    return data


def pack(snapshot: dict[str, Any]) -> bytes:
    return _encode(_packed(snapshot))


def unpack(data: bytes) -> dict[str, Any]:
    try:
        return {key: _unpacked(value) for key, value in msgspec.msgpack.decode(data, type=dict[str, Any]).items()}
    except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"no snapshot: {error}") from None


def pack_turns(turns: Sequence[Turn]) -> bytes:
    return zlib.compress(_encode(turns), 1)  # flash wears by the byte: this writes a third


def unpack_turns(data: bytes) -> list[Turn]:
    try:
        return _turns.decode(zlib.decompress(data))
    except (msgspec.DecodeError, zlib.error) as error:
        raise ValueError(f"no turns: {error}") from None


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {_ARRAY: [value.dtype.str, list(value.shape), value.tobytes()]}
    if isinstance(value, dict):
        return {key: _packed(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            dtype, shape, data = value[_ARRAY]
            return np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
        return {key: _unpacked(v) for key, v in value.items()}
    return [_unpacked(v) for v in value] if isinstance(value, list) else value
