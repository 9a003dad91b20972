"""Which model file each stream runs, on disk: agent.state/models.

`<sha256>.pt` or `.onnx`, with its `.minisig`, are never changed; `rollout.json` alone says what runs, and is replaced
whole. So whatever moment the power fails in, it names files that were on the disk before it did: a model is written
first, then named; and removed only when nothing names it any more. Every change of what runs puts its event into the
same write, and it stays there until the journal has it. Any thread may call what is here.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec.structs import replace

from transom.core.model import Manifest
from transom.core.stream import Stream, StreamSpec
from transom.edge.rollout import disk, litter
from transom.edge.rollout.record import Entry, File, Record, decode, encode
from transom.errors import ModelError
from transom.runtimes import choice, files
from transom.settings import Settings

log = logging.getLogger(__name__)

RECORD = "rollout.json"
DEATHS = 2  # of the process in one phase after which its model is given up
EVENTS = 100  # that wait for the journal; the oldest go first

SpecOf = Callable[[str, Any, Manifest], StreamSpec]


class Chosen(NamedTuple):
    path: Path
    file: File


class Ledger:
    """folder: agent.state/models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._coming: set[str] = set()  # digests of files that are being judged
        self._settings: Settings | None = None
        self._running: Mapping[str, Stream] = MappingProxyType({})
        self._spec_of: SpecOf | None = None
        self._record, self.problem = self._read()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """By stream; of those that have ever had an update."""
        return self._record.streams

    def path(self, file: File) -> Path:
        return self.folder / file.file

    def watch(self, settings: Settings, running: Mapping[str, Stream], spec_of: SpecOf) -> None:
        """What an update must fit from now on. spec_of: a stream's name, settings and a manifest to its spec."""
        with self._lock:
            self._settings, self._running, self._spec_of = settings, running, spec_of

    # --- what runs ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A process starts: those of its forerunners that ended badly within a phase are counted, before any model is
        loaded, and a model with too many of them is given up."""
        with self._lock:
            for name, entry in self.entries.items():
                if entry.phase == "none":
                    continue
                deaths = entry.deaths + entry.open
                if deaths >= DEATHS:
                    reason = f"the process died {deaths} times while it was tried"
                    self._hold(name, entry.given_up(), self._rolled_back(name, entry, reason, {}))
                else:
                    self._hold(name, replace(entry, deaths=deaths, open=True))
            self._clean()

    def end(self) -> None:
        """The process ends cleanly."""
        with self._lock:
            for name, entry in self.entries.items():
                if entry.open:
                    self._hold(name, replace(entry, open=False))

    def chosen(self, stream: str, settings: Settings) -> Chosen | None:
        """The file that a stream runs, None for the configured one. Where the configuration names another model than
        the one that the updates are of, it is right and they are over."""
        entry = self.entries.get(stream)
        if entry is None or (entry.active is None and entry.candidate is None):
            return None
        of = settings.streams[stream]
        try:
            _, digest = files.read_verified(choice.find(of.model, settings.folder, settings.agent.runtime))
        except ModelError as error:
            log.warning("streams.%s: the configured model is not there (%s)", stream, error)
            digest = entry.configured
        if digest != entry.configured or of.model_sha256 is not None:
            with self._lock:
                file = entry.active or entry.candidate
                assert file is not None
                event = self._event("rolled-back", stream, file, reason="the configuration names another model now")
                self._hold(stream, Entry(), event)
            return None
        return None if entry.active is None else Chosen(self.path(entry.active), entry.active)

    def unfit(self, stream: str, error: ModelError) -> None:
        """What `chosen` gave cannot be loaded: what ran before runs."""
        with self._lock:
            entry = self.entries[stream]
            reason = f"cannot be loaded: {error}"[:500]
            failed = replace(entry, candidate=None, phase="trial", spent=entry.spent)
            self._hold(stream, failed.given_up(), self._rolled_back(stream, failed, reason, {}))

    def opened(self, stream: str) -> None:
        """The candidate is about to be loaded into this process, whose end counts from here."""
        with self._lock:
            self._hold(stream, replace(self.entries[stream], open=True))

    def switch(self, stream: str, reason: str, figures: Mapping[str, Any]) -> None:
        """The candidate runs from now on, on trial. Raises OSError when the disk refuses; then nothing has changed."""
        with self._lock:
            entry = self.entries[stream]
            assert entry.candidate is not None
            event = self._event("switched", stream, entry.candidate, entry.before, reason, figures)
            self._set(stream, entry.switched(), event)

    def accept(self, stream: str, reason: str, figures: Mapping[str, Any]) -> None:
        """The trial is over, and well. Raises OSError."""
        with self._lock:
            entry = self.entries[stream]
            assert entry.active is not None
            event = self._event("accepted", stream, entry.active, entry.before, reason, figures)
            self._set(stream, entry.accepted(), event)
            log.info("streams.%s: %s has stood its trial", stream, entry.active.label)

    def give_up(self, stream: str, reason: str, figures: Mapping[str, Any]) -> None:
        """What is tried, or else what runs, has failed: what ran before runs. Raises OSError."""
        with self._lock:
            entry = self.entries[stream]
            self._set(stream, entry.given_up(), self._rolled_back(stream, entry, reason, figures))
            self._clean()

    def spend(self, stream: str, ms: int) -> None:
        """Time of the phase that is over, kept for the next start."""
        with self._lock:
            entry = self.entries[stream]
            self._hold(stream, replace(entry, spent=entry.spent + ms))

    # --- events -------------------------------------------------------------------------------------------------------

    def untold(self) -> tuple[dict[str, Any], ...]:
        """Events that the journal does not have."""
        return self._record.events

    def told(self, count: int) -> None:
        """The oldest `count` of them are there."""
        with self._lock:
            self._hold_record(replace(self._record, events=self._record.events[count:]))

    def _event(
        self, event: str, stream: str, file: File, previous: str = "", reason: str = "",
        figures: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, Any]:  # fmt: skip
        """previous: label of the other model."""
        body = {
            "event": event, "stream": stream, "model": file.name, "version": file.version, "sha256": file.sha256,
            "signer": file.signer, "origin": file.origin, "previous": previous, "reason": reason,
            "figures": dict(figures), "time": now(),
        }  # fmt: skip
        return {key: value for key, value in body.items() if value not in ("", {})}

    def _rolled_back(self, stream: str, entry: Entry, reason: str, figures: Mapping[str, Any]) -> dict[str, Any]:
        failed = entry.tried or entry.active
        assert failed is not None
        log.warning("streams.%s: %s is given up: %s", stream, failed.label, reason)
        return self._event("rolled-back", stream, failed, entry.before, reason, figures)

    # --- the file -----------------------------------------------------------------------------------------------------

    def _read(self) -> tuple[Record, str]:
        """What it says, and why it cannot be read."""
        path = self.folder / RECORD
        try:
            return decode(path.read_bytes()), ""
        except FileNotFoundError:
            return Record(), ""
        except (OSError, ValueError) as error:
            log.error("%s cannot be read (%s): the configured models run", path, error)  # noqa: TRY400
            return Record(), str(error)

    def _set(self, stream: str, entry: Entry, event: dict[str, Any] | None = None) -> None:
        """Raises OSError; then nothing has changed."""
        events = self._record.events if event is None else (*self._record.events, event)[-EVENTS:]
        record = Record(streams={**self._record.streams, stream: entry}, events=events)
        self._put(record)
        self._record = record

    def _hold(self, stream: str, entry: Entry, event: dict[str, Any] | None = None) -> None:
        """As `_set`, where it must be so whether the disk takes it or not: it will with the next change."""
        events = self._record.events if event is None else (*self._record.events, event)[-EVENTS:]
        self._hold_record(Record(streams={**self._record.streams, stream: entry}, events=events))

    def _hold_record(self, record: Record) -> None:
        self._record = record
        try:
            self._put(record)
        except OSError as error:
            log.error("%s cannot be written (%s)", self.folder / RECORD, error)  # noqa: TRY400

    def _put(self, record: Record) -> None:
        """Until it has succeeded, nobody knows what a failed one has left on the disk, and what that names."""
        self.problem = self.problem or "was not written"
        self._make_folder()
        disk.put(self.folder / RECORD, encode(record))
        self.problem = ""

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, parents=True)
            disk.sync_folder(self.folder.parent)

    def _clean(self) -> None:
        """Removes files that nothing names. While the record on disk is not known, they all stay."""
        if self.problem:
            return
        named = {file.sha256 for entry in self.entries.values() for file in entry.files} | self._coming
        litter.sweep(self.folder, named)


def now() -> int:
    """ms since 1970."""
    return time.time_ns() // 1_000_000
