"""The faults, each a function that makes its own broker, agent and sensors, and says what came of it.

`scale` makes a scenario longer: 1 is what CI runs.
"""

import json
import os
import queue
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from harness import Agent, Broker, Listener, Report, Sensors, balanced, compare, wait_until

RATE = 6.0  # readings of each series a second
DOWN_LONGEST = 1.0  # seconds that something killed stays away


def _finish(name: str, agent: Agent, sensors: Sensors, heard: Listener, **facts: Any) -> Report:
    """Waits until the broker has given the agent everything, and the agent has told of it."""
    sensors.settle()
    sent = sensors.sent * sensors.series

    def settled() -> bool:
        counts = heard.counts()
        return bool(counts) and counts["accepted"] + counts["missing"] >= sent

    with suppress(AssertionError):  # the report says what is missing
        wait_until(settled, 60, "")
    told = len(heard.health)
    wait_until(lambda: len(heard.health) > told + 1, 30, "no health")
    report = compare(name, agent, sensors, heard)
    report.facts |= facts
    if agent.running:
        report.facts["exit status"] = agent.stop()
    sensors.close()
    heard.close()
    return report


@contextmanager
def _all(
    folder: Path, *, save_always: bool = False, **options: Any
) -> Iterator[tuple[Broker, Agent, Sensors, Listener]]:
    """Broker, agent (ready), sensors and listener; whatever is still alive at the end is killed."""
    broker = Broker(folder / "broker", save_always=save_always).start()
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
    with _all(folder) as (_, agent, sensors, heard):
        with sensors.running(RATE):
            for _ in range(kills):
                time.sleep(chance.uniform(0.5, 5.0))
                agent.kill()
                time.sleep(chance.uniform(0, DOWN_LONGEST))
                agent.start()
            agent.ready()
        return _finish(f"kill -9 of the agent, {kills} times", agent, sensors, heard)


def kill_broker(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """kill -9 of a mosquitto that keeps its sessions on disk."""
    chance, kills = random.Random(seed), round(10 * scale)
    with _all(folder, save_always=True) as (broker, agent, sensors, heard):
        with sensors.running(RATE):
            for _ in range(kills):
                time.sleep(chance.uniform(2.0, 5.0))
                broker.kill()
                time.sleep(chance.uniform(0, DOWN_LONGEST))
                broker.start()
            wait_until(lambda: "connected again" in agent.lines[-1] or agent.running, 30, "not connected")
        return _finish(f"kill -9 of the broker, {kills} times", agent, sensors, heard)


def kill_both(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """kill -9 of broker and agent at once."""
    chance, kills = random.Random(seed), round(6 * scale)
    with _all(folder, save_always=True) as (broker, agent, sensors, heard):
        with sensors.running(RATE):
            for _ in range(kills):
                time.sleep(chance.uniform(2.0, 6.0))
                agent.kill()
                broker.kill()
                time.sleep(chance.uniform(0, DOWN_LONGEST))
                broker.start()
                agent.start()
            agent.ready()
        return _finish(f"kill -9 of broker and agent, {kills} times", agent, sensors, heard)


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
        with sensors.running(3 * RATE):
            time.sleep(60 * scale)
        link.cut = False
        with sensors.running(RATE):
            time.sleep(5)
        return _finish(f"the link cut for {60 * scale:.0f} s", agent, sensors, heard)


def slow_link(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """2 s of delay each way."""
    del seed
    with _linked(folder) as (link, agent, sensors, heard):
        link.delay = 2.0
        with sensors.running(3 * RATE):
            time.sleep(25 * scale)
        return _finish("2 s of delay each way", agent, sensors, heard)


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
        return _finish("half-open connections", agent, sensors, heard)


def packet_loss(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """30 % of the agent's packets are dropped by nftables in a network namespace. Needs root, ip and nft."""
    del seed
    name, here, there = f"transom{os.getpid()}", "10.213.7.1", "10.213.7.2"

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
            return _finish("30 % packet loss", agent, sensors, heard)
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
        with _all(folder, state=disk / "state") as (_, agent, sensors, heard):
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
            return _finish("disk full, then not", agent, sensors, heard, problem=heard_problem(heard))
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def heard_problem(heard: Listener) -> str:
    return next((s["problems"][0] for s in heard.statuses if "problems" in s), "")


def corrupt_file(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """The state file is overwritten in the middle while the agent is away."""
    del scale, seed
    with _all(folder) as (_, agent, sensors, heard):
        with sensors.running(RATE):
            time.sleep(5)
        sensors.settle()
        agent.stop()
        state = agent.state / "transom.db"
        data = bytearray(state.read_bytes())
        data[100:] = os.urandom(len(data) - 100)
        state.write_bytes(data)
        since = len(agent.lines)
        agent.start().ready()
        agent.wait_for("is damaged", 10, since)
        aside = [p.name for p in agent.state.iterdir() if ".damaged-" in p.name]
        with sensors.running(RATE):
            time.sleep(5)
        wait_until(lambda: heard.counts().get("accepted", 0) > 0, 20, "no readings")
        report = Report("a corrupt state file", {
            "set aside as": aside, "log": next(line for line in agent.lines[since:] if "is damaged" in line),
            "readings after it": heard.counts()["accepted"], "exit status": agent.stop(),
            "sound again": sqlite3.connect(state).execute("PRAGMA integrity_check").fetchone()[0],
        })  # fmt: skip
        sensors.close()
        heard.close()
        return report


def read_only(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """A state folder on a file system mounted read-only. Needs root to mount it."""
    del scale, seed
    disk = folder / "disk"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,ro", "tmpfs", str(disk)], check=True)
    try:
        with _all(folder, state=disk / "state") as (_, agent, sensors, heard):
            with sensors.running(RATE):
                time.sleep(5)
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
                agent.wait_for("the journal is on", 30)
            return _finish("a read-only state folder, then not", agent, sensors, heard, problem=heard_problem(heard))
    finally:
        subprocess.run(["umount", str(disk)], check=False)


# --- load and time ------------------------------------------------------------------------------------------------------


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


class Blast:
    """Publishes as fast as a socket takes it: packets made by hand, acknowledgements only counted."""

    AHEAD = 20_000  # QoS 1 packets that are not acknowledged yet

    def __init__(self, port: int, qos: int) -> None:
        self._qos, self._sent, self._acknowledged = qos, 0, 0
        self._socket = socket.create_connection(("127.0.0.1", port))
        name = b"blast"
        body = b"\0\4MQTT\4\2\0\0" + len(name).to_bytes(2, "big") + name
        self._socket.sendall(bytes([0x10, len(body)]) + body)
        assert len(self._socket.recv(4)) == 4
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Blast":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _read(self) -> None:
        with suppress(OSError):
            while data := self._socket.recv(65536):
                self._acknowledged += len(data)  # four bytes each

    def send(self, messages: list[tuple[str, bytes]]) -> None:
        data = bytearray()
        for topic, payload in messages:
            self._sent += 1
            name = topic.encode()
            body = len(name).to_bytes(2, "big") + name
            if self._qos:
                body += (self._sent % 65_535 + 1).to_bytes(2, "big")
            body += payload
            length = len(body)
            data += bytes([0x30 | self._qos << 1])
            while length > 127:
                data.append(length % 128 | 128)
                length //= 128
            data.append(length)
            data += body
        while self._qos and self._sent - self._acknowledged // 4 > self.AHEAD:
            time.sleep(0.001)
        self._socket.sendall(data)

    def settle(self) -> None:
        if self._qos:
            wait_until(lambda: self._acknowledged // 4 >= self._sent, 120, "the broker has not taken the flood")


def flood(folder: Path, scale: float = 1, seed: int = 0, qos: int = 1) -> Report:
    """Far more than the agent can do, for 60 s, then an ordinary rate."""
    del seed
    with _all(folder, agent="inbox = 20000", broker=f"qos = {qos}", stream="stride = 8") as (
        broker,
        agent,
        sensors,
        heard,
    ):
        with sensors.running(RATE):
            time.sleep(5)
        sensors.settle()
        before, largest, sent = rss(agent.pid), 0, 0
        with Blast(broker.port, qos) as blast:
            end = time.monotonic() + 60 * scale
            while time.monotonic() < end:
                packets = []
                for _ in range(500):
                    body = {"value": sent % 7, "time": (sensors.begin + sent) / 1000, "n": sent // 50}
                    packets.append((f"plant/flood{sent % 50}/x", json.dumps(body).encode()))
                    sent += 1
                blast.send(packets)
                largest = max(largest, rss(agent.pid))
            blast.settle()
        total = sent + sensors.sent * sensors.series
        overloaded = any(h["overloaded"] for h in heard.health)

        def drained() -> bool:
            counts = heard.counts()
            return counts["accepted"] + counts["missing"] + counts["shed"] >= total

        with suppress(AssertionError):
            wait_until(drained, 240 * max(1, scale), "")
        begun = time.monotonic()
        with sensors.running(RATE):
            time.sleep(5)
        sensors.settle()
        told = len(heard.health)
        wait_until(lambda: len(heard.health) > told + 2, 20, "no health")
        counts = heard.counts()
        report = Report(f"a flood at QoS {qos}", {
            "sent": sent + sensors.sent * sensors.series, "received": counts["received"], "accepted": counts["accepted"],
            "shed": counts["shed"], "missing": counts["missing"], "late or duplicate": counts["late"] + counts["duplicate"],
            "accounts balance": all(balanced(h["streams"]["s"]) for h in heard.health), "said overloaded": overloaded,
            "MB before": before >> 20, "MB at most": largest >> 20, "ordinary again": time.monotonic() - begun < 60,
            "inbox at the end": heard.health[-1]["inbox"], "starts of the agent": agent.starts,
            "exit status": agent.stop(),
        })  # fmt: skip
        sensors.close()
        heard.close()
        return report


def soak(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """An ordinary load for 3 minutes: memory, threads and file descriptors must not grow."""
    del seed
    with _all(folder) as (_, agent, sensors, heard):
        with sensors.running(RATE):
            time.sleep(40 * min(1, scale))
            seen: list[tuple[float, int, int, int]] = []
            end = time.monotonic() + 180 * scale
            while time.monotonic() < end:
                proc = Path(f"/proc/{agent.pid}")
                seen.append((
                    time.monotonic(), rss(agent.pid), len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))
                ))  # fmt: skip
                time.sleep(1)
        rows = np.array(seen)
        slope = float(np.polyfit(rows[:, 0] - rows[0, 0], rows[:, 1], 1)[0])
        return _finish(
            f"a soak of {180 * scale:.0f} s", agent, sensors, heard, **{
                "MB at the beginning": int(rows[0, 1]) >> 20, "MB at the end": int(rows[-1, 1]) >> 20,
                "kB a minute": round(slope * 60 / 1024, 1), "threads": sorted(set(rows[:, 2].astype(int).tolist())),
                "file descriptors": sorted(set(rows[:, 3].astype(int).tolist())),
            },
        )  # fmt: skip


def reloads(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """SIGHUP, a changed file and a refused one, while readings come in."""
    del scale, seed
    with _all(folder) as (_, agent, sensors, heard):
        with sensors.running(RATE):
            time.sleep(4)
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
        return _finish("configuration reloaded", agent, sensors, heard)


SCENARIOS = {
    "kill-agent": kill_agent, "kill-broker": kill_broker, "kill-both": kill_both, "cut-link": cut_link,
    "slow-link": slow_link, "half-open": half_open, "packet-loss": packet_loss, "disk-full": disk_full,
    "corrupt-file": corrupt_file, "read-only": read_only, "flood": flood, "soak": soak, "reloads": reloads,
}  # fmt: skip
