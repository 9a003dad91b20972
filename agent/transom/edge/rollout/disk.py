"""Small files and models on disk such that a power cut leaves the old content or the new one, and nothing between.

Bytes in, a file out. Each step that the order of a crash hangs on is one call of `os`.
"""

import contextlib
import os
from pathlib import Path

TEMPORARY = ".part"  # of a file that is being written; what a crash leaves of it is removed by whoever cleans up


def put(path: Path, data: bytes) -> None:
    """Writes beside its place, syncs, renames, and syncs the folder, so that also the rename is on the disk when this
    returns. Raises OSError; then the old file is as it was."""
    beside = path.with_name(path.name + TEMPORARY)
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(beside, path)  # noqa: PTH105
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def remove(path: Path) -> None:
    """Whether the disk has forgotten it at once does not matter: nothing names it any more. Raises OSError."""
    path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
