"""The same recording replayed, and sent live through two brokers, gives the same predictions and alerts."""

import json
import threading
from collections import defaultdict
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from transom.cli import main
from transom.core.pipeline import Message
from transom.edge import recordings
from transom.edge.assembly import build_pipeline
from transom.edge.service import Agent
from transom.settings import load_settings

FILES = ("realKnownCause/rogue_agent_key_updown.csv", "artificialWithAnomaly/art_daily_flatmiddle.csv")
ROWS = 1500


class Listener:
    """Collects what an agent publishes, by topic, and says when so many predictions have come."""

    def __init__(self, port: int, agent: str) -> None:
        self.lines: dict[str, list[bytes]] = defaultdict(list)
        self._changed = threading.Condition()
        self.subscribed = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda c, *_: c.subscribe(f"transom/{agent}/#", qos=1)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = self._take
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.subscribed.wait(10)

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            self.lines[message.topic].append(message.payload)
            self._changed.notify_all()

    def predictions(self) -> list[bytes]:
        return [line for topic, lines in self.lines.items() if topic.endswith("/prediction") for line in lines]

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.predictions()) >= count, 60), len(self.predictions())

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def head(path: Path, folder: Path, rows: int) -> Path:
    """The first rows of a recording, as a file of their own."""
    target = folder / path.name
    with path.open() as whole, target.open("w") as part:
        part.writelines(line for line, _ in zip(whole, range(rows + 1), strict=False))
    return target


def payloads(paths: list[Path]) -> list[Message]:
    tables = [recordings.open_table(p, name) for p, name in recordings.series_names(paths).items()]
    return [m for batch in recordings.table_messages(tables) for _, messages in batch for m in messages]


def live(port: int, messages: list[Message], windows: int, state: Path, chunk: int) -> tuple[list[bytes], list[bytes]]:
    """Predictions and alerts of an agent that hears these messages, sent at most `chunk` ahead of its answers."""
    settings = load_settings(None, {
        "agent.id": "same", "agent.state": str(state), "broker.port": str(port), "streams.replay.topic": "replay/{series}",
        "streams.replay.payload": "json", "streams.replay.value": "value", "streams.replay.time": "time",
        "streams.replay.time_unit": "us",
    })  # fmt: skip
    agent, stop = Agent(settings, build_pipeline(settings)), threading.Event()
    running = threading.Thread(target=agent.run, args=(stop,))
    listener = Listener(port, "same")
    running.start()
    try:
        assert agent.ready.wait(20)
        per_message = windows / len(messages)
        for begin in range(0, len(messages), chunk):
            for message in messages[begin : begin + chunk]:
                listener.client.publish(message.topic, message.payload, qos=1)
            listener.wait_for(int(per_message * begin) - 200)
        listener.wait_for(windows)
    finally:
        stop.set()
        running.join(20)
        listener.close()
    alerts = [line for topic, lines in listener.lines.items() if topic.endswith("/alert") for line in lines]
    return sorted(listener.predictions()), sorted(alerts)


@pytest.fixture(scope="module")
def replayed(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[bytes], list[bytes]]:
    folder = tmp_path_factory.mktemp("replayed")
    paths = [head(data_dir / "nab" / name, folder, ROWS) for name in FILES]
    out, alerts = folder / "out.jsonl", folder / "alerts.jsonl"
    assert main(["replay", *map(str, paths), "--output", str(out), "--alerts", str(alerts)]) == 0
    return paths, sorted(out.read_bytes().splitlines()), sorted(alerts.read_bytes().splitlines())


@pytest.mark.data
@pytest.mark.parametrize("broker", ["amqtt_broker", pytest.param("mosquitto_broker", marks=pytest.mark.mosquitto)])
def test_live_through_a_broker_equals_replay(
    broker: str, replayed: tuple[list[Path], list[bytes], list[bytes]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    paths, predictions, alerts = replayed
    port = request.getfixturevalue(broker).port
    messages = payloads(paths)
    assert len(messages) == ROWS * len(FILES)
    seen, told = live(port, messages, len(predictions), tmp_path / "state", chunk=250)
    assert seen == predictions
    assert told == alerts


@pytest.mark.data
def test_replay_gives_a_line_a_window_in_the_contract_s_form(
    replayed: tuple[list[Path], list[bytes], list[bytes]],
) -> None:
    _, predictions, _ = replayed
    lines = [json.loads(line) for line in predictions]
    assert {line["series"] for line in lines} == {Path(name).stem for name in FILES}
    for line in lines:
        assert 0 < line["p_value"] <= 1
        assert line["state"] in {"learning", "normal", "pending", "alert", "stale"}
        assert set(line["value"]) == set(line["expected"]) == set(line["interval"]) == {"value"}
        assert line["time"].endswith("Z")
        assert line["model"].startswith("universal@")
