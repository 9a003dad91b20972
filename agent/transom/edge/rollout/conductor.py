"""What becomes of a newer model, from the run loop: shadow, switch, trial, and the way back.

**shadow** the newer model is loaded beside the one that runs, starts from copies of its windows, and takes the same
turns. Within bounds for `models.shadow`, it is switched to; out of them, it is given up. **trial** it runs, and the one
before is its shadow, for `models.trial`. Out of bounds, the one before takes over again, with its own present windows.

The order of a switch, and of the way back (`Agent.go_on_with`), at the boundary of two turns:

1. what the turns so far have brought is committed, and a snapshot of the stream as it is goes into the journal;
2. `rollout.json` is replaced: from here on the other model runs;
3. a snapshot of the stream with the other model goes into the journal.

A process that is killed before 2 starts with the model that ran, after 2 with the other one, which takes over the
windows of the snapshot of 1 as it does in 3 (`core/adoption`). There are no turns after the snapshot of 1, so none that
one model has told of and the other would take again. No moment has no model, or lacks a window.

A shadow does not survive its process: it begins again from the live windows, and the time of the phase goes on.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from transom.core.pipeline import Pipeline, Turn
from transom.edge.assembly import stream_spec
from transom.edge.requests import RequestError
from transom.edge.rollout import telling
from transom.edge.rollout.attempt import Attempt, open_other
from transom.edge.rollout.comparison import Comparison
from transom.edge.rollout.record import Entry
from transom.edge.rollout.shadow import Load, Seen, Shadow
from transom.edge.rollout.store import Store
from transom.edge.turns import Done
from transom.errors import ModelError
from transom.runtimes.trust import Voucher

if TYPE_CHECKING:
    from transom.edge.service import Agent

log = logging.getLogger(__name__)

LOOK = 0.5  # seconds between two looks at the figures
SPEND = 600.0  # seconds after which the time of a phase is written down
AGAIN = 60.0  # seconds until a change is tried again that the disk has refused
PAUSE = 0.2  # seconds that the run loop waits for the shadow to be where the live model is, before a switch
CATCH_UP = 10.0  # seconds after which a switch is made without it: the newer model then learns from the last windows


class Rollouts:
    """Of one agent, in its run loop's thread."""

    def __init__(self, agent: "Agent", store: Store) -> None:
        self._agent, self.store = agent, store
        self._attempts: dict[str, Attempt] = {}
        self._watched: Pipeline | None = None
        self._looked = 0.0

    # --- each turn ----------------------------------------------------------------------------------------------------

    def land(self, done: Done) -> None:
        """A turn that the live pipeline has taken."""
        for name, one in self._attempts.items():
            stream = self._agent.pipeline.streams.get(name)
            if stream is not None:
                one.refused += len(done.work.turn.refused)
                live = [batch for batch in done.events.predictions if batch.stream == name]
                one.shadow.feed(Seen(done.work.turn, live, stream.judge.counts["alerts"]))

    def look(self) -> None:
        """Does what is due. To be called between turns."""
        now = time.monotonic()
        if self._watched is not self._agent.pipeline:
            self._watch()
        self._tell()
        if self.store.take():
            self._agent.tell_models()
        elif now < self._looked + LOOK:
            return
        self._looked = now
        for name in list(self._agent.pipeline.streams):
            entry = self.store.entries.get(name)
            if entry is not None and (entry.phase != "none" or name in self._attempts):
                self._step(name, entry, now)

    def _watch(self) -> None:
        """Another pipeline runs, and perhaps with other settings."""
        agent = self._agent
        self._watched = agent.pipeline
        self.store.watch(agent.settings, agent.pipeline.streams, stream_spec)
        for name, one in list(self._attempts.items()):
            stream = agent.pipeline.streams.get(name)
            if stream is None or stream.model is not one.live:
                self._drop(name)

    def _tell(self) -> None:
        """Events go the way of alerts: into the journal, then to the broker."""
        events = self.store.untold()
        if events:
            agent = self._agent
            agent.keeper.add(Turn(), (), (), [telling.event(agent.base, body) for body in events])
            agent.commit()
            self.store.told(len(events))

    def _step(self, name: str, entry: Entry, now: float) -> None:
        one = self._attempts.get(name)
        if one is not None and (one.phase != entry.phase or one.file != entry.tried):
            self._drop(name)  # a newer candidate has come, or the configuration names another model
            if entry.phase == "none":
                return
            one = None
        if one is None:
            one = self._begin(name, entry)
        shadow = one.shadow
        if shadow.problem and entry.phase != "trial":
            self._broken(name, entry, one)
            return
        if shadow.wants_state:
            self._agent.settle()
            pipeline = self._agent.pipeline
            shadow.begin(pipeline.snapshot([name]), pipeline.streams[name].judge.counts["alerts"])
            one.start(now)
        if one.began is None or now < one.not_before:
            return
        if now - one.marked >= SPEND:
            self._spend(name, one, now)
            entry = self.store.entries[name]
        action, reason = one.decide(entry, self._agent.settings.models, self._agent.pipeline.streams[name], now)
        figures = shadow.comparison.figures()
        if action == "give up":
            self._end(name, one, partial(self.store.give_up, name, reason, figures))
        elif action == "accept":
            self._end(name, one, partial(self.store.accept, name, reason, figures))
        elif action == "switch":
            self._change(name, one, partial(self.store.switch, name, reason, figures), now)
        elif action == "go back":
            self._change(name, one, partial(self.store.give_up, name, reason, figures), now)

    # --- beginning and end of an attempt ------------------------------------------------------------------------------

    def _begin(self, name: str, entry: Entry) -> Attempt:
        if entry.phase == "shadow":
            self.store.opened(name)
        vouchers: list[Voucher] = []
        return self._attempt(
            name, entry, partial(open_other, name, entry, self.store, self._agent.settings, vouchers), vouchers
        )

    def _attempt(self, name: str, entry: Entry, load: Load, vouchers: list[Voucher]) -> Attempt:
        """load: gives what runs beside the live model."""
        pipeline = self._agent.pipeline
        live = pipeline.streams[name]
        step = live.spec.grid.step
        shadow = Shadow(
            name, load, live.model, Comparison(live.spec.stride, step * 1000 if step else None),
            new_is_live=entry.phase != "shadow", own_prefix=pipeline.own_prefix,
        )  # fmt: skip
        one = self._attempts[name] = Attempt(entry.phase, entry.tried, live.model, shadow, vouchers)
        if entry.phase == "trial":
            one.start(time.monotonic())  # it runs, whether what ran before can be loaded or not
        return one

    def _drop(self, name: str) -> None:
        one = self._attempts.pop(name)
        one.shadow.close()
        entry = self.store.entries.get(name)
        if entry is not None and one.phase == entry.phase and one.file == entry.tried:
            self._spend(name, one, time.monotonic())

    def _spend(self, name: str, one: Attempt, now: float) -> None:
        if one.began is not None and one.phase != "none":
            self.store.spend(name, round(1000 * (now - one.marked)))
            one.marked = now

    def _broken(self, name: str, entry: Entry, one: Attempt) -> None:
        """What should run beside the live model does not."""
        if entry.phase == "shadow":
            self._end(name, one, partial(self.store.give_up, name, one.shadow.problem, {}))
        else:
            log.error("streams.%s: cannot go back: %s", name, one.shadow.problem)
            self._drop(name)

    def close(self, *, clean: bool) -> None:
        """The process ends."""
        now = time.monotonic()
        for name, one in self._attempts.items():
            one.shadow.close()
            if clean:
                self._spend(name, one, now)
        self._attempts.clear()
        if clean:
            self.store.end()

    # --- what is done -------------------------------------------------------------------------------------------------

    def _end(self, name: str, one: Attempt, write: Callable[[], None]) -> None:
        """The live model stays, and the attempt is over."""
        if self._written(one, write):
            self._drop(name)
            self._agent.tell_models()

    def _change(self, name: str, one: Attempt, write: Callable[[], None], now: float) -> None:
        """The shadow's model runs from here on, and the live one no more."""
        agent, shadow = self._agent, one.shadow
        if shadow.loaded is None or agent.keeper.problem or agent.reloading:
            return  # not while the journal is off, nor while another configuration is being built
        agent.settle()
        one.late_since = now if one.late_since is None else one.late_since
        state = shadow.state(PAUSE)
        if state is None and now - one.late_since < CATCH_UP:
            return
        before, voucher = agent.pipeline.streams[name], agent.vouchers.get(name)
        try:
            pipeline = agent.pipeline.with_model(*shadow.loaded, state)
        except (ModelError, ValueError, KeyError, TypeError) as error:  # whatever was checked before
            shadow.problem = f"cannot take over ({type(error).__name__}: {error})"
            return
        if not self._written(one, lambda: agent.go_on_with(pipeline, write)):
            return
        agent.vouchers = {**agent.vouchers, name: one.vouchers[0]}
        shadow.close()
        del self._attempts[name]
        self._watch()
        entry = self.store.entries[name]
        if entry.phase == "trial":  # what ran until now goes on as the shadow
            loaded = before.spec, before.model
            after = self._attempt(name, entry, lambda: loaded, [voucher] if voucher else [])
            state = {**pipeline.snapshot([]), "streams": {name: before.snapshot()}}
            after.shadow.begin(state, before.judge.counts["alerts"])
        log.info("streams.%s: %s runs from here on", name, pipeline.streams[name].model.manifest.label)
        agent.tell_models()

    def _written(self, one: Attempt, write: Callable[[], None]) -> bool:
        try:
            write()
        except OSError as error:
            one.not_before = time.monotonic() + AGAIN
            log.error("%s cannot be written (%s): trying again in %.0f s", self.store.folder, error, AGAIN)  # noqa: TRY400
            return False
        return True

    # --- what people see and say --------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Of each stream with a model that is tried: the phase, how long it still takes, and the figures."""
        now, models = time.monotonic(), self._agent.settings.models
        return {
            name: telling.state(entry, one.left(entry, models, now) / 1000, one.shadow.comparison.figures())
            for name, one in self._attempts.items()
            if (entry := self.store.entries.get(name)) is not None and entry.tried is not None
        }

    def versions(self) -> dict[str, dict[str, Any]]:
        """Of each stream: the version that runs and the latest that is here."""
        entries = self.store.entries
        return {
            name: telling.versions(stream.model.manifest, entries.get(name))
            for name, stream in self._agent.pipeline.streams.items()
        }

    def steer(self, verb: str, name: str) -> dict[str, Any]:
        """A person wants the phase to end: `accept` or `rollback`. Raises RequestError where there is none."""
        if name not in self._agent.pipeline.streams:
            known = ", ".join(sorted(self._agent.pipeline.streams)[:10])
            raise RequestError("stream", f"there is no {name!r}", f"there are {known}")
        entry = self.store.entries.get(name) or Entry()
        file = entry.tried or (entry.active if verb == "rollback" else None)
        if file is None:
            why = "no newer model is tried" if verb == "accept" else "runs the configured model"
            raise RequestError("stream", f"{name}: {why}", "see transom rollout")
        one = self._attempts.get(name)
        if one is None or one.phase != entry.phase:
            one = self._begin(name, entry)
        one.wish = verb
        will = "roll back" if verb == "rollback" else "switch" if entry.phase == "shadow" else "accept"
        return {"stream": name, "model": file.label, "phase": entry.phase, "will": will}
