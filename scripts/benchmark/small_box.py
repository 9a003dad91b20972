"""An agent in a control group with a part of a core and little memory: what it needs, and whether it keeps up.

    small_box.py [--runtime onnx|torchscript] [--core 0.25] [--memory 512] [--rate 200] [--series 1000] [--seconds 30]
                 [--json FILE]

Starts mosquitto and `transom run` with the shipped model, the agent alone within the limits (control groups, version 1
or 2; needs root), gives every series the readings of its first window, and then measures while it sends --rate
readings a second. Exit status 1 if a reading had no prediction.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho

FIRST = 15  # readings of a series before its first window
GROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def limits(core: float, memory: int) -> Iterator[list[Path]]:
    """core: share of one; memory: MiB -> the files into which a process id is written to bring it under the limits."""
    name, period = f"transom-small-box-{os.getpid()}", 100_000
    if (GROUPS / "cgroup.controllers").exists():
        rules = {GROUPS / name: {"cpu.max": f"{int(core * period)} {period}", "memory.max": str(memory << 20)}}
    else:
        rules = {
            GROUPS / "cpu" / name: {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": str(int(core * period))},
            GROUPS / "memory" / name: {"memory.limit_in_bytes": str(memory << 20)},
        }
    made: list[Path] = []
    try:
        for folder, files in rules.items():
            folder.mkdir()
            made.append(folder)
            for file, text in files.items():
                (folder / file).write_text(text)
        yield [folder / "cgroup.procs" for folder in made]
    except PermissionError as error:
        sys.exit(f"small_box: {error.filename}: no control groups may be made here: run it as root")
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # until the kernel has seen the last process leave
                for _ in range(50):
                    try:
                        folder.rmdir()
                        break
                    except OSError:
                        time.sleep(0.1)


class Sensors:
    """Series that send one reading each in turn, and hear their predictions."""

    def __init__(self, port: int, series: int) -> None:
        self.series, self.sent_at, self.sent, self.heard = series, [0.0] * series, 0, 0
        self.taken: list[float] = []
        self.online = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = self._take
        self.client.connect("127.0.0.1", port)
        self.client.subscribe([("transom/box/s/#", 0), ("transom/box/status", 1)])
        self.client.loop_start()

    def _take(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/prediction"):
            self.heard += 1
            self.taken.append(time.perf_counter() - self.sent_at[int(message.topic.split("/")[3])])
        elif b"online" in message.payload:
            self.online.set()

    def send(self, count: int, rate: float) -> None:
        """count readings, evenly spaced, whatever becomes of them."""
        begun = time.perf_counter()
        for i in range(count):
            wait = begun + i / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            one = self.sent % self.series
            self.sent += 1
            self.sent_at[one] = time.perf_counter()
            self.client.publish(f"plant/{one}/v", f"{20 + self.sent * 7919 % 1000 / 500:.3f}")

    def wait(self, heard: int, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while self.heard < heard and time.perf_counter() < end:
            time.sleep(0.05)


def needed(pid: int) -> tuple[float, float]:
    """Seconds of processor time so far, and MiB resident."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), resident / 1024


def measure(args: argparse.Namespace, folder: Path) -> dict[str, float | str]:
    mosquitto = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if mosquitto is None:
        sys.exit("small_box: mosquitto is not installed (apt install mosquitto)")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (folder / "m.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nuser root\n"
    )
    (folder / "a.toml").write_text(
        f'[agent]\nid = "box"\nstate = "{folder}/state"\nruntime = "{args.runtime}"\n[broker]\nport = {port}\nqos = 0\n'
        '[streams.s]\ntopic = "plant/{device}/{channel}"\nmodel = "universal"\nfalse_alarms = "1/year"\n'
    )
    broker = subprocess.Popen([mosquitto, "-c", str(folder / "m.conf")], stderr=subprocess.DEVNULL)
    agent = None
    try:
        time.sleep(0.5)
        sensors = Sensors(port, args.series)
        with limits(args.core, args.memory) as groups:
            enter = "".join(f"echo $$ > {file}; " for file in groups)
            command = [sys.executable, "-m", "transom", "run", "-c", f"{folder}/a.toml"]
            begun = time.perf_counter()
            agent = subprocess.Popen(
                ["sh", "-c", f'{enter} exec "$@"', "sh", *command], stderr=(folder / "log").open("wb")
            )
            if not sensors.online.wait(120):
                sys.exit(f"small_box: the agent did not come up:\n{(folder / 'log').read_text()}")
            ready, (ready_cpu, _) = time.perf_counter() - begun, needed(agent.pid)
            sensors.send(FIRST * args.series, 5 * args.rate)
            sensors.send(args.series, args.rate)  # each has its first window now
            sensors.wait(args.series, 30)
            sent, heard, (cpu, _) = sensors.sent, sensors.heard, needed(agent.pid)
            sensors.taken.clear()
            begun = time.perf_counter()
            sensors.send(int(args.rate * args.seconds), args.rate)
            seconds = time.perf_counter() - begun
            count = sensors.sent - sent
            sensors.wait(heard + count, 10)
            cpu, resident = needed(agent.pid)[0] - cpu, needed(agent.pid)[1]
            agent.terminate()
            agent.wait(30)
    finally:
        for process in filter(None, (agent, broker)):
            if process.poll() is None:
                process.kill()
                process.wait()
    taken = sorted(sensors.taken)
    return {
        "runtime": args.runtime, "core": args.core, "memory_mib": args.memory, "series": args.series,
        "start_to_ready_s": round(ready, 2), "start_cpu_s": round(ready_cpu, 2),
        "sent_per_s": round(count / seconds, 1), "predictions_missing": heard + count - sensors.heard,
        "p50_ms": round(1000 * statistics.median(taken), 1), "p99_ms": round(1000 * taken[int(0.99 * len(taken))], 1),
        "core_used": round(cpu / seconds, 3), "resident_mib": round(resident, 1),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=("onnx", "torchscript"), default="onnx")
    parser.add_argument("--core", type=float, default=0.25, help="share of one core (default: 0.25)")
    parser.add_argument("--memory", type=int, default=512, help="MiB (default: 512)")
    parser.add_argument("--rate", type=float, default=200, help="readings a second (default: 200)")
    parser.add_argument("--series", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--seconds", type=float, default=30, help="of the measurement (default: 30)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="small-box-") as folder:
        found = measure(args, Path(folder))
    for name, value in found.items():
        print(f"{name:20} {value}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(found["predictions_missing"] != 0)


if __name__ == "__main__":
    sys.exit(main())
