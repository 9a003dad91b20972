"""Receiving and publishing by several clients through one mosquitto, taking turns: rate and CPU a message.

    transports.py [--messages 100000] [--rounds 3] [--gmqtt PYTHON] [--json FILE]

ours: paho for the log-in, our own packets (`transom.edge.client`); paho: the same with plain paho; gmqtt: where the
interpreter PYTHON has it (python3 -m venv /tmp/g && /tmp/g/bin/pip install gmqtt; --gmqtt /tmp/g/bin/python);
mosquitto_sub: the bound of a C program. Each receives small JSON of 1,000 topics and counts it, nothing is decoded;
then each publishes as many. Medians over the rounds; the programs are started before their time is taken.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from transom.bench.load import Load, publish
from transom.bench.private import Private, find, private
from transom.bench.processes import Program
from transom.bench.readings import plain

HERE = Path(__file__).parent
WAIT = 120.0


def receive(
    broker: Private, command: list[str], count: int, qos: int, name: str, *, silent: bool
) -> tuple[float, float]:
    """(messages a second, µs of CPU each). The program ends by itself after `count`."""
    load = Load(broker.port, [plain()], 1000, [])
    try:
        portions = [publish(load.readings(1000), qos, 1 + 1000 * i) for i in range(count // 1000)]
        with Program(command, None, devnull=silent) as program:
            broker.wait_subscribed(f"{name} {qos}")
            begun, cpu = time.monotonic(), program.cpu()
            for data in portions:
                load.write(data)
            ended = program.wait(WAIT)
            if ended is None:
                raise SystemExit(f"{name} has not received everything after {WAIT:.0f} s: {list(program.said)}")
            return count / (ended[0] - begun), 1e6 * (ended[1] - cpu) / count
    finally:
        load.close()


def send(broker: Private, command: list[str], count: int) -> tuple[float, float]:
    """The same for a program that publishes: it waits for a message on `go`, and tells its seconds and its CPU."""
    with Program([*command, str(broker.port), str(count)], "READY") as program:
        if not program.wait_for("SENT ", WAIT):
            raise SystemExit(f"{command} has not published everything: {list(program.said)}")
        _, seconds, cpu = next(line for line in program.said if line.startswith("SENT ")).split()
        return count / float(seconds), 1e6 * float(cpu) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000, help="rounded down to thousands")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gmqtt", default="", help="an interpreter that has gmqtt")
    parser.add_argument("--json", type=Path, help="where the raw results go")
    args = parser.parse_args()
    if find("mosquitto") is None:
        raise SystemExit("mosquitto is not installed: apt install mosquitto mosquitto-clients")
    count = max(1000, args.messages // 1000 * 1000)
    python = {"ours": sys.executable, "paho": sys.executable}
    if args.gmqtt:
        found = shutil.which(args.gmqtt)
        if found is None or subprocess.run([found, "-c", "import gmqtt"], capture_output=True, check=False).returncode:
            raise SystemExit(f"{args.gmqtt} has no gmqtt: {args.gmqtt} -m pip install gmqtt")
        python["gmqtt"] = found
    raw: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, private(Path(folder)) as broker:
        for number in range(args.rounds):
            for qos in (0, 1):
                for who, interpreter in python.items():
                    name = f"{who}-{qos}-{number}"
                    command = [
                        interpreter,
                        str(HERE / "client.py"),
                        who,
                        "receive",
                        str(broker.port),
                        str(count),
                        str(qos),
                        name,
                    ]
                    raw[f"{who} receives, QoS {qos}"].append(receive(broker, command, count, qos, name, silent=False))
                if binary := find("mosquitto_sub"):
                    name = f"sub-{qos}-{number}"
                    command = [
                        binary,
                        "-p",
                        str(broker.port),
                        "-i",
                        name,
                        "-q",
                        str(qos),
                        "-C",
                        str(count),
                        "-t",
                        "plant/#",
                    ]
                    raw[f"mosquitto_sub receives, QoS {qos}"].append(
                        receive(broker, command, count, qos, name, silent=True)
                    )
            for who, interpreter in python.items():
                command = [interpreter, str(HERE / "client.py"), who, "send"]
                raw[f"{who} publishes, QoS 0"].append(send(broker, command, count))
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    for what, figures in sorted(raw.items(), key=lambda item: item[0].split(" ", 1)[1]):
        rate, cpu = (statistics.median(values) for values in zip(*figures, strict=True))
        print(f"{what:32}{rate:12,.0f} messages/s{cpu:10.1f} µs of CPU each")
    if args.json:
        args.json.write_text(json.dumps({"arguments": vars(args), "results": raw}, default=str, indent=1))


if __name__ == "__main__":
    main()
