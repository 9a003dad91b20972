"""The figures that every scenario comes to, what they are held against, and what is wrong with them.

One record for all scenarios: tests and scripts/torture ask the same `problems`.
"""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

from harness import Agent, Listener, Sensors

from transom.core.pipeline import Message
from transom.dialects.plain import publications
from transom.edge.journal import Journal
from transom.edge.recovery import recover

KINDS = ("accepted", "invalid", "duplicate", "late", "shed")
SHUTDOWN = 5.0  # seconds in which an agent must end


@dataclass
class Report:
    """sent, received: readings; accounts: the five kinds of those received; missing: those that the agent says never
    came; lost: those that the scenario knows to be lost outside the agent; complete: all others must be accepted.
    alerts_* and events_*: ids. predictions: expected, heard, that differ, of no run."""

    name: str
    sent: int
    received: int
    accounts: dict[str, int]
    missing: int
    balanced: bool  # in every health report
    alerts_expected: int
    alerts_delivered: int
    alerts_never_delivered: list[str] = field(default_factory=list)
    alerts_of_no_run: list[str] = field(default_factory=list)
    events_never_delivered: list[str] = field(default_factory=list)
    predictions: tuple[int, int, int, int] = (0, 0, 0, 0)
    lost: int = 0
    complete: bool = True
    exit_status: int | None = None
    ended_in: float = 0.0  # seconds from SIGTERM to the end of the process
    facts: dict[str, Any] = field(default_factory=dict)  # of this scenario only
    broken: list[str] = field(default_factory=list)  # demands of this scenario only that were not met

    def demand(self, met: object, promise: str) -> None:
        if not met:
            self.broken.append(f"not so: {promise}")

    def problems(self) -> list[str]:
        """Every promise that was not kept."""
        _, _, different, no_run = self.predictions
        told = self.received == sum(self.accounts[kind] for kind in KINDS)
        checks = {
            "received = accepted + invalid + duplicate + late + shed, in every report": self.balanced and told,
            "alerts were expected": self.alerts_expected > 0,
            "each expected alert was delivered": self.alerts_delivered == self.alerts_expected,
            f"no alert has another id: {self.alerts_of_no_run}": not self.alerts_of_no_run,
            f"each event of an alert was delivered: {self.events_never_delivered}": not self.events_never_delivered,
            "predictions are those of an undisturbed run": different == no_run == 0,
            f"exit status 0, was {self.exit_status}": self.exit_status == 0,
            f"ended within {SHUTDOWN:.0f} s, took {self.ended_in:.1f}": self.ended_in <= SHUTDOWN,
        }
        if self.complete:
            checks["accepted = sent - lost outside the agent"] = self.accounts["accepted"] == self.sent - self.lost
            checks["missing = lost outside the agent"] = self.missing == self.lost
        return [*self.broken, *(f"not so: {promise}" for promise, kept in checks.items() if not kept)]

    def __str__(self) -> str:
        expected, heard, different, no_run = self.predictions
        lines: dict[str, Any] = {
            "sent": self.sent, "received": self.received,
            "accounted": ", ".join(f"{kind} {self.accounts[kind]}" for kind in KINDS),
            "missing": f"{self.missing} (lost outside the agent: {self.lost})",
            "alerts expected": self.alerts_expected, "alerts delivered": self.alerts_delivered,
            "predictions": f"{expected} expected, {heard} heard, {different} differ, {no_run} of no run",
            "ended": f"with {self.exit_status} in {self.ended_in:.1f} s", **self.facts,
        }  # fmt: skip
        for name, ids in (
            ("never delivered", self.alerts_never_delivered), ("of no run", self.alerts_of_no_run),
            ("events missing", self.events_never_delivered),
        ):  # fmt: skip
            if ids:
                lines[f"alerts: {name}"] = f"{len(ids)}: {ids[:10]}"
        width = max(map(len, lines))
        return "\n".join([self.name, *(f"  {key:{width}}  {value}" for key, value in lines.items())])


def balanced(counts: dict[str, int]) -> bool:
    return counts["received"] == sum(counts[kind] for kind in KINDS)


@dataclass
class Expected:
    """What a run that nothing happens to publishes: lines by series and time, and the events of each alert's id."""

    lines: dict[tuple[str, str], bytes] = field(default_factory=dict)
    alerts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, agent: Agent, messages: list[Message]) -> "Expected":
        """A run of its own over these messages."""
        pipeline = agent.pipeline()
        for begin in range(0, len(messages), 5000):
            events = pipeline.process(messages[begin : begin + 5000])
            for publication in publications(events, "transom/gw"):
                if publication.topic.endswith("/prediction"):
                    series = publication.topic.removeprefix("transom/gw/s/").removesuffix("/prediction")
                    self.lines[series, publication.payload[9:33].decode()] = publication.payload
            for alert in events.alerts:
                self.alerts.setdefault(alert.id, []).append(alert.event)
        return self


def holes(agent: Agent) -> set[tuple[str, int]]:
    """Topic and number of every reading that a stopped agent has not had, as its saved state has it."""
    journal, pipeline = Journal(agent.state, "process"), agent.pipeline()
    journal.open()
    try:
        recover(journal, pipeline)
    finally:
        journal.close()
    found = pipeline.streams["s"].intake.sequences.snapshot()["holes"]
    return {(topic, number) for topic, numbers in found.items() for number in numbers}


def compare(
    name: str, agent: Agent, sensors: Sensors, heard: Listener, *, expected: Expected | None = None, sent: int = 0,
    without: Set[tuple[str, int]] = frozenset(), only: str = "",
) -> Report:  # fmt: skip
    """sent: readings beside those of the sensors; without: readings that never came; only: series to compare."""
    expected = expected or Expected().add(agent, sensors.messages(without))
    lines, alerts, counts = expected.lines, expected.alerts, heard.counts()
    got = {key: line for key, line in heard.lines.items() if key[0].startswith(only)}
    known = {key: line for key, line in got.items() if key in lines}
    delivered: dict[str, list[str]] = {}
    for alert in heard.alerts:
        if alert["series"].startswith(only):
            delivered.setdefault(alert["id"], []).append(alert["event"])
    return Report(
        name, sent=sensors.sent * sensors.series + sent, received=counts["received"],
        accounts={kind: counts[kind] for kind in KINDS}, missing=counts["missing"],
        balanced=all(balanced(h["streams"]["s"]) for h in heard.health),
        alerts_expected=len(alerts), alerts_delivered=len(set(delivered) & set(alerts)),
        alerts_never_delivered=sorted(set(alerts) - set(delivered)),
        alerts_of_no_run=sorted(set(delivered) - set(alerts)),
        events_never_delivered=sorted(i for i in alerts if set(alerts[i]) - set(delivered.get(i, []))),
        predictions=(len(lines), len(got), sum(line != {lines[key]} for key, line in known.items()), len(got) - len(known)),
        lost=len(without), facts={"redelivered and recognised": heard.health[-1]["connection"]["redelivered"]},
    )  # fmt: skip
