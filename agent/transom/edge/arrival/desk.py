"""Where all ways end: a whole file comes in, goes to whoever decides what runs, and what came of it is told.

One file at a time, for a trial takes a process and memory. What is told is kept until the run loop publishes it.
"""

import logging
import shutil
import threading
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from transom.core.model import Model
from transom.dialects import updates
from transom.dialects.plain import Publication
from transom.dialects.updates import Progress
from transom.edge.arrival.handled import Handled
from transom.errors import ModelError, TransomError
from transom.settings import Settings, StreamSettings

log = logging.getLogger(__name__)

UNSENT = 200  # publications that wait for the run loop
MARGIN = 64 << 20  # bytes of the disk that stay free


class Store(Protocol):
    """Decides what runs. Called from the threads of arrival."""

    def offer(self, stream: str, model: Path, signature: Path | None, origin: str) -> str:
        """Takes a copy, and returns the file's SHA-256. Raises ModelError for a model that it does not take."""
        ...


class Desk:
    """settings: as they are now; running: what each stream runs, by name; incoming: the folder for parts."""

    def __init__(self, settings: Settings, store: Store | None) -> None:
        self.settings, self._store = settings, store
        self.running: Mapping[str, Model] = MappingProxyType({})
        folder = settings.agent.state / "models"
        self.incoming = folder / "incoming"
        self.handled = Handled(folder / "handled.json")
        self._one = threading.Lock()
        self._unsent: deque[Publication] = deque(maxlen=UNSENT)
        self.counts: Counter[str] = Counter()

    # --- before a file is there ---------------------------------------------------------------------------------------

    def stream(self, name: str) -> StreamSettings:
        """Raises ModelError for a stream that takes no update."""
        stream = self.settings.streams.get(name)
        if stream is None:
            raise ModelError("stream", f"there is no {name[:80]!r} here", "send it to an agent that has it")
        if stream.model_sha256 is not None:
            raise ModelError(
                f"streams.{name}.model_sha256", "pins the model that runs", "take it out there, or change it there"
            )
        return stream

    def room(self, size: int) -> None:
        """Raises ModelError where `size` bytes are too many, here or on this disk."""
        largest = self.settings.models.updates_largest
        if size > largest:
            raise ModelError("model", f"{size:,} bytes", f"models.updates_largest allows {largest:,}")
        try:
            self.incoming.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.incoming).free
        except OSError as error:
            raise ModelError(str(self.incoming), f"cannot be made ({error.strerror})", "check agent.state") from None
        if free < 2 * size + MARGIN:  # the parts, and the copy of whoever takes it
            raise ModelError(str(self.incoming), f"{free:,} bytes are free for {size:,}", "make room on that disk")

    # --- when it is there ---------------------------------------------------------------------------------------------

    def hand_over(self, stream: str, model: Path, signature: Path | None, told: Progress) -> Progress:
        """model: a whole file of ours; told: what is known of it, whose state and reason are set here. Returns the last
        word, which has been told."""
        with self._one:
            self.tell(_changed(told, "verifying"))
            try:
                self.stream(stream)
                assert self._store is not None  # or no way is open
                self._store.offer(stream, model, signature, told.origin)
            except TransomError as error:
                return self.refuse(told, error)
            except OSError as error:
                problem = ModelError(str(self.incoming.parent), f"failed ({error.strerror})", "look at the disk")
                return self.refuse(told, problem)
        self.counts["offered"] += 1
        last = _changed(told, "offered")
        self.tell(last)
        return last

    def refuse(self, told: Progress, error: TransomError) -> Progress:
        self.counts["refused"] += 1
        reason = "".join(c if c.isprintable() else "?" for c in str(error))[:500]
        log.warning("streams.%s: a model that comes by %s is refused: %s", _shown(told.stream), told.origin, reason)
        last = _changed(told, "refused", reason)
        self.tell(last)
        return last

    def tell(self, told: Progress) -> None:
        self.send(updates.progress(self.settings.base, told))

    def send(self, publication: Publication) -> None:
        self._unsent.append(publication)

    def unsent(self) -> list[Publication]:
        """What is to be published, for the run loop's thread."""
        found = []
        while self._unsent:
            found.append(self._unsent.popleft())
        return found


def _changed(told: Progress, state: updates.State, reason: str = "") -> Progress:
    return Progress(
        stream=told.stream, sha256=told.sha256, state=state, received=told.received, chunks=told.chunks,
        origin=told.origin, push=told.push, reason=reason,
    )  # fmt: skip


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:80]
