"""The faults, each a function that makes its own broker, agent and sensors, and says what came of it.

`scale` makes a scenario longer: 1 is what CI runs.
"""

import os
import queue
import random
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from accounts import Expected, Report, compare, holes
from harness import Agent, Broker, Listener, Sensors, scratch, wait_until

RATE = 6.0  # readings of each series a second
FAST = 3 * RATE
DOWN_LONGEST = 1.0  # seconds that something killed stays away
UNWRITTEN = 2.0  # seconds before its kill whose messages a mosquitto that writes every change may have lost


def finish(
    name: str, agent: Agent, sensors: Sensors, heard: Listener, *, more: int = 0, broker_may_lose: bool = False,
    **options: Any,
) -> Report:  # fmt: skip
    """Waits until the broker has given the agent everything and the agent has told of it, stops it and compares.
    more: readings beside those of the sensors."""
    sensors.settle()
    sent = sensors.sent * sensors.series + more

    def settled() -> bool:
        counts = heard.counts()
        return bool(counts) and counts["accepted"] + counts["missing"] >= sent

    with suppress(AssertionError):  # the report says what is missing
        while not settled():  # on a busy machine that may take long, as long as it goes on
            before = heard.counts()
            wait_until(lambda before=before: settled() or heard.counts() != before, 60, "")  # type: ignore[misc]
    told = len(heard.health)
    wait_until(lambda: len(heard.health) > told + 1, 30, "no health")
    status = agent.stop()
    time.sleep(0.5)  # the last words of the agent
    without = holes(agent) if broker_may_lose else set()
    report = compare(name, agent, sensors, heard, sent=more, without=without, **options)
    report.exit_status, report.ended_in = status, agent.ended_in
    report.facts["starts of the agent"] = agent.starts
    sensors.close()
    heard.close()
    return report


@contextmanager
def everything(
    folder: Path, *, save_always: bool = False, **options: Any
) -> Iterator[tuple[Broker, Agent, Sensors, Listener]]:
    """Broker, agent (ready), sensors and listener; whatever is still alive at the end is killed."""
    with scratch() if save_always else nullcontext(folder) as place:
        broker = Broker(place / "broker", save_always=save_always).start()
        agent = Agent(folder / "agent", broker.port, **options).start()
        heard = Listener(broker.port)
        sensors = Sensors(broker.port)
        try:
            agent.ready()
            yield broker, agent, sensors, heard
        finally:
            agent.kill()
            broker.kill()


def kill_agent(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """20 times kill -9 of the agent at random moments, also while it starts."""
    chance, kills = random.Random(seed), round(20 * scale)
    with everything(folder) as (_, agent, sensors, heard):
        with sensors.running(RATE):
            for _ in range(kills):
                time.sleep(chance.uniform(0.3, 4.0))
                agent.kill()
                time.sleep(chance.uniform(0, DOWN_LONGEST))
                agent.start()
            agent.ready()
        report = finish(f"kill -9 of the agent, {kills} times", agent, sensors, heard)
        expected, got, *_ = report.predictions
        report.demand(got > 0.97 * expected, "97 % of the predictions are heard (QoS 0: the last are in a socket)")
        return report


def _lost_with(report: Report, sensors: Sensors, without: set[tuple[str, int]], killed: list[float]) -> None:
    """A broker that is killed loses what it has not written: that is the last it took, and nothing before.
    killed: when it was dead, each time."""
    known = sensors.acknowledged()
    ages = []
    for reading in without:
        told, begun = known.get(reading, (-1e9, -1e9))
        ages.append(
            min((k for k in killed if k >= begun), default=1e9) - told
        )  # of the kill that ended that connection
    longest = max(ages, default=0.0)
    report.facts["lost by the broker"] = f"{len(ages)}, acknowledged at most {longest:.2f} s before it was dead"
    report.demand(longest <= UNWRITTEN, f"what a broker acknowledged {UNWRITTEN} s before it was killed came")


def _kills(folder: Path, scale: float, seed: int, times: int, how: signal.Signals, *, agent_too: bool) -> Report:
    """Broker, or broker and agent, ended at random moments. What a broker had taken before SIGTERM must all come."""
    chance, count, killed = random.Random(seed), round(times * scale), []
    who = "broker and agent" if agent_too else "broker"
    crashed = how == signal.SIGKILL
    with everything(folder, save_always=crashed) as (broker, agent, sensors, heard):
        with sensors.running(RATE):
            for _ in range(count):
                time.sleep(chance.uniform(2.5, 5.0))
                since = len(agent.lines)
                if agent_too and chance.random() < 0.5:
                    agent.kill()
                broker.kill(how)
                killed.append(time.monotonic())  # once it is dead: until then it may still acknowledge
                if agent_too:
                    agent.kill()
                time.sleep(chance.uniform(0, DOWN_LONGEST))
                broker.start()
                if agent_too:
                    agent.start().ready()
                else:
                    agent.wait_for("connected again", 60, since)
            time.sleep(3)  # a hole shows when something comes after it
        report = finish(
            f"{how.name} to the {who}, {count} times", agent, sensors, heard, broker_may_lose=crashed,
        )  # fmt: skip
        if crashed:
            _lost_with(report, sensors, holes(agent), killed)
            report.facts["events of alerts lost by the broker"] = len(report.events_never_delivered)
            report.events_never_delivered = []  # acknowledged by the broker, and not written; the ids are demanded
        return report


def stop_broker(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """A mosquitto that is stopped and started, as by an update: nothing at all may be lost."""
    return _kills(folder, scale, seed, 5, signal.SIGTERM, agent_too=False)


def kill_broker(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """kill -9 of a mosquitto that keeps its sessions on disk."""
    return _kills(folder, scale, seed, 10, signal.SIGKILL, agent_too=False)


def stop_both(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """The agent is killed, the broker stopped: nothing at all may be lost."""
    return _kills(folder, scale, seed, 4, signal.SIGTERM, agent_too=True)


def kill_both(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """kill -9 of broker and agent."""
    return _kills(folder, scale, seed, 6, signal.SIGKILL, agent_too=True)


# --- the link -----------------------------------------------------------------------------------------------------------


class Link:
    """A TCP proxy between the agent and its broker: cut, slow, or silent (half open: nobody says that it is gone)."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.delay, self.silent, self.cut = 0.0, False, False
        self._pairs: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if self.cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._pairs += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=self._deliver, args=(under_way, other), daemon=True).start()
        data = b"?"
        while data:
            try:
                data = one.recv(65536)
            except OSError:
                data = b""
            under_way.put((time.monotonic(), data))
        one.close()

    def _deliver(self, under_way: "queue.SimpleQueue[tuple[float, bytes]]", other: socket.socket) -> None:
        with other, suppress(OSError):
            while True:
                arrived, data = under_way.get()
                while self.silent:
                    time.sleep(0.05)
                time.sleep(max(0.0, arrived + self.delay - time.monotonic()))
                if not data:
                    return
                other.sendall(data)

    def break_all(self) -> None:
        """Resets every connection."""
        pairs, self._pairs = self._pairs, []
        for end in pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.silent = False
        self._listening.close()
        self.break_all()


@contextmanager
def _linked(folder: Path, **options: Any) -> Iterator[tuple[Link, Agent, Sensors, Listener]]:
    broker = Broker(folder / "broker").start()
    link = Link(broker.port)
    agent = Agent(folder / "agent", link.port, **options).start()
    heard, sensors = Listener(broker.port), Sensors(broker.port)
    try:
        agent.ready()
        yield link, agent, sensors, heard
    finally:
        agent.kill()
        link.close()
        broker.kill()


def cut_link(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """The link is gone for 60 s, in which the sensors live through hours."""
    del seed
    with _linked(folder) as (link, agent, sensors, heard):
        with sensors.running(RATE):
            time.sleep(8)
        link.cut = True
        link.break_all()
        with sensors.running(FAST):
            time.sleep(60 * scale)
        link.cut = False
        with sensors.running(RATE):
            time.sleep(5)
        return finish(f"the link cut for {60 * scale:.0f} s", agent, sensors, heard)


def slow_link(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """2 s of delay each way."""
    del seed
    with _linked(folder) as (link, agent, sensors, heard):
        link.delay = 2.0
        with sensors.running(FAST):
            time.sleep(25 * scale)
        return finish("2 s of delay each way", agent, sensors, heard)


def half_open(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """The other side is gone and nobody says so: only the keepalive finds out."""
    del seed
    with _linked(folder, broker='keepalive = "2s"') as (link, agent, sensors, heard):
        for _ in range(round(2 * scale)):
            with sensors.running(RATE):
                time.sleep(5)
                link.silent = True
                since = len(agent.lines)
                time.sleep(8)  # over one and a half keepalives
                link.silent = False
                link.break_all()
                agent.wait_for("connected again", 60, since)
        return finish("half-open connections", agent, sensors, heard)


def packet_loss(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """30 % of the agent's packets are dropped by nftables in a network namespace. Needs root, ip and nft."""
    del seed
    # A network of its own: what a run that was killed has left behind must not stand in the way of the next.
    net = f"10.213.{os.getpid() % 256}"
    name, here, there = f"transom{os.getpid()}", f"{net}.1", f"{net}.2"

    def sh(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True)

    inside = ("ip", "netns", "exec", name)
    sh("ip", "netns", "add", name)
    try:
        sh("ip", "link", "add", f"v{os.getpid()}", "type", "veth", "peer", "name", "far", "netns", name)
        sh("ip", "addr", "add", f"{here}/24", "dev", f"v{os.getpid()}")
        sh("ip", "link", "set", f"v{os.getpid()}", "up")
        for words in (
            ("addr", "add", f"{there}/24", "dev", "far"),
            ("link", "set", "far", "up"),
            ("link", "set", "lo", "up"),
        ):
            sh("ip", "-n", name, *words)
        broker = Broker(folder / "broker", host=here).start()
        agent = Agent(folder / "agent", broker.port, host=here, prefix=inside).start()
        try:
            agent.ready()
            heard, sensors = Listener(broker.port, here), Sensors(broker.port, host=here)
            sh(*inside, "nft", "add", "table", "inet", "t")
            for hook in ("input", "output"):
                sh(*inside, "nft", "add", "chain", "inet", "t", hook, f"{{ type filter hook {hook} priority 0; }}")
                sh(
                    *inside,
                    "nft",
                    "add",
                    "rule",
                    "inet",
                    "t",
                    hook,
                    "numgen",
                    "random",
                    "mod",
                    "100",
                    "<",
                    "30",
                    "drop",
                )
            with sensors.running(RATE):
                time.sleep(25 * scale)
            sh(*inside, "nft", "delete", "table", "inet", "t")
            return finish("30 % packet loss", agent, sensors, heard)
        finally:
            agent.kill()
            broker.kill()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


# --- the disk -----------------------------------------------------------------------------------------------------------


def disk_full(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """A state folder of 24 MiB that something else fills up, and that gets room again. Needs root to mount it."""
    del seed
    disk = folder / "disk"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    try:
        with everything(folder, state=disk / "state") as (_, agent, sensors, heard):
            with sensors.running(RATE):
                time.sleep(8)
                filler = disk / "filler"
                with filler.open("wb", buffering=0) as file:
                    try:
                        while file.write(b"x" * 4096):
                            pass
                    except OSError:
                        pass
                agent.wait_for("WITHOUT the journal", 60)
                wait_until(lambda: any("problems" in s for s in heard.statuses), 20, "no status")
                time.sleep(5 * scale)
                filler.unlink()
                agent.wait_for("the journal is on", 30)
                wait_until(lambda: "problems" not in heard.statuses[-1], 20, "the status still has problems")
                time.sleep(3)
                agent.kill()  # what came after is safe again
                agent.start().ready()
            report = finish("disk full, then not", agent, sensors, heard)
            _said(report, heard, "the journal is off: database or disk is full")
            return report
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def _said(report: Report, heard: Listener, problem: str) -> None:
    said = report.facts["status said"] = next((s["problems"][0] for s in heard.statuses if "problems" in s), "")
    report.demand(problem in said, f"the status says {problem!r}")


def corrupt_file(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """The state file is overwritten in the middle while the agent is away: two runs, of which the second knows nothing
    of the first."""
    del scale
    with everything(folder) as (_, agent, sensors, heard):
        with sensors.running(FAST):
            time.sleep(8)
        sensors.settle()
        wait_until(lambda: heard.counts().get("accepted", 0) >= sensors.sent * sensors.series, 60, "not accepted")
        agent.stop()
        time.sleep(0.5)
        before, first = dict(heard.counts()), sensors.sent
        state = agent.state / "transom.db"
        data = bytearray(state.read_bytes())
        data[100:] = random.Random(seed).randbytes(len(data) - 100)
        state.write_bytes(data)
        since = len(agent.lines)
        agent.start().ready()
        with sensors.running(FAST):
            time.sleep(8)
        sensors.settle()
        wait_until(lambda: heard.counts()["accepted"] >= (sensors.sent - first) * sensors.series, 60, "not accepted")
        messages = sensors.messages()
        split = first * sensors.series
        expected = Expected().add(agent, messages[:split]).add(agent, messages[split:])
        report = finish("a corrupt state file", agent, sensors, heard, expected=expected)
        for kind in report.accounts:  # those of the run before
            report.accounts[kind] += before[kind]
        report.received += before["received"]
        report.missing += before["missing"]
        aside = [p for p in agent.state.iterdir() if ".damaged-" in p.name and "-wal" not in p.name]
        log = next((line for line in agent.lines[since:] if "is damaged" in line), "")
        sound = sqlite3.connect(state).execute("PRAGMA integrity_check").fetchone()[0]
        report.facts |= {"set aside as": [p.name for p in aside], "log": log, "the new file": sound}
        report.demand(any(p.read_bytes() == bytes(data) for p in aside), "the damaged file is kept as it was")
        report.demand("starting without it" in log and any(p.name in log for p in aside), "the log says where it is")
        report.demand(sound == "ok", "the new file is sound")
        return report


def read_only(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """A state folder on a file system mounted read-only. Needs root to mount it."""
    del scale, seed
    disk = folder / "disk"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,ro", "tmpfs", str(disk)], check=True)
    try:
        with everything(folder, state=disk / "state") as (_, agent, sensors, heard):
            with sensors.running(FAST):
                time.sleep(8)
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
                agent.wait_for("the journal is on", 30)
                time.sleep(3)
                agent.kill()  # what came after is safe
                agent.start().ready()
            report = finish("a read-only state folder, then not", agent, sensors, heard)
            _said(report, heard, "the journal is off: ")
            return report
    finally:
        subprocess.run(["umount", str(disk)], check=False)


# --- the configuration --------------------------------------------------------------------------------------------------


def reloads(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """SIGHUP, a changed file and a refused one, while readings come in."""
    del scale, seed
    with everything(folder) as (_, agent, sensors, heard):
        with sensors.running(FAST):
            time.sleep(6)
            text = agent.config.read_text()
            agent.config.write_text(text.replace("threshold = 2.0", "threshold = 12.0\nno_such_key = 1"))
            agent.signal(signal.SIGHUP)
            agent.wait_for("refused, the old one goes on", 30)
            agent.config.write_text(text + '\n[streams.other]\ntopic = "other/{device}/{channel}"\n')
            agent.wait_for("configuration reloaded", 30)
            time.sleep(3)
            since = len(agent.lines)
            agent.config.write_text(text)
            agent.signal(signal.SIGHUP)
            agent.wait_for("no longer subscribed to other/+/+", 30, since)
        agent.config.write_text(text)
        report = finish("configuration reloaded", agent, sensors, heard)
        expected, got, *_ = report.predictions
        report.demand(got == expected, "every prediction is heard")
        report.facts["reloads"] = sum("configuration reloaded" in line for line in agent.lines)
        report.demand(report.facts["reloads"] >= 2, "two reloads happened")
        report.demand(agent.starts == 1, "one start")
        return report
