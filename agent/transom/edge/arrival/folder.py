"""Models that somebody puts into a folder: <updates_folder>/<stream>/<anything>.pt, and .pt.minisig beside it.

A file is read once it has not changed for two looks, through a handle that follows no link, into a copy of our own: so
what is judged is what is used. Beside a file that is refused stands <file>.refused with the reason, if that can be
written. It is looked at again when it changes or that note is removed.
"""

import contextlib
import hashlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from transom.dialects.updates import Progress
from transom.edge.arrival.desk import Desk
from transom.edge.arrival.parts import remove
from transom.errors import ModelError
from transom.runtimes import files, trust

log = logging.getLogger(__name__)

LOOK = 2.0  # seconds between two looks
PATIENCE = 5  # looks for which a signature that is not there yet is waited for
SUFFIXES = (".pt", ".onnx")
MOST = 100  # files of one stream's folder that are looked at
NOTE = ".refused"

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_Stamp = tuple[int, int, int]


class _Seen(NamedTuple):
    """stamp: of the model and its signature; looks: for which they have been so; done: handled, or told of."""

    stamp: tuple[_Stamp, _Stamp | None]
    looks: int = 0
    done: bool = False


class Folder:
    """`step` is to be called again and again, by one thread."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._seen: dict[Path, _Seen] = {}
        self._troubles: set[str] = set()  # that have been told

    def step(self) -> float:
        settings, there = self._desk.settings, dict[Path, _Seen]()
        folder = settings.models.updates_folder
        if folder is None or "folder" not in settings.models.updates:
            return float("inf")
        for stream in settings.streams:
            for path in self._files(folder / stream):
                there[path] = self._look(stream, path)
        self._seen = there
        return LOOK

    def _files(self, folder: Path) -> Iterator[Path]:
        """Candidates by name; what they are is seen when they are opened."""
        try:
            if folder.is_symlink():
                raise OSError(0, "it is a link")  # noqa: TRY301  # told as the others are
            names = sorted(n for n in os.listdir(folder) if n.endswith(SUFFIXES) and not n.startswith("."))  # noqa: PTH208
        except FileNotFoundError:
            return
        except OSError as error:
            self._trouble(f"{folder}: cannot be looked into ({error.strerror})")
            return
        if len(names) > MOST:
            self._trouble(f"{folder}: holds {len(names)} models; the first {MOST} are looked at: take some out")
        for name in names[:MOST]:
            yield folder / name

    def _trouble(self, text: str) -> None:
        if text not in self._troubles and len(self._troubles) < MOST:
            self._troubles.add(text)
            log.warning("%s", text)

    def _look(self, stream: str, path: Path) -> _Seen:
        signature = trust.signature_path(path)
        stamp = _stamp(path), _stamp(signature)
        before = self._seen.get(path)
        if stamp[0] is None:
            return before or _Seen(((0, 0, 0), None))
        here = (stamp[0], stamp[1])
        if before is None or before.stamp != here:
            note = _stamp(path.with_name(path.name + NOTE))
            return _Seen(here, done=note is not None and note[0] >= here[0][0])
        if before.done:
            return before
        looks = before.looks + 1
        if stamp[1] is None and looks < PATIENCE:
            return before._replace(looks=looks)
        self._seen[path] = _Seen(here, looks, done=True)  # first: what fails in a way nobody foresaw fails once
        self._take(stream, path, signature)
        return self._seen[path]

    # --- one file -----------------------------------------------------------------------------------------------------

    def _take(self, stream: str, path: Path, signature: Path) -> None:
        told = Progress(stream=stream, sha256="", state="verifying", origin="folder")
        root = self._desk.incoming / "folder"
        try:
            with _opened(path) as handle:
                size = os.fstat(handle).st_size
                self._desk.room(size)
                remove(root)
                root.mkdir(parents=True)
                model = root / f"model{path.suffix}"
                told = Progress(stream=stream, sha256=_copy(handle, model, size), state="verifying", origin="folder")
            beside = None
            if _stamp(signature) is not None:
                beside = trust.signature_path(model)
                with _opened(signature) as handle:
                    _copy(handle, beside, trust.MAX_SIGNATURE)
            word = f"folder {stream} {told.sha256}"
            if word in self._desk.handled:
                return
            last = self._desk.hand_over(stream, model, beside, told)
            if last.state == "offered":
                self._desk.handled.add(word)
            else:
                _note(path, last.reason)
        except (OSError, ModelError) as error:
            problem = error if isinstance(error, ModelError) else ModelError(
                str(path), f"cannot be read ({error.strerror})", "put a plain file there, by a rename"
            )  # fmt: skip
            _note(path, self._desk.refuse(told, problem).reason)
        finally:
            remove(root)


def _stamp(path: Path) -> _Stamp | None:
    """Of the name itself, not of what a link names."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Raises OSError, and ModelError for what is no plain file: a link, a pipe, a device."""
    try:
        handle = os.open(path, _OPEN)
    except OSError as error:
        if path.is_symlink():
            raise ModelError(str(path), "is a link", "put the file itself there, by a rename") from None
        raise error from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ModelError(str(path), "is no plain file", "put a model there, by a rename")
        yield handle
    finally:
        os.close(handle)


def _copy(handle: int, target: Path, most: int) -> str:
    """SHA-256 of what was copied. Raises ModelError for more than `most` bytes."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        while block := os.read(handle, 1 << 20):
            size += len(block)
            if size > most:
                raise ModelError(str(target.name), f"more than {most:,} bytes", "put the file there by a rename")
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _note(path: Path, reason: str) -> None:
    try:
        files.write_whole(path.with_name(path.name + NOTE), f"{reason}\n".encode())
    except OSError as error:
        log.info("%s: no note can be left there (%s)", path.parent, error.strerror)
