"""Readings a second from sensor to prediction through mosquitto, Transom beside another program in the same run.

    end_to_end.py [--naive PROGRAM] [--series 1000] [--seconds 10] [--rounds 3] [--json FILE]

PROGRAM is a Python script that takes PORT and QOS, prints READY, reads {"ts","seq","v"} from plant/#, and publishes
a prediction a reading once it has 64 of a series. The load is closed: at most --ahead readings are on their way, so
nothing is lost and the rate is what the program can do. Programs take turns; the ratio is of the medians. Needs
mosquitto.
"""

import argparse
import json
import os
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from transom.edge import packets

LENGTH = 64


class Load:
    """One MQTT 3.1.1 connection that publishes readings and counts predictions."""

    def __init__(self, port: int, filters: list[str]) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04load")
        for i, name in enumerate(filters, 1):
            body = i.to_bytes(2, "big") + len(name).to_bytes(2, "big") + name.encode() + b"\0"
            self.sock.sendall(bytes([0x82, len(body)]) + body)
        self.left, self.sent, self.heard, self.seq = b"", 0, 0, 0
        self.sent_at: dict[int, float] = {}
        time.sleep(0.3)
        self.sock.setblocking(False)

    def batch(self, count: int, series: int) -> bytes:
        now, made = time.time(), []
        for _ in range(count):
            i, self.seq = self.seq % series, self.seq + 1
            value = 20 + (self.seq * 7919 % 1000) / 500
            body = b'{"ts":%.6f,"seq":%d,"v":%.3f}' % (now + self.seq * 1e-7, self.seq, value)
            made.append((f"plant/d{i}/v", body))
        self.sent += count
        return packets.publish(made, False)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([self.sock], [self.sock], [], 1.0)
            self.read()
            if writable:
                view = view[self.sock.send(view) :]

    def read(self) -> None:
        while True:
            try:
                data = self.sock.recv(1 << 20)
            except BlockingIOError:
                return
            if not data:
                raise ConnectionError("the broker closed the connection")
            data, at = self.left + data, 0
            while True:
                found, at, length = packets.parse(data, at, False)
                self.heard += len(found)
                if not length or at + length > len(data):
                    break
                at += length
            self.left = data[at:]

    def fill(self, series: int, rate: int) -> None:
        """All but the last reading of each window, at a rate that everyone keeps up with."""
        begun = time.monotonic()
        for n in range(LENGTH - 1):
            self.send(self.batch(series, series))
            time.sleep(max(0.0, (n + 1) * series / rate - (time.monotonic() - begun)))
        time.sleep(2.0)
        self.read()
        self.heard = self.sent = 0

    def run(self, series: int, ahead: int, seconds: float) -> float:
        """Predictions a second."""
        self.send(self.batch(series, series))
        end = time.monotonic() + 60
        while self.heard < series and time.monotonic() < end:
            select.select([self.sock], [], [], 0.1)
            self.read()
        begun, before = time.monotonic(), self.heard
        while time.monotonic() - begun < seconds:
            room = ahead - (self.sent - self.heard)
            if room >= 100:
                self.send(self.batch(min(room, 1000), series))
            select.select([self.sock], [], [], 0.01)
            self.read()
        return (self.heard - before) / (time.monotonic() - begun)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def model(folder: Path) -> Path:
    """LSTM(32) over windows of 64 x 1, trained for an epoch: what it says does not matter here."""
    rows = "\n".join(f"{i},{20 + i * 7919 % 1000 / 500}" for i in range(1200))
    (folder / "v.csv").write_text(f"time,v\n{rows}\n")
    command = ["train", "--data", str(folder / "v.csv"), "--family", "lstm", "--hidden", "32", "--length", str(LENGTH),
               "--method", "residual", "--epochs", "1", "--output", str(folder / "v.pt")]  # fmt: skip
    subprocess.run([sys.executable, "-m", "transom", *command], check=True, capture_output=True)
    return folder / "v.pt"


def transom(port: int, folder: Path, file: Path, qos: int, durability: str) -> list[str]:
    (folder / "bench.toml").write_text(f"""
[agent]
id = "bench"
state = "{folder / "state"}"
durability = "{durability}"
[broker]
port = {port}
qos = {qos}
[streams.bench]
topic = "plant/{{device}}/{{channel}}"
value = "v"
time = "ts"
model = "{file}"
step = "reading"
""")
    return [sys.executable, "-m", "transom", "run", "-c", str(folder / "bench.toml")]


def measure(
    command: list[str], port: int, filters: list[str], args: argparse.Namespace, ready: str
) -> dict[str, float]:
    out, environment = subprocess.PIPE, dict(os.environ, PYTHONUNBUFFERED="1")
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if ready in line:
                break
        else:
            raise SystemExit(f"{command} ended before it was ready")
        load = Load(port, filters)
        load.fill(args.series, args.fill)
        usage = psutil.Process(process.pid)
        before = sum(usage.cpu_times()[:2])
        heard = load.heard
        rate = load.run(args.series, args.ahead, args.seconds)
        cpu = (sum(usage.cpu_times()[:2]) - before) / max(1, load.heard - heard) * 1e6
        return {"rate": rate, "cpu_us": cpu, "rss_mb": usage.memory_info().rss / 1e6}
    finally:
        process.terminate()
        process.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--naive", type=Path, help="the program to compare with")
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ahead", type=int, default=5000)
    parser.add_argument("--fill", type=int, default=8000, help="readings a second while windows fill")
    parser.add_argument("--qos", type=int, default=0)
    parser.add_argument("--durability", default="none")
    parser.add_argument("--json", type=Path, help="where the raw results go")
    args = parser.parse_args()
    binary = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
    if binary is None:
        raise SystemExit("mosquitto is not installed")
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        lines = (f"listener {port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 0", "set_tcp_nodelay true")
        (folder / "m.conf").write_text("\n".join(lines) + "\n")
        broker = subprocess.Popen([binary, "-c", str(folder / "m.conf")], stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            file = model(folder)
            for number in range(args.rounds):
                if args.naive:
                    command = [sys.executable, str(args.naive), str(port), str(args.qos)]
                    results.setdefault("naive", []).append(measure(command, port, ["pred/#"], args, "READY"))
                command = transom(port, folder, file, args.qos, args.durability)
                filters = ["transom/bench/bench/+/prediction", "transom/bench/bench/+/+/prediction"]
                results.setdefault("transom", []).append(measure(command, port, filters, args, "ready:"))
                for who, rows in results.items():
                    figures = "".join(f"  {name} {value:,.1f}" for name, value in rows[-1].items())
                    print(f"round {number + 1} {who:8}{figures}", flush=True)
        finally:
            broker.terminate()
            broker.wait(10)
    rate = {who: statistics.median(r["rate"] for r in rows) for who, rows in results.items()}
    print("  ".join(f"{who} {value:,.0f}/s" for who, value in rate.items()))
    if "naive" in rate:
        print(f"ratio {rate['transom'] / rate['naive']:.1f}")
    if args.json:
        args.json.write_text(json.dumps({"arguments": vars(args), "results": results}, default=str, indent=1))


if __name__ == "__main__":
    main()
