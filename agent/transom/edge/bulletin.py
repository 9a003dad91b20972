"""What the agent says of itself, and when that has changed: problems, status, info, health, the line for systemd.

Looks at the parts of a running agent and changes none.
"""

import logging
import time
from typing import TYPE_CHECKING, Any

from transom.dialects.plain import Publication, drift_body
from transom.edge import logs, masks, memory, observe, reports
from transom.edge.certificates import WHO

if TYPE_CHECKING:
    from transom.edge.service import Agent

log = logging.getLogger(__name__)


class Bulletin:
    """Of one agent, in its run loop's thread."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._sentence, self._losses, self._rate = reports.Sentence(), observe.Losses(), observe.Rate()
        self._told: list[str] = []  # the problems that BASE/status has
        self._started = time.monotonic()

    def begin(self) -> None:
        """Rates count from here: what was restored is no reading of this run."""
        self._rate.of(self.received())

    def received(self) -> int:
        return sum(a["received"] for a in self._agent.pipeline.accounts().values())

    def problems(self) -> list[str]:
        """What does not work while the rest goes on."""
        agent = self._agent
        problems = [f"{error.place}: {error.problem}" for error in agent.broken.values()]
        if agent.web.problem:
            problems.append(agent.web.problem)
        if agent.keeper.problem:
            problems.append(f"the journal is off: {agent.keeper.problem}")
        if agent.connection is not None:
            refused = sorted(agent.connection.refused.items())
            problems += [f"not subscribed to {masks.topic(topic)}: {reason}" for topic, reason in refused]
            problems += agent.connection.certificates.problems
        return problems

    def doing(self) -> str:
        """What it does at present, in one line for `systemctl status`."""
        agent = self._agent
        broker, connection = agent.settings.broker, agent.connection
        if connection is None or not connection.ready:
            problem = "" if connection is None else connection.problem
            return self._sentence.waiting(f"{broker.host}:{broker.port}", problem, before=agent.ready.is_set())
        (p50,) = agent.latencies.percentiles(50)
        return self._sentence.running(agent.pipeline.accounts(), p50, self.problems(), time.monotonic())

    # --- publications -------------------------------------------------------------------------------------------------

    def birth(self) -> list[Publication]:
        """What is told at each connection."""
        return [self.status(), self.info()]

    def status(self, word: str = "online") -> Publication:
        return reports.status(self._agent.base, word, self.problems())

    def status_told(self) -> None:
        """The broker has the problems as they are, or gets them with the connection that is being made."""
        self._told = self.problems()

    def tell_changes(self) -> None:
        """BASE/status again when the problems are not those that it has."""
        agent = self._agent
        if (problems := self.problems()) == self._told:
            return
        if agent.connection is not None and agent.connection.publish(self.status()) is not None:
            self._told = problems

    def info(self) -> Publication:
        agent = self._agent
        unsigned = agent.settings.models.allow_unsigned
        versions = agent.rollouts.versions() if agent.rollouts is not None else {}
        return reports.info(
            agent.base, agent.pipeline, agent.broken, agent.vouchers, allow_unsigned=unsigned, versions=versions,
            privacy=agent.privacy,
        )  # fmt: skip

    def tell_health(self) -> None:
        """BASE/health, and in the log what was lost since the last time."""
        agent = self._agent
        agent.overload.tell(agent.inbox.overloaded())
        logs.tell()
        memory.trim()
        for line in self._losses.lines(agent.pipeline.accounts(), time.monotonic()):
            log.warning("%s", line)
        for line in agent.fairness.lines(time.monotonic(), observe.AGAIN):
            log.warning("%s", line)
        if agent.connection is not None:
            agent.connection.publish(self.health())

    def health(self) -> Publication:
        return reports.health(self._agent.base, self.snapshot().health)

    def snapshot(self) -> observe.Snapshot:
        """What BASE/health and /metrics tell, of this moment."""
        agent = self._agent
        connection = agent.connection
        return observe.Snapshot(
            health=self._health_body(), latency=agent.latencies.histogram(), models=reports.models(agent.pipeline),
            problems=tuple(self.problems()), made=time.monotonic(),
            ready=agent.ready.is_set() and connection is not None and connection.ready,
            connected=connection is not None and connection.connected,
        )  # fmt: skip

    def _drift(self) -> dict[str, Any]:
        count, reports = self._agent.pipeline.drifting()
        return drift_body(count, [self._agent.privacy.drift(report) for report in reports])

    def _health_body(self) -> dict[str, Any]:
        agent, keeper = self._agent, self._agent.keeper
        counters = agent.connection.counters() if agent.connection is not None else {}
        return {
            **observe.health(
                accounts=agent.pipeline.accounts(), strangers=agent.pipeline.strangers, latencies=agent.latencies,
                connection=counters | {"redelivered": keeper.redelivered.count},
                inbox=len(agent.inbox), uptime=time.monotonic() - self._started,
            ),
            "throttled": agent.fairness.throttled().body(),
            "readings_per_s": self._rate.of(self.received()),
            "overloaded": agent.overload.on, "outbox": agent.outbox.waiting | agent.outbox.counts,
            "journal": keeper.counts(), "clock_steps": agent.present.clock.steps,
            "certificates": dict.fromkeys(WHO)
            | (agent.connection.certificates.ends() if agent.connection is not None else {}),
            "calls": dict(agent.remote.counts), "page": agent.web.viewers(),
            "updates": dict(agent.arrivals.desk.counts), "drift": self._drift(),
            "rollout": agent.rollouts.health() if agent.rollouts is not None else {},
        }  # fmt: skip
