"""Remote calls: requests on BASE/request/<verb>, each answered on BASE/response/<verb>. Off unless allowed.

Messages of the inbox in, calls for the pipeline and publications out. All of it happens in the run loop's thread, but
for explanations. What a call changes is part of a turn, so it is kept like a reading.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from transom import __version__
from transom.core import explain as explaining
from transom.core.attention import Call
from transom.core.ordinary import Ordinary
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import Stream
from transom.dialects import explanations
from transom.dialects.plain import Publication
from transom.dialects.privacy import Privacy, Rule
from transom.edge import calls, pseudonyms
from transom.edge.explainer import Explainer
from transom.edge.requests import NAMES, Explain, OfStream, Request, RequestError, decode, id_of, unknown
from transom.errors import TransomError

log = logging.getLogger(__name__)

RATE, BURST = 5.0, 20.0  # calls a second, and at once
REFUSALS = 1.0  # a second of the calls beyond that are told so
LARGEST = 1 << 15  # values of a window that is explained: the answer has each twice
VERB = 32  # characters of a verb that is answered

Steer = Callable[[str, str], dict[str, Any]]  # verb and stream to what will be done; raises RequestError
Segment = tuple[list[Message], Sequence[Message]]


class Bucket:
    """rate: a second, burst: at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._left, self._then = rate, burst, burst, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._left + self._rate * (now - self._then), self._burst)
        self._then = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Remote:
    """allowed: verbs that are done; ask_reload: None where there is no configuration to read again; steer: ends a trial
    of a newer model, None where there are none."""

    def __init__(
        self, base: str, allowed: Sequence[str], ask_reload: Callable[[], None] | None, privacy: Privacy | None = None,
        steer: Steer | None = None,
    ) -> None:  # fmt: skip
        """privacy: what may be answered and how series are called, all and by their names if None."""
        self._base, self._ask_reload, self._privacy = base, ask_reload, privacy or Privacy(Rule())
        self._steer = steer
        self._prefix = f"{base}/request/"
        self.allow(allowed)
        self._calls, self._refusals = Bucket(RATE, BURST), Bucket(REFUSALS, REFUSALS)
        self._answers: list[Publication] = []
        self._reloads: list[str | int] = []
        self._explainer = Explainer()
        self._ordinary: dict[str, Ordinary] = {}
        self._watched: Pipeline | None = None
        self._started = time.monotonic()
        self.counts: Counter[str] = Counter()

    def allow(self, verbs: Sequence[str]) -> None:
        """Other verbs from now on."""
        self.allowed = frozenset(verbs) | ({"unmute"} if "mute" in verbs else frozenset())
        self._watched = None

    @property
    def filters(self) -> list[str]:
        """What to subscribe to: nothing while nothing is allowed."""
        return [f"{self._prefix}+"] if self.allowed else []

    def watch(self, pipeline: Pipeline) -> None:
        """Keeps windows to explain others by, where that is allowed; to be called before each turn."""
        if self._watched is pipeline:
            return
        self._watched = pipeline
        wanted = "explain" in self.allowed
        for stream in pipeline.streams.values():
            stream.onlooker = None
        before, self._ordinary = self._ordinary, {}
        for name, stream in pipeline.streams.items() if wanted else ():
            self._ordinary[name] = Ordinary(stream)
            if name in before:
                self._ordinary[name].take_over(before[name])

    # --- requests -----------------------------------------------------------------------------------------------------

    def split(self, messages: Sequence[Message]) -> list[Segment]:
        """Requests, and the other messages that follow them: a call acts between those before and after it. Calls
        beyond the rate are refused here, so that they cut nothing into pieces."""
        at = [i for i, m in enumerate(messages) if m.topic.startswith(self._prefix)] if self.allowed else []
        if not at:
            return [([], messages)]
        admitted = {i for i in at if self._admitted(messages[i])}
        requests: list[Message] = []
        others: list[Message] = []
        segments: list[Segment] = []
        begin = 0
        for i in at:
            others += messages[begin:i]
            begin = i + 1
            if i not in admitted:
                continue
            if others:
                segments.append((requests, others))
                requests, others = [], []
            requests.append(messages[i])
        segments.append((requests, [*others, *messages[begin:]]))
        return segments

    def shed(self, topics: dict[str, int]) -> dict[str, int]:
        """Without the requests that the inbox had to drop, which are counted."""
        mine = [t for t in topics if t.startswith(self._prefix)] if self.allowed else []
        if mine:
            self.counts["shed"] += sum(topics[t] for t in mine)
        return {t: n for t, n in topics.items() if t not in mine} if mine else topics

    def _admitted(self, message: Message) -> bool:
        if message.retained:
            self.counts["retained"] += 1  # whoever stored it may have meant yesterday
            return False
        if self._calls.take():
            return True
        self.counts["limited"] += 1
        if self._refusals.take():
            error = RequestError("request", f"more than {RATE:g} calls a second", "call again later")
            self._refuse(message.topic.removeprefix(self._prefix), id_of(message.payload), error)
        return False

    def handle(self, requests: Sequence[Message], pipeline: Pipeline) -> list[Call]:
        """What these requests want of the pipeline, as it is now; answers are kept until `answers`."""
        wanted: list[Call] = []
        if requests:
            self.watch(pipeline)
        for message in requests:
            verb = message.topic.removeprefix(self._prefix)
            request = None
            try:
                request = pseudonyms.inner(self._read(verb, message.payload), pipeline, self._privacy)
                wanted += self._do(verb, request, message.received * 1000, pipeline)
                self.counts[verb] += 1
            except TransomError as error:
                self.counts["refused"] += 1
                self._refuse(verb, id_of(message.payload), pseudonyms.refused(error, request, self._privacy))
        return wanted

    def _read(self, verb: str, payload: bytes) -> Request:
        if verb not in NAMES:
            raise unknown(verb[:VERB])
        if verb not in self.allowed:
            allowed = ", ".join(sorted(self.allowed))
            raise RequestError(f"request/{verb}", "is not allowed here", f"allowed: {allowed}; see agent.remote")
        return decode(verb, payload)

    def _do(self, verb: str, request: Request, at: int, pipeline: Pipeline) -> list[Call]:
        """at: µs since 1970, when the request came."""
        changed = calls.change(request, at, pipeline)
        if changed is not None:
            call, body = changed
            self._answer(verb, request.id, pseudonyms.outer(body, self._privacy))
            return [call]
        if isinstance(request, Explain):
            self._explain(request, pipeline)
        elif isinstance(request, OfStream):
            if self._steer is None:
                raise RequestError(verb, "this agent takes no newer models", "start it with transom run")
            self._answer(verb, request.id, self._steer(verb, request.stream))
        elif verb == "reload":
            if self._ask_reload is None:
                raise RequestError("reload", "this agent was given no configuration", "start it with transom run")
            self._ask_reload()
            self._reloads.append(request.id)
        else:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._answer(verb, request.id, {
                "version": __version__, "time": now, "uptime_s": round(time.monotonic() - self._started, 1),
                "allowed": sorted(self.allowed),
            })  # fmt: skip
        return []

    def _explain(self, request: Explain, pipeline: Pipeline) -> None:
        stream = calls.stream_of(request.stream, pipeline)
        series = calls.series_of(stream, request.series)
        ordinary = self._ordinary[request.stream]
        last = ordinary.window(series)
        if last is None:
            raise RequestError("series", f"{request.series!r} has no window yet", "wait for its readings")
        window, end = last
        m = stream.model.manifest
        if window.size > LARGEST:
            raise RequestError("stream", f"a window of {window.size:,} values", "explain it from a recording")
        against, words = explaining.reference(m, window, ordinary.reference(series))
        place = explanations.Place(
            stream.spec.name, self._privacy.name(request.series), m.label, stream.intake.labels[series],
            stream.intake.units(series), end,
            stream.spec.grid.step, words, explanations.note(m),
        )  # fmt: skip
        job = partial(_explained, stream, window, against, request, place, self._privacy)
        if not self._explainer.submit(request.id, job):
            raise RequestError("explain", "too many explanations wait", "call again later")

    # --- answers ------------------------------------------------------------------------------------------------------

    def reloaded(self, problems: Sequence[TransomError]) -> None:
        """A configuration has been read again: taken, or refused for these problems."""
        waiting, self._reloads = self._reloads, []
        for request in waiting:
            if problems:
                n = len(problems)
                why = str(problems[0]) if self._privacy.off else "see its log"  # a problem quotes the configuration
                text = f"the new configuration is refused, the old one goes on: {why}"
                self._refuse("reload", request, RequestError("reload", text, f"{n} problems in the log" if n > 1 else
                                                             "mend it and call again"))  # fmt: skip
            else:
                self._answer("reload", request, {"reloaded": True})

    def answers(self) -> list[Publication]:
        """What is to be published, once what it says is kept."""
        for request, found in self._explainer.done():
            if isinstance(found, TransomError):
                self._refuse("explain", request, found)
            else:
                self._answer("explain", request, found)
        answers, self._answers = self._answers, []
        return answers

    def _answer(self, verb: str, request: str | int | None, body: dict[str, Any]) -> None:
        payload = msgspec.json.encode({"id": request, **body})
        self._answers.append(Publication(f"{self._base}/response/{verb}", payload, 1, False))

    def _refuse(self, verb: str, request: str | int | None, error: TransomError) -> None:
        log.info("a call is refused: %s", "".join(c if c.isprintable() else "?" for c in str(error))[:300])
        if len(verb) <= VERB and verb.isprintable() and verb and "/" not in verb:
            told = {"place": error.place, "problem": error.problem, "remedy": error.remedy}
            self._answer(verb, request, {"error": told})


def _explained(
    stream: Stream, window: Any, against: Any, request: Explain, place: explanations.Place, privacy: Privacy
) -> Any:
    found = explaining.explain(stream.model, window, against, request.target, request.pieces, request.method)
    return privacy.explanation(explanations.body(found, place), stream.spec.name)
