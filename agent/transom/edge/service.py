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
from transom.edge import logs, masks, memory, observe
from transom.edge.arrival.arrivals import Arrivals
from transom.edge.assembly import Assembly
from transom.edge.bulletin import Bulletin
from transom.edge.fairness import Fairness, rates
from transom.edge.homeassistant import Discovery
from transom.edge.impostors import Impostors
from transom.edge.inbox import Drained, Inbox
from transom.edge.journal import Journal
from transom.edge.keeper import Keeper
from transom.edge.mqtt import Connection
from transom.edge.outbox import Outbox
from transom.edge.present import TURN, Present
from transom.edge.reload import RESTART, Reload
from transom.edge.remote import Remote
from transom.edge.retention import Retention, tidied
from transom.edge.rollout.conductor import Rollouts
from transom.edge.rollout.store import Store
from transom.edge.systemd import Supervisor
from transom.edge.turns import Done, Turns, Work
from transom.edge.web import Web
from transom.edge.wire import broker_options
from transom.settings import AgentSettings, Settings

log = logging.getLogger(__name__)

SHUTDOWN = 3.0  # seconds that a clean end may take; the interpreter takes up to two more on a busy machine
DRAIN = 1.0  # seconds of it for what waits in the inbox
PORTION = 1000  # messages processed then at a time


class Agent:
    """Runs one pipeline against one broker."""

    def __init__(
        self, settings: Settings, assembly: Assembly, on_events: Callable[[Events, int], None] | None = None,
        reload: Reload | None = None, supervisor: Supervisor | None = None, store: Store | None = None,
    ) -> None:  # fmt: skip
        """on_events: told of each batch of events with the present (ms since 1970), in the run loop's thread.
        supervisor: told how it goes; nobody if None. store: of newer models, from which the assembly was made."""
        self.settings, self.broken, self.vouchers = settings, assembly.broken, assembly.vouchers
        self._on_events, self._reload = on_events, reload
        self._supervisor = supervisor or Supervisor({})
        self.base = settings.base
        self.latencies = observe.Latencies()
        self.ready = threading.Event()
        a = settings.agent
        self.fairness = Fairness(rates(settings))
        self.inbox = Inbox(a.inbox, fairness=self.fairness)
        retention = Retention.of(settings.privacy)
        journal = None if a.durability == "none" else Journal(a.state, a.durability, secure=retention.keep is not None)
        self.keeper = Keeper(journal, a.commit_every / 1000, retention)
        self.privacy = masks.privacy_of(settings)
        masks.use(self.privacy)
        self._turns = Turns(assembly.pipeline, settings.base, self.keeper.rebuild, self.privacy)
        self.outbox = Outbox(a.outbox, a.max_age, self.keeper.waiting)
        self.rollouts = Rollouts(self, store) if store is not None else None
        steer = self.rollouts.steer if self.rollouts is not None else None
        self.remote = Remote(settings.base, a.remote, reload.ask if reload is not None else None, self.privacy, steer)
        self._discovery, self._impostors = Discovery(settings, self.privacy), Impostors()
        self.arrivals = Arrivals(settings, store)
        self.connection: Connection | None = None
        self.present = Present()
        self._noted: list[Any] | None = None  # what was noted last
        self.overload = observe.Overload()
        self._turned = time.monotonic()  # when the latest turn began
        self.web = Web(settings.http, settings.agent.id, self.privacy)
        self._bulletin = Bulletin(self)

    @property
    def pipeline(self) -> Pipeline:
        return self._turns.pipeline

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Blocks until `stop` is set; then what has arrived is processed, saved and told before it returns."""
        self.web.open()  # first: it says that the agent is starting, which may take a while
        self._supervisor.say("restoring what was saved")
        try:
            self._restore()
            self._bulletin.begin()
            self.arrivals.start()
            self._watch(self._connect(self._subscriptions()), stop)
        finally:
            self.arrivals.close()
            self.web.close()

    def _watch(self, connection: Connection, stop: threading.Event) -> None:
        next_health = time.monotonic() + self.settings.agent.health_every / 1000
        try:
            while not stop.is_set():
                self._turned = time.monotonic()
                self._supervisor.alive()
                due = 0.0 if self._turns.under_way else self.keeper.wait()
                self.inbox.wait_turn(TURN if due is None else min(TURN, due))
                connection.wait_writable()
                self._turn(self.inbox.drain())
                connection = self._reloaded()
                if self.rollouts is not None:
                    self.rollouts.look()
                if self._reload is not None and (problems := self._reload.concluded()) is not None:
                    self.remote.reloaded(problems)
                if not self.ready.is_set() and connection.ready:
                    memory.settle()
                    self.ready.set()
                    self._supervisor.say_ready(self._bulletin.doing())
                    log.info("ready: watching %s on %s", self._watched(), self.settings.broker.host)
                if self.keeper.retry_due:
                    self._try_again()
                if self.keeper.on and self.keeper.retention.tidy_due:
                    keeper = self.keeper
                    self.outbox.forget(tidied(keeper.retention, keeper.journal, self.outbox.under_way))
                self._bulletin.tell_changes()
                self.web.tend(self._bulletin.snapshot)
                if self._supervisor.asks:
                    self._supervisor.say(self._bulletin.doing())
                if time.monotonic() >= next_health:
                    self._bulletin.tell_health()
                    next_health = time.monotonic() + self.settings.agent.health_every / 1000
            self.web.stopping()
            self._close()
        except BaseException:
            self._abandon()
            raise

    def _turn(self, drained: Drained) -> None:
        assert self.connection is not None
        messages, tokens, marks, again = self.keeper.redelivered.split(drained.messages, drained.tokens)
        again += drained.spent  # they are acknowledged once it is written that they were shed
        jump = self.present.look(self.connection, self.pipeline.streams.values())
        self.inbox.absent(jump / 1000)
        behind = bool(messages) and len(self.inbox) > 0
        tick = self.present.tick(self.connection, behind=behind, after=self._turns.untick)
        shed = self.arrivals.shed(self.remote.shed(drained.shed))
        messages = self.arrivals.take(self._discovery.take(messages))
        segments = self.remote.split(messages)
        for requests, part in segments[:-1]:  # a call acts between the messages before and after it
            self._one(requests, Work(Turn(part, jump=jump, shed=shed)), ahead=False)
            jump, shed = 0, {}
        requests, part = segments[-1]
        asked = len(part) < len(messages)
        work = Work(Turn(part, tick, jump, shed), tokens, marks, again)
        self._one(requests, work, ahead=len(self.inbox) > 0 and not asked)
        self.overload.look(self.connection.held_back)
        if self.keeper.wait() == 0.0 or asked:  # what a call has changed is kept, then told
            self.commit()
        self.outbox.flush(self.present.now, self.connection)
        for answer in self.remote.answers():
            self.connection.publish(answer)
        self._discovery.speak(self.pipeline, self.connection, time.monotonic())
        self.arrivals.speak(self.pipeline, self.connection)

    def _one(self, requests: Sequence[Message], work: Work, *, ahead: bool) -> None:
        """A turn, and before its messages what these requests want."""
        wanted = self.keeper.wants_pipeline
        if wanted or requests:
            ahead = False
            self._turns.settle(self._land)
        if wanted:
            self.keeper.remember(self.pipeline)
        self.remote.watch(self.pipeline)
        if requests:
            work.turn = work.turn._replace(calls=self.remote.handle(requests, self.pipeline))
        self._turns.take(work, self._land, ahead=ahead)

    def _land(self, done: Done) -> None:
        """What came of a turn: predictions go, alerts are kept."""
        assert self.connection is not None
        turn, events, work = done.work.turn, done.events, done.work
        alerts = [p for p in done.publications if p.qos]
        self._impostors.look(self.privacy.letters(events.dead_letters))
        self.outbox.predict((p for p in done.publications if not p.qos), self.present.now, self.connection)
        if turn.messages:
            present = time.time_ns() // 1_000_000
            self.latencies.add([present - m.received for m in turn.messages])
        tokens = [*work.tokens, *work.again]
        if turn.messages or turn.calls or tokens or alerts or events.moved or turn.jump or turn.shed or turn.refused:
            self.keeper.add(turn, tokens, work.marks, alerts)
        self.web.show(events, self.pipeline.streams)
        if self.rollouts is not None:
            self.rollouts.land(done)
        if self._on_events is not None:
            self._on_events(events, self.present.now)

    def commit(self) -> None:
        """What has come together is written, told and acknowledged."""
        assert self.connection is not None
        self._keep_notes()
        committed = self.keeper.commit(self.pipeline if self._turns.settled else None, self.outbox.done())
        self.outbox.alert(committed.alerts)
        self.outbox.unsaved(committed.unsaved)
        self.outbox.undone(committed.undone)
        self.connection.acknowledge(committed.tokens)

    def _keep_notes(self) -> None:
        assert self.connection is not None
        subscribed = self.connection.subscribed
        if subscribed is None or not self.connection.ready:
            return
        note = [self.settings.broker.host, self.settings.broker.port, subscribed]
        if self._noted != note:
            self._noted = note
            self.keeper.note("subscribed", note)

    def _try_again(self) -> None:
        self._turns.settle(self._land)
        other = self.keeper.reopen()
        if other is None:
            return
        if other:
            self.outbox.moved()
            self._noted = None
        self._keep_notes()
        done = self.outbox.done()
        ids = self.keeper.resume(self.pipeline, self.outbox.rescue(), done)
        if ids is None:
            self.outbox.undone(done)
        else:
            self.outbox.rescued(ids)

    # --- beginning, change and end ------------------------------------------------------------------------------------

    def _restore(self) -> None:
        fresh, last = self.keeper.start(self.pipeline)
        for name in fresh:
            log.warning("streams.%s: starts anew, its model or shape has changed since the state was saved", name)
        if last is None:
            return
        now, _ = self.present.clock.look()
        self.inbox.absent((now - last) / 1000)
        # While the agent was away nobody listened: silence is not counted for that time.
        jump = Turn(jump=now - last, calls=_configured(self.pipeline))
        self.pipeline.take(jump)
        self.keeper.add(jump, (), (), ())
        log.info("state restored: %s series", sum(a["series"] for a in self.pipeline.accounts().values()))

    def _watched(self) -> str:
        return ", ".join(map(masks.topic, self.pipeline.filters))

    def _filters(self) -> list[str]:
        return [*self.pipeline.filters, *self.remote.filters, *self._discovery.filters, *self.arrivals.filters]

    def _subscriptions(self) -> dict[str, int] | None:
        """What this broker's session is known to hold."""
        note = self.keeper.noted("subscribed")
        broker = self.settings.broker
        return note[2] if note and note[:2] == [broker.host, broker.port] else None

    def _connect(self, subscribed: dict[str, int] | None) -> Connection:
        connection = self.connection = Connection(
            broker_options(self.settings), filters=self._filters(), inbox=self.inbox, subscribed=subscribed,
            will=self._bulletin.status("offline"), birth=self._bulletin.birth,
            stored=[*self._discovery.stored, *self.arrivals.stored],
        )  # fmt: skip
        self._bulletin.status_told()
        connection.start()
        return connection

    def _reloaded(self) -> Connection:
        """The connection to go on with, after a change of the configuration if there is one."""
        assert self.connection is not None
        change = self._reload.take(self.settings, self.pipeline.streams) if self._reload is not None else None
        if change is None:
            return self.connection
        settings, assembly = change
        self._turns.settle(self._land)
        self.commit()
        fresh = assembly.pipeline.restore(self.pipeline.snapshot())
        assembly.pipeline.take(Turn(calls=_configured(assembly.pipeline)))
        other_broker = settings.broker != self.settings.broker
        self._apply(settings.agent)
        self._discovery.configure(settings)
        self.fairness.change(rates(settings))
        self.arrivals.configure(settings)
        self.settings, self._turns.pipeline, self.broken = settings, assembly.pipeline, assembly.broken
        self.vouchers = assembly.vouchers
        self.web.change(settings.http)
        self._noted = None
        self.keeper.renew(self.pipeline)
        for name in fresh:
            log.info("streams.%s: new, or its model or shape has changed: it starts anew", name)
        if other_broker:
            self.connection.close(self._bulletin.status("stopped"), 1.0)
            self.outbox.again()
            self._connect(None)
        else:
            self.connection.watch(self._filters())
            self.connection.publish(self._bulletin.info())
        log.info("configuration reloaded: watching %s", self._watched())
        return self.connection

    @property
    def reloading(self) -> bool:
        return self._reload is not None and self._reload.under_way

    def settle(self) -> None:
        """No turn is under way after this."""
        self._turns.settle(self._land)

    def go_on_with(self, pipeline: Pipeline, write: Callable[[], None]) -> None:
        """Another pipeline, made of this one as it is, settled, runs from here on. write: says so on disk. The order is
        that of rollout/conductor.py. Raises OSError; then nothing has changed."""
        self.commit()
        self.keeper.renew(self.pipeline)
        if self.keeper.problem:
            raise OSError(self.keeper.problem)
        write()
        self._turns.pipeline = pipeline
        self.keeper.renew(pipeline)

    def tell_models(self) -> None:
        """Which models run, or are tried, has changed."""
        if self.connection is not None:
            self.connection.publish(self._bulletin.info())

    def _apply(self, agent: AgentSettings) -> None:
        """What can change in a running agent; the rest is told of."""
        old = self.settings.agent
        self.keeper.linger.at_most(agent.commit_every / 1000)
        self.outbox.limit, self.outbox.max_age = agent.outbox, agent.max_age
        self.remote.allow(agent.remote)
        late = [key for key in RESTART if getattr(agent, key) != getattr(old, key)]
        if late:
            log.warning("takes effect when the agent is started again: %s", ", ".join(f"agent.{key}" for key in late))
        if agent.log_level != old.log_level:
            logs.set_level(agent.log_level)

    def _abandon(self) -> None:
        """The end after an error: the pipeline may be half changed, so nothing of it is saved."""
        assert self.connection is not None
        if self.rollouts is not None:
            self.rollouts.close(clean=False)
        self.connection.stop_receiving()
        self._turns.close()
        self.keeper.abandon(self.outbox.done())
        self.connection.close(self._bulletin.status("offline"), 1.0)

    def _close(self) -> None:
        self._supervisor.say_stopping()
        end = self._turned + SHUTDOWN  # it may have been asked for as early as that
        assert self.connection is not None
        self.connection.stop_receiving()
        self._turn(self.inbox.drain(PORTION))
        while len(self.inbox) and time.monotonic() < end - SHUTDOWN + DRAIN:
            self._turn(self.inbox.drain(PORTION))
        if len(self.inbox):  # what has a token comes again at the next start; the rest is counted
            self._turn(Drained([], [], self.inbox.abandon()))
        self._turns.settle(self._land)
        self._turns.close()
        self.commit()
        self.outbox.flush(time.time_ns() // 1_000_000, self.connection)
        if self.keeper.problem:
            self._try_again()
        self.keeper.close(self.pipeline, self.outbox.done())
        if self.rollouts is not None:
            self.rollouts.close(clean=True)
        self.connection.publish(self._bulletin.health())
        self.connection.close(self._bulletin.status("stopped"), max(0.1, end - time.monotonic()))
        accounts = self.pipeline.accounts()
        log.info(
            "stopped after %s readings in %s windows",
            sum(a["received"] for a in accounts.values()), sum(a["windows"] for a in accounts.values()),
        )  # fmt: skip


def _configured(pipeline: Pipeline) -> list[Call]:
    """Ends the budgets that remote calls have set."""
    return [Call("configured", name) for name in pipeline.streams]
