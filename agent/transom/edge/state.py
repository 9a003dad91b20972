"""A pipeline's snapshot as a file: nested dictionaries of arrays and plain values, written whole or not at all.

A file that cannot be read is set aside, never deleted.
"""

import logging
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

log = logging.getLogger(__name__)

NAME = "snapshot.msgpack"
_ARRAY = "ndarray"


def save(folder: Path, snapshot: dict[str, Any]) -> Path:
    """Writes the snapshot into the state folder by way of a temporary file. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target, draft = folder / NAME, folder / f"{NAME}.tmp"
    data = msgspec.msgpack.encode(_packed(snapshot))
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
    return target


def load(folder: Path) -> dict[str, Any] | None:
    """The last snapshot, or None when there is none or it is damaged (then it is renamed, and the log says so)."""
    path = folder / NAME
    try:
        unpacked = _unpacked(msgspec.msgpack.decode(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
        aside = path.with_name(f"{NAME}.damaged-{int(time.time())}")
        path.rename(aside)
        log.error("state %s is damaged (%s): kept as %s, starting without it", path, error, aside.name)  # noqa: TRY400
        return None
    if not isinstance(unpacked, dict):
        log.error("state %s is not a snapshot: starting without it", path)
        return None
    return unpacked


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
