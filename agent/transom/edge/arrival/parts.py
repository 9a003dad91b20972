"""A file that comes in chunks, on disk: in a folder named by its SHA-256, and checked as a whole at the end.

    <incoming>/<sha256>/offer.json   the offer as it came, and the stream
    <incoming>/<sha256>/part         the chunks, each at its place
    <incoming>/<sha256>/model.pt     the whole, and model.pt.minisig

What is in `part` after a crash is found out by the digests of the chunks, so nothing else has to be written in order.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from transom.dialects import updates
from transom.dialects.chunks import Chunks
from transom.dialects.updates import Offer, UpdateError
from transom.errors import ModelError
from transom.runtimes import files, trust

log = logging.getLogger(__name__)

MOST = 4  # files that may be unfinished; the oldest go first
BLOCK = 1 << 20


class Parts:
    """Of one offer for one stream. chunks: which of them are there."""

    def __init__(self, root: Path, stream: str, offer: Offer, kept: Path | None = None) -> None:
        """Goes on with what is there, or with a copy of `kept`, if that is a file. Raises OSError, and UpdateError for
        an offer that contradicts itself."""
        self.stream, self.offer, self.chunks = stream, offer, Chunks(offer)
        self.folder = root / offer.sha256
        self.folder.mkdir(parents=True, exist_ok=True)
        _make_room(root, self.folder)
        saved = msgspec.json.encode([stream, msgspec.Raw(updates.encode(offer))])
        files.write_whole(self.folder / "offer.json", saved)
        part = self.folder / "part"
        if kept is not None and kept.is_file() and not part.exists():
            shutil.copyfile(kept, part)
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._file = open(handle, "r+b", buffering=0)  # noqa: PTH123, SIM115  # closed by `close`
        if os.fstat(handle).st_size:
            self.chunks.held(self._found())
        os.ftruncate(handle, offer.size)

    def _found(self) -> Iterator[int]:
        """Chunks that are whole on disk."""
        for number in range(self.offer.chunks):
            data = os.pread(self._file.fileno(), self.offer.length(number), number * self.offer.chunk)
            if self.chunks.fits(number, data):
                yield number

    def write(self, number: int, data: bytes, now: float) -> bool:
        """Keeps a chunk that was missing and is right; True then. Raises OSError."""
        if not self.chunks.take(number, data, now):
            return False
        os.pwrite(self._file.fileno(), data, number * self.offer.chunk)
        return True

    def whole(self) -> tuple[Path, Path]:
        """The model and its signature, once every chunk is there. Raises OSError, and ModelError for a file that is not
        the one that was offered, whatever its chunks are."""
        sha256, blake2b = hashlib.sha256(), hashlib.blake2b()
        for at in range(0, self.offer.size, BLOCK):
            block = os.pread(self._file.fileno(), BLOCK, at)
            sha256.update(block)
            blake2b.update(block)
        if (sha256.hexdigest(), blake2b.hexdigest()) != (self.offer.sha256, self.offer.blake2b):
            raise ModelError(
                "offer", "names chunks that do not make the file that it names", "send it with transom push"
            )
        os.fsync(self._file.fileno())
        model = self.folder / f"model{self.offer.suffix}"
        os.replace(self.folder / "part", model)  # noqa: PTH105
        signature = trust.signature_path(model)
        files.write_whole(signature, self.offer.signature.encode())
        return model, signature

    def close(self) -> None:
        """What is there stays."""
        self._file.close()

    def remove(self) -> None:
        self.close()
        remove(self.folder)


def unfinished(root: Path) -> Iterator[tuple[str, Offer]]:
    """Stream and offer of what an earlier run has left; whatever else lies there is removed."""
    for folder in _folders(root):
        try:
            stream, raw = msgspec.json.decode((folder / "offer.json").read_bytes(), type=tuple[str, msgspec.Raw])
            offer = updates.decode_offer(bytes(raw))
        except (OSError, msgspec.DecodeError, UpdateError):
            remove(folder)
            continue
        if folder.name == offer.sha256:
            yield stream, offer
        else:
            remove(folder)


def _folders(root: Path) -> list[Path]:
    """Oldest first."""
    try:
        found = [f for f in root.iterdir() if re.fullmatch(r"[0-9a-f]{64}", f.name) and not f.is_symlink()]
        return sorted(found, key=lambda f: f.stat().st_mtime_ns)
    except FileNotFoundError:
        return []


def _make_room(root: Path, keep: Path) -> None:
    os.utime(keep)
    others = [f for f in _folders(root) if f != keep]
    for folder in others[: max(0, len(others) - (MOST - 1))]:
        log.warning("%s: an update that never became whole is given up", folder)
        remove(folder)


def remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
