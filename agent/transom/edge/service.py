"""The run loop: drain, process, keep, publish, and now and then say how it goes. One thread owns all state.

Settings and a pipeline in, publications out. Ends within seconds of `stop`, with everything saved.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from transom.core.attention import Call
from transom.core.events import Events
from transom.core.pipeline import Message, Pipeline, Turn
from transom.dialects.plain import Publication, drift_body
from transom.edge import logs, observe, reports
from transom.edge.assembly import Assembly
from transom.edge.clock import Clock
from transom.edge.hearing import Absence
from transom.edge.homeassistant import Discovery
from transom.edge.inbox import Drained, Inbox
from transom.edge.journal import Journal
from transom.edge.keeper import Keeper
from transom.edge.mqtt import Connection
from transom.edge.outbox import Outbox
from transom.edge.reload import RESTART, Reload
from transom.edge.remote import Remote
from transom.edge.systemd import Supervisor
from transom.edge.turns import Done, Turns, Work
from transom.edge.web import Web
from transom.edge.wire import broker_options
from transom.settings import AgentSettings, Settings

log = logging.getLogger(__name__)

TURN = 0.25  # seconds without a message after which idle series are looked for, and seconds between two such looks
SHUTDOWN = 3.0  # seconds that a clean end may take; the interpreter takes up to two more on a busy machine
DRAIN = 1.0  # seconds of it for what waits in the inbox
PORTION = 1000  # messages processed then at a time


class Agent:
    """Runs one pipeline against one broker."""

    def __init__(
        self, settings: Settings, assembly: Assembly, on_events: Callable[[Events, int], None] | None = None,
        reload: Reload | None = None, supervisor: Supervisor | None = None,
    ) -> None:  # fmt: skip
        """on_events: told of each batch of events with the present (ms since 1970), in the run loop's thread.
        supervisor: told how it goes; nobody if None."""
        self.settings, self.broken, self._vouchers = settings, assembly.broken, assembly.vouchers
        self._on_events, self._reload = on_events, reload
        self._supervisor, self._sentence = supervisor or Supervisor({}), reports.Sentence()
        self.base = settings.base
        self.latencies = observe.Latencies()
        self.ready = threading.Event()
        a = settings.agent
        self._inbox = Inbox(a.inbox)
        journal = None if a.durability == "none" else Journal(a.state, a.durability)
        self._keeper = Keeper(journal, a.commit_every / 1000)
        self._turns = Turns(assembly.pipeline, settings.base, self._keeper.rebuild)
        self._outbox = Outbox(a.outbox, a.max_age, self._keeper.waiting)
        self._remote = Remote(settings.base, a.remote, reload.ask if reload is not None else None)
        self._discovery = Discovery(settings)
        self._connection: Connection | None = None
        self._clock, self._now = Clock(), 0  # ms since 1970, when the latest turn began
        self._absence = Absence()
        self._ticked = 0.0
        self._noted: list[Any] | None = None  # what was noted last
        self._overload = observe.Overload()
        self._turned = time.monotonic()  # when the latest turn began
        self._losses, self._rate = observe.Losses(), observe.Rate()
        self._state = ""
        self._started = time.monotonic()
        self._web = Web(settings.http)

    @property
    def pipeline(self) -> Pipeline:
        return self._turns.pipeline

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Blocks until `stop` is set; then what has arrived is processed, saved and told before it returns."""
        self._web.open()  # first: it says that the agent is starting, which may take a while
        self._supervisor.say("restoring what was saved")
        try:
            self._restore()
            self._rate.of(self._received())
            self._watch(self._connect(self._subscriptions()), stop)
        finally:
            self._web.close()

    def _watch(self, connection: Connection, stop: threading.Event) -> None:
        next_health = time.monotonic() + self.settings.agent.health_every / 1000
        try:
            while not stop.is_set():
                self._turned = time.monotonic()
                self._supervisor.alive()
                due = 0.0 if self._turns.under_way else self._keeper.wait()
                self._inbox.wait(TURN if due is None else min(TURN, due))
                connection.wait_writable()
                self._turn(self._inbox.drain())
                connection = self._reloaded()
                if self._reload is not None and (problems := self._reload.concluded()) is not None:
                    self._remote.reloaded(problems)
                if not self.ready.is_set() and connection.ready:
                    self.ready.set()
                    self._supervisor.say_ready(self._doing())
                    log.info("ready: watching %s on %s", ", ".join(self.pipeline.filters), self.settings.broker.host)
                if self._keeper.retry_due:
                    self._try_again()
                if self._status_word() != self._state:
                    self._say_status()
                self._web.tend(self._snapshot)
                if self._supervisor.asks:
                    self._supervisor.say(self._doing())
                if time.monotonic() >= next_health:
                    self._say_health()
                    next_health = time.monotonic() + self.settings.agent.health_every / 1000
            self._web.stopping()
            self._close()
        except BaseException:
            self._abandon()
            raise

    def _turn(self, drained: Drained) -> None:
        assert self._connection is not None
        messages, tokens, marks, again = self._keeper.redelivered.split(drained.messages, drained.tokens)
        self._now, jump = self._clock.look()
        jump += self._gone()
        tick, shed = self._tick(self._now, bool(messages)), self._remote.shed(drained.shed)
        messages = self._discovery.take(messages)
        segments = self._remote.split(messages)
        for requests, part in segments[:-1]:  # a call acts between the messages before and after it
            self._one(requests, Work(Turn(part, jump=jump, shed=shed)), ahead=False)
            jump, shed = 0, {}
        requests, part = segments[-1]
        asked = len(part) < len(messages)
        work = Work(Turn(part, tick, jump, shed), tokens, marks, again)
        self._one(requests, work, ahead=len(self._inbox) > 0 and not asked)
        self._overload.look(self._connection.held_back)
        if self._keeper.wait() == 0.0 or asked:  # what a call has changed is kept, then told
            self._commit()
        self._outbox.flush(self._now, self._connection)
        for answer in self._remote.answers():
            self._connection.publish(answer)
        self._discovery.speak(self.pipeline, self._connection, time.monotonic())

    def _one(self, requests: Sequence[Message], work: Work, *, ahead: bool) -> None:
        """A turn, and before its messages what these requests want."""
        wanted = self._keeper.wants_pipeline
        if wanted or requests:
            ahead = False
            self._turns.settle(self._land)
        if wanted:
            self._keeper.remember(self.pipeline)
        self._remote.watch(self.pipeline)
        if requests:
            work.turn = work.turn._replace(calls=self._remote.handle(requests, self.pipeline))
        self._turns.take(work, self._land, ahead=ahead)

    def _land(self, done: Done) -> None:
        """What came of a turn: predictions go, alerts are kept."""
        assert self._connection is not None
        turn, events, work = done.work.turn, done.events, done.work
        alerts = [p for p in done.publications if p.qos]
        self._outbox.predict((p for p in done.publications if not p.qos), self._now, self._connection)
        if turn.messages:
            present = time.time_ns() // 1_000_000
            self.latencies.add([present - m.received for m in turn.messages])
        tokens = [*work.tokens, *work.again]
        if turn.messages or turn.calls or tokens or alerts or events.moved or turn.jump or turn.shed or turn.refused:
            self._keeper.add(turn, tokens, work.marks, alerts)
        if self._on_events is not None:
            self._on_events(events, self._now)

    def _tick(self, now: int, busy: bool) -> int | None:
        """The present, when it is time to look for idle series: never while the broker is away, for then silence says
        nothing of the sensors, and not before what waited at the broker has arrived."""
        assert self._connection is not None
        connection, present = self._connection, time.monotonic()
        if (
            present < max(self._ticked + TURN, self._turns.untick)
            or not connection.ready
            or self._absence.on
            or connection.hearing.silent
        ):
            return None
        if busy and len(self._inbox) > 0:
            return None
        self._ticked = present
        return now

    def _gone(self) -> int:
        """ms for which nothing could come, once it can again: no broker, a silent link, or this process was stopped."""
        assert self._connection is not None
        connection, now = self._connection, time.monotonic()
        connection.hearing.patience = self._patience()
        gone = round(1000 * self._absence.look(now, connection.hearing.gaps(), away=not connection.ready))
        if gone:
            self._ticked = now + TURN  # what waited at the broker comes first
        return gone

    def _patience(self) -> float | None:
        """Seconds that the link may be silent: half of what a series may be."""
        limits = [s.grid.stale_after for s in self.pipeline.streams.values() if s.grid.stale_after is not None]
        return min(limits) / 2e6 if limits else None

    def _commit(self) -> None:
        assert self._connection is not None
        self._keep_notes()
        committed = self._keeper.commit(self.pipeline if self._turns.settled else None, self._outbox.done())
        self._outbox.alert(committed.alerts)
        self._outbox.unsaved(committed.unsaved)
        self._outbox.undone(committed.undone)
        self._connection.acknowledge(committed.tokens)

    def _keep_notes(self) -> None:
        assert self._connection is not None
        subscribed = self._connection.subscribed
        if subscribed is None or not self._connection.ready:
            return
        note = [self.settings.broker.host, self.settings.broker.port, subscribed]
        if self._noted != note:
            self._noted = note
            self._keeper.note("subscribed", note)

    def _try_again(self) -> None:
        self._turns.settle(self._land)
        other = self._keeper.reopen()
        if other is None:
            return
        if other:
            self._outbox.moved()
            self._noted = None
        self._keep_notes()
        done = self._outbox.done()
        ids = self._keeper.resume(self.pipeline, self._outbox.rescue(), done)
        if ids is None:
            self._outbox.undone(done)
        else:
            self._outbox.rescued(ids)

    # --- beginning, change and end ------------------------------------------------------------------------------------

    def _restore(self) -> None:
        fresh, last = self._keeper.start(self.pipeline)
        for name in fresh:
            log.warning("streams.%s: starts anew, its model or shape has changed since the state was saved", name)
        if last is None:
            return
        now, _ = self._clock.look()
        # While the agent was away nobody listened: silence is not counted for that time.
        jump = Turn(jump=now - last, calls=_configured(self.pipeline))
        self.pipeline.take(jump)
        self._keeper.add(jump, (), (), ())
        log.info("state restored: %s series", sum(a["series"] for a in self.pipeline.accounts().values()))

    def _filters(self) -> list[str]:
        return [*self.pipeline.filters, *self._remote.filters, *self._discovery.filters]

    def _subscriptions(self) -> dict[str, int] | None:
        """What this broker's session is known to hold."""
        note = self._keeper.noted("subscribed")
        broker = self.settings.broker
        return note[2] if note and note[:2] == [broker.host, broker.port] else None

    def _connect(self, subscribed: dict[str, int] | None) -> Connection:
        connection = self._connection = Connection(
            broker_options(self.settings), filters=self._filters(), inbox=self._inbox, subscribed=subscribed,
            will=self._status("offline"), birth=lambda: [self._status(), self._info()],
            stored=self._discovery.stored,
        )  # fmt: skip
        self._state = self._status_word()
        connection.start()
        return connection

    def _reloaded(self) -> Connection:
        """The connection to go on with, after a change of the configuration if there is one."""
        assert self._connection is not None
        change = self._reload.take(self.settings, self.pipeline.streams) if self._reload is not None else None
        if change is None:
            return self._connection
        settings, assembly = change
        self._turns.settle(self._land)
        self._commit()
        fresh = assembly.pipeline.restore(self.pipeline.snapshot())
        assembly.pipeline.take(Turn(calls=_configured(assembly.pipeline)))
        other_broker = settings.broker != self.settings.broker
        self._apply(settings.agent)
        self._discovery.configure(settings)
        self.settings, self._turns.pipeline, self.broken = settings, assembly.pipeline, assembly.broken
        self._vouchers = assembly.vouchers
        self._web.change(settings.http)
        self._noted = None
        self._keeper.renew(self.pipeline)
        for name in fresh:
            log.info("streams.%s: new, or its model or shape has changed: it starts anew", name)
        if other_broker:
            self._connection.close(self._status("stopped"), 1.0)
            self._outbox.again()
            self._connect(None)
        else:
            self._connection.watch(self._filters())
            self._connection.publish(self._info())
        log.info("configuration reloaded: watching %s", ", ".join(self.pipeline.filters))
        return self._connection

    def _apply(self, agent: AgentSettings) -> None:
        """What can change in a running agent; the rest is told of."""
        old = self.settings.agent
        self._keeper.linger.at_most(agent.commit_every / 1000)
        self._outbox.limit, self._outbox.max_age = agent.outbox, agent.max_age
        self._remote.allow(agent.remote)
        late = [key for key in RESTART if getattr(agent, key) != getattr(old, key)]
        if late:
            log.warning("takes effect when the agent is started again: %s", ", ".join(f"agent.{key}" for key in late))
        if agent.log_level != old.log_level:
            logs.set_level(agent.log_level)

    def _abandon(self) -> None:
        """The end after an error: the pipeline may be half changed, so nothing of it is saved."""
        assert self._connection is not None
        self._connection.stop_receiving()
        self._turns.close()
        self._keeper.abandon(self._outbox.done())
        self._connection.close(self._status("offline"), 1.0)

    def _close(self) -> None:
        self._supervisor.say_stopping()
        end = self._turned + SHUTDOWN  # it may have been asked for as early as that
        assert self._connection is not None
        self._connection.stop_receiving()
        self._turn(self._inbox.drain(PORTION))
        while len(self._inbox) and time.monotonic() < end - SHUTDOWN + DRAIN:
            self._turn(self._inbox.drain(PORTION))
        if len(self._inbox):  # what has a token comes again at the next start; the rest is counted
            self._turn(Drained([], [], self._inbox.abandon()))
        self._turns.settle(self._land)
        self._turns.close()
        self._commit()
        self._outbox.flush(time.time_ns() // 1_000_000, self._connection)
        if self._keeper.problem:
            self._try_again()
        self._keeper.close(self.pipeline, self._outbox.done())
        self._connection.publish(self._health())
        self._connection.close(self._status("stopped"), max(0.1, end - time.monotonic()))
        accounts = self.pipeline.accounts()
        log.info(
            "stopped after %s readings in %s windows",
            sum(a["received"] for a in accounts.values()), sum(a["windows"] for a in accounts.values()),
        )  # fmt: skip

    # --- what it says of itself ---------------------------------------------------------------------------------------

    def _received(self) -> int:
        return sum(a["received"] for a in self.pipeline.accounts().values())

    def _status_word(self) -> str:
        assert self._connection is not None
        return "\n".join(self._problems())

    def _problems(self) -> list[str]:
        problems = [f"{error.place}: {error.problem}" for error in self.broken.values()]
        if self._web.problem:
            problems.append(self._web.problem)
        if self._keeper.problem:
            problems.append(f"the journal is off: {self._keeper.problem}")
        if self._connection is not None:
            problems += [f"not subscribed to {f}: {reason}" for f, reason in sorted(self._connection.refused.items())]
        return problems

    def _doing(self) -> str:
        assert self._connection is not None
        broker = self.settings.broker
        if not self._connection.ready:
            return self._sentence.waiting(
                f"{broker.host}:{broker.port}", self._connection.problem, before=self.ready.is_set()
            )
        (p50,) = self.latencies.percentiles(50)
        return self._sentence.running(self.pipeline.accounts(), p50, self._problems(), time.monotonic())

    def _status(self, word: str = "online") -> Publication:
        return reports.status(self.base, word, self._problems())

    def _say_status(self) -> None:
        assert self._connection is not None
        if self._connection.publish(self._status()) is not None:
            self._state = self._status_word()

    def _info(self) -> Publication:
        unsigned = self.settings.models.allow_unsigned
        return reports.info(self.base, self.pipeline, self.broken, self._vouchers, allow_unsigned=unsigned)

    def _say_health(self) -> None:
        assert self._connection is not None
        self._overload.tell(self._inbox.overloaded())
        logs.tell()
        for line in self._losses.lines(self.pipeline.accounts(), time.monotonic()):
            log.warning("%s", line)
        self._connection.publish(self._health())

    def _health(self) -> Publication:
        return reports.health(self.base, self._snapshot().health)

    def _snapshot(self) -> observe.Snapshot:
        """What BASE/health and /metrics tell, of this moment."""
        assert self._connection is not None
        return observe.Snapshot(
            health=self._health_body(), latency=self.latencies.histogram(), models=reports.models(self.pipeline),
            problems=tuple(self._problems()), ready=self.ready.is_set() and self._connection.ready,
            connected=self._connection.connected, made=time.monotonic(),
        )  # fmt: skip

    def _health_body(self) -> dict[str, Any]:
        assert self._connection is not None
        keeper = self._keeper
        return {
            **observe.health(
                accounts=self.pipeline.accounts(), strangers=self.pipeline.strangers, latencies=self.latencies,
                connection=self._connection.counters() | {"redelivered": keeper.redelivered.count},
                inbox=len(self._inbox), uptime=time.monotonic() - self._started,
            ),
            "readings_per_s": self._rate.of(self._received()),
            "overloaded": self._overload.on, "outbox": self._outbox.waiting | self._outbox.counts,
            "journal": keeper.counts(), "clock_steps": self._clock.steps,
            "calls": dict(self._remote.counts), "drift": drift_body(*self.pipeline.drifting()),
        }  # fmt: skip


def _configured(pipeline: Pipeline) -> list[Call]:
    """Ends the budgets that remote calls have set."""
    return [Call("configured", name) for name in pipeline.streams]
