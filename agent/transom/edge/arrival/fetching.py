"""Models by HTTPS: each stream's update_url is fetched once, with pauses that grow while it fails, and handed over.

The digest stands in the configuration: a file with any other is refused. Whoever changes url or digest there begins a
new one at the next reload.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from transom.dialects.updates import Progress
from transom.edge.arrival import https
from transom.edge.arrival.desk import Desk
from transom.edge.arrival.https import AbsentError, FetchError
from transom.edge.arrival.parts import remove
from transom.errors import ModelError
from transom.runtimes import trust

log = logging.getLogger(__name__)

PAUSE, LONGEST = 5.0, 3600.0  # seconds before it is tried again: at first, and at most
TRIES = 24  # failures in a row without a byte after which it is given up
TOLD = 1.0  # seconds between two messages of progress


class Wanted(NamedTuple):
    stream: str
    url: str
    sha256: str

    @property
    def word(self) -> str:
        return f"https {self.stream} {self.sha256}"


class _Try(NamedTuple):
    """due: when it is tried next; failures: in a row."""

    due: float = 0.0
    failures: int = 0


class Fetching:
    """`step` is to be called again and again, by one thread. pause: waits seconds and says whether to end."""

    def __init__(self, desk: Desk, pause: Callable[[float], bool] = lambda _: False) -> None:
        self._desk, self.pause = desk, pause
        self._tries: dict[Wanted, _Try] = {}
        self._over: set[Wanted] = set()  # refused, until the configuration says something else

    def step(self) -> float:
        settings = self._desk.settings
        wanted = [
            Wanted(name, s.update_url, s.update_sha256)
            for name, s in settings.streams.items()
            if s.update_url is not None and s.update_sha256 is not None and "https" in settings.models.updates
        ]
        self._over &= set(wanted)
        open_ = [w for w in wanted if w not in self._over and w.word not in self._desk.handled]
        self._tries = {w: self._tries.get(w, _Try()) for w in open_}
        now = time.monotonic()
        for one in open_:
            if self._tries[one].due <= now:
                self._try(one)
        left = [t.due for w, t in self._tries.items() if w not in self._over and w.word not in self._desk.handled]
        return max(0.0, min(left) - time.monotonic()) if left else float("inf")

    def _try(self, one: Wanted) -> None:
        folder = self._desk.incoming / "https" / one.sha256
        part = folder / f"model{'.onnx' if urlsplit(one.url).path.endswith('.onnx') else '.pt'}"
        told = Progress(stream=one.stream, sha256=one.sha256, state="downloading", origin="https")
        before = _size(part)
        self._over.add(one)  # first: what fails in a way nobody foresaw fails once
        try:
            self._desk.stream(one.stream)
            if not before:
                log.info("streams.%s: fetching %s", one.stream, https.shown(one.url))
            self._download(one, part, told)
        except FetchError as error:
            self._later(one, error, told, came=_size(part) > before)
        except (ModelError, OSError) as error:
            problem = error if isinstance(error, ModelError) else ModelError(
                str(folder), f"cannot be written ({error.strerror})", "look at the disk"
            )  # fmt: skip
            self._desk.refuse(told, problem)
            remove(folder)

    def _download(self, one: Wanted, part: Path, told: Progress) -> None:
        models = self._desk.settings.models
        director = https.opener(models.updates_ca_file)
        self._desk.room(_size(part) or 1)
        part.parent.mkdir(parents=True, exist_ok=True)
        last = [0.0]

        def on_size(have: int, total: int) -> bool:
            if have == total or time.monotonic() - last[0] >= TOLD:
                last[0] = time.monotonic()
                self._desk.room(total or have)
                self._desk.tell(
                    Progress(stream=one.stream, sha256=one.sha256, state="downloading", received=have, chunks=total,
                             origin="https")
                )  # fmt: skip
            return not self.pause(0.0)

        resumed = _size(part) > 0
        https.fetch(director, one.url, part, models.updates_largest, on_size)
        found = _digest(part)
        if found != one.sha256 and resumed:  # another file may have been put there in between: once from the start
            part.unlink()
            https.fetch(director, one.url, part, models.updates_largest, on_size)
            found = _digest(part)
        if found != one.sha256:
            raise ModelError(
                https.shown(one.url), f"has the SHA-256 {found[:12]}… and update_sha256 says {one.sha256[:12]}…",
                "correct the digest if the file is the right one",
            )  # fmt: skip
        signature: Path | None = trust.signature_path(part)
        assert signature is not None
        signature.unlink(missing_ok=True)
        try:
            https.fetch(director, https.signature_url(one.url), signature, trust.MAX_SIGNATURE, lambda *_: True)
        except AbsentError as error:
            log.info("streams.%s: no signature: %s", one.stream, error)
            signature.unlink(missing_ok=True)
            signature = None
        size = _size(part)
        told = Progress(
            stream=one.stream, sha256=one.sha256, state="verifying", received=size, chunks=size, origin="https"
        )
        if self._desk.hand_over(one.stream, part, signature, told).state == "offered":
            self._desk.handled.add(one.word)
        remove(part.parent)

    def _later(self, one: Wanted, error: FetchError, told: Progress, *, came: bool) -> None:
        failures = 1 if came else self._tries[one].failures + 1
        if failures >= TRIES:
            problem = ModelError(error.place, f"{error.problem}, {failures} times", "mend that and restart the agent")
            self._desk.refuse(told, problem)
            return
        pause = min(PAUSE * 2 ** (failures - 1), LONGEST)
        log.warning("streams.%s: %s; the next try is in %g s", one.stream, error, pause)
        self._tries[one] = _Try(time.monotonic() + pause, failures)
        self._over.discard(one)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
