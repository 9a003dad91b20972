"""Models over MQTT, the agent's side: offers and chunks in; requests for more, files that are whole, and progress out.

One download at a time; others wait, one for each stream. Nothing is asked for before a trusted key has signed it, and
what was not asked for is not kept. Knows no broker and no thread: called with messages and the present in seconds.
"""

import logging
from pathlib import Path

from transom.dialects import updates
from transom.dialects.updates import Offer, Progress, UpdateError
from transom.edge.arrival.admission import admit
from transom.edge.arrival.desk import Desk
from transom.edge.arrival.parts import Parts, unfinished
from transom.edge.remote import Bucket
from transom.errors import ModelError, TransomError

log = logging.getLogger(__name__)

RATE, BURST = 1.0, 8.0  # offers a second that are looked at, and at once
TOLD = 1.0  # seconds between two messages of progress
SILENT = 10.0  # seconds without a chunk after which it is told that nobody sends
TURN = 30.0  # seconds without one after which another update that waits has its turn
PATIENCE = 86_400.0  # seconds without one after which it is given up
ANSWERS = 64  # offers whose last word is remembered


class Receiver:
    """Of one agent. active: the digest of the file whose chunks are wanted, empty while none is."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._root = desk, desk.incoming / "mqtt"
        self.active = ""
        self._parts: Parts | None = None
        self._waiting: dict[str, Offer] = {}  # by stream
        self._answers: dict[str, Progress] = {}  # by push
        self._bucket, self._complaints = Bucket(RATE, BURST), Bucket(RATE, 1.0)
        self._heard = self._told = 0.0  # when a chunk came, and when progress was told
        self._last: Progress | None = None

    def resume(self, now: float) -> None:
        """Goes on with what an earlier run has left."""
        for stream, offer in unfinished(self._root):
            self._consider(stream, offer, now)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def offered(self, stream: str, payload: bytes, now: float) -> None:
        """An offer's message; empty when it was withdrawn."""
        if not payload:
            self._withdraw(stream)
            return
        try:
            offer = updates.decode_offer(payload)
        except UpdateError as error:
            self._desk.counts["unreadable"] += 1
            if self._complaints.take():
                log.warning("an offer of a model for %r is passed over: %s", stream[:80], error)
            return
        if self._parts is not None and self._parts.offer == offer and self._parts.stream == stream:
            self._parts.chunks.hurry()  # whoever says it again has it
            self._last = None
        elif not self._bucket.take():
            self._desk.counts["limited"] += 1  # whoever means it says it again
        elif offer.push in self._answers:
            self._desk.tell(self._answers[offer.push])
        else:
            self._consider(stream, offer, now)

    def chunk(self, number: int, data: bytes, now: float) -> None:
        """Of the active file. Raises nothing for a wrong one: it is counted, and still wanted."""
        if self._parts is None:
            return
        chunks = self._parts.chunks
        bad = chunks.bad
        try:
            kept = self._parts.write(number, data, now)
        except OSError as error:
            self._refuse(
                ModelError(str(self._parts.folder), f"cannot be written ({error.strerror})", "look at the disk")
            )
            return
        if kept:
            self._heard = now
            self._desk.counts["chunks"] += 1
        elif chunks.bad > bad:
            self._desk.counts["bad_chunks"] += 1
            if chunks.bad & bad == 0:  # the 1st, 2nd, 4th, 8th, …
                name, digest = self._parts.stream, self._parts.offer.sha256[:12]
                log.warning("streams.%s: chunk %d of %s… is not what was offered: passed over", name, number, digest)

    def hurry(self) -> None:
        """The connection is new: what was on its way is lost."""
        if self._parts is not None:
            self._parts.chunks.hurry()

    def _withdraw(self, stream: str) -> None:
        self._waiting.pop(stream, None)
        if self._parts is not None and self._parts.stream == stream:
            log.info("streams.%s: the offer of a model is withdrawn", stream)
            self._drop(self._parts)

    def _consider(self, stream: str, offer: Offer, now: float) -> None:
        running = self._desk.running.get(stream)
        if running is not None and running.sha256 == offer.sha256:
            self._answer(offer.push, _progress(stream, offer, "offered", offer.chunks, "it runs here already"))
            return
        told = _progress(stream, offer, "waiting")
        word = f"mqtt {stream} {offer.push} {offer.sha256}"
        if word in self._desk.handled:  # a restart, and the broker still has the offer
            self._answer(offer.push, _progress(stream, offer, "offered", offer.chunks))
            return
        try:
            admit(offer, stream, self._desk)
        except TransomError as error:
            self._answer(offer.push, self._desk.refuse(told, error), tell=False)
            return
        if self._parts is not None and self._parts.stream == stream:
            self._parts.close()  # the newer offer counts; if it is the same file its chunks are there
            self._parts, self.active = None, ""
        self._waiting.pop(stream, None)
        self._waiting[stream] = offer
        self._begin(now)

    # --- what is due --------------------------------------------------------------------------------------------------

    def step(self, now: float) -> float:
        """Does what is due; the seconds after which to call again, if nothing comes before."""
        if self._parts is not None and self._waiting and now - self._heard >= TURN:
            self._waiting[self._parts.stream] = self._parts.offer
            self._parts.close()
            self._parts, self.active = None, ""
        self._begin(now)
        parts = self._parts
        if parts is None:
            return PATIENCE
        if parts.chunks.complete:
            self._finish(parts)
            return 0.0
        if now - self._heard >= PATIENCE:
            self._refuse(ModelError("chunks", "none came for a day", "send it again: transom push"))
            return 0.0
        if wanted := parts.chunks.due(now):
            self._desk.send(updates.want(self._desk.settings.base, parts.offer.sha256, wanted))
        self._tell(parts, now)
        return min(parts.chunks.wait(now), TOLD if now - self._heard < SILENT + TOLD else TURN)

    def _begin(self, now: float) -> None:
        while self._parts is None and self._waiting:
            stream = next(iter(self._waiting))
            offer = self._waiting.pop(stream)
            try:
                kept = self._root.parents[1] / f"{offer.sha256}{offer.suffix}"  # it may have come before
                self._parts = Parts(self._root, stream, offer, kept)
            except (OSError, UpdateError) as error:
                problem = _disk(self._root, error) if isinstance(error, OSError) else error
                self._answer(offer.push, self._desk.refuse(_progress(stream, offer, "refused"), problem), tell=False)
                continue
            self.active, self._heard, self._last = offer.sha256, now, None
            log.info(
                "streams.%s: %s@%s is offered, %s bytes; %d of %d chunks are here",
                stream, offer.name, offer.version, f"{offer.size:,}", self._parts.chunks.received, offer.chunks,
            )  # fmt: skip

    def _tell(self, parts: Parts, now: float) -> None:
        silent = now - self._heard >= SILENT
        told = _progress(
            parts.stream, parts.offer, "waiting" if silent else "downloading", parts.chunks.received,
            "nobody sends: transom push" if silent else "",
        )  # fmt: skip
        if told != self._last and now - self._told >= TOLD:
            self._told, self._last = now, told
            self._desk.tell(told)

    def _finish(self, parts: Parts) -> None:
        offer, told = parts.offer, _progress(parts.stream, parts.offer, "verifying", parts.offer.chunks)
        try:
            model, signature = parts.whole()
        except (OSError, ModelError) as error:
            self._refuse(error if isinstance(error, ModelError) else _disk(parts.folder, error))
            return
        last = self._desk.hand_over(parts.stream, model, signature, told)
        if last.state == "offered":
            self._desk.handled.add(f"mqtt {parts.stream} {offer.push} {offer.sha256}")
        self._answer(offer.push, last, tell=False)
        self._drop(parts)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _refuse(self, error: ModelError) -> None:
        assert self._parts is not None
        parts, offer = self._parts, self._parts.offer
        told = _progress(parts.stream, offer, "refused", parts.chunks.received)
        self._answer(offer.push, self._desk.refuse(told, error), tell=False)
        self._drop(parts)

    def _drop(self, parts: Parts) -> None:
        parts.remove()
        self._parts, self.active = None, ""

    def _answer(self, push: str, last: Progress, *, tell: bool = True) -> None:
        while len(self._answers) >= ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[push] = last
        if tell:
            self._desk.tell(last)

    def close(self) -> None:
        if self._parts is not None:
            self._parts.close()
            self._parts, self.active = None, ""


def _disk(folder: Path, error: OSError) -> ModelError:
    return ModelError(str(folder), f"cannot be written ({error.strerror})", "look at the disk")


def _progress(stream: str, offer: Offer, state: updates.State, received: int = 0, reason: str = "") -> Progress:
    return Progress(
        stream=stream, sha256=offer.sha256, state=state, received=received, chunks=offer.chunks, push=offer.push,
        reason=reason,
    )  # fmt: skip
