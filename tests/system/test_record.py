"""`transom record` beside a live agent: what it writes gives the same predictions, and says where it heard nothing."""

import base64
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Mosquitto, missing
from tests_support import Heard
from transom.cli import main
from transom.core import recorded
from transom.edge.assembly import build_pipeline
from transom.edge.recorder import Files, record
from transom.edge.recorder import Heard as Recorded
from transom.edge.service import Agent
from transom.edge.wire import broker_options
from transom.errors import BrokerError, RecordingError
from transom.settings import Settings, load_settings

pytestmark = pytest.mark.mosquitto

PUMPS = '[streams.pumps]\ntopic = "plant/{device}/{channel}"\n[streams.pumps.channels.flow]\nunit = "l/min"\n'


def configured(folder: Path, port: int) -> Path:
    path = folder / "plant.toml"
    path.write_text(f'[agent]\nid = "gw"\nstate = "{folder / "state"}"\n[broker]\nport = {port}\n{PUMPS}')
    return path


class Recording:
    """`with Recording(settings, path) as it: … it.stop()`: a recorder in a thread, whose counts can be waited for."""

    def __init__(self, settings: Settings, path: Path, filters: tuple[str, ...] = ("plant/#",), **more: object) -> None:
        streams = {"pumps": {"topic": "plant/{device}/{channel}"}}
        self.files = Files(
            path, lambda now: recorded.word("begin", now, filters=list(filters), streams=streams), **more
        )  # type: ignore[arg-type]
        self.heard = Recorded()
        self.error: Exception | None = None
        self._ended, self._ready, self._changed = threading.Event(), threading.Event(), threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(settings, filters))

    def _run(self, settings: Settings, filters: tuple[str, ...]) -> None:
        try:
            self.heard = record(
                broker_options(settings), filters, self.files, self._ended, on_look=self._look, ready=self._ready
            )
        except (BrokerError, RecordingError) as error:
            self.error = error
            self._ready.set()

    def _look(self, heard: Recorded) -> None:
        with self._changed:
            self.heard = heard
            self._changed.notify_all()

    def wait_for(self, there: Callable[[Recorded], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: there(self.heard), 20), self.heard

    def __enter__(self) -> "Recording":
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(20)

    def __exit__(self, *_: object) -> None:
        self.stop()


def lines_of(path: Path) -> list[dict[str, object]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in raw.splitlines()]


def test_a_replay_of_a_recording_gives_what_the_agent_said_live(mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    port = mosquitto_broker.port
    config = configured(tmp_path, port)
    settings = load_settings(config, {})
    agent, stop = Agent(settings, build_pipeline(settings)), threading.Event()
    running = threading.Thread(target=agent.run, args=(stop,))
    with Heard(port, "transom/gw/#") as other:
        other.client.publish("plant/a/flow", "3", qos=1, retain=True).wait_for_publish(10)
        running.start()
        assert agent.ready.wait(20)
        with Recording(settings, tmp_path / "day.jsonl.gz") as recording:
            for i in range(200):
                other.client.publish(
                    "plant/a/flow",
                    json.dumps({"time": 1_767_225_600 + i, "value": 20 + i % 5 if i < 150 else 80}),
                    qos=1,
                )
                other.client.publish("plant/b/flow", str(i % 7))
            other.wait_until(lambda m: sum(len(v) for t, v in m.items() if t.endswith("/prediction")) >= 2 * 185, 40)
            recording.wait_for(lambda heard: heard.messages >= 401)
        stop.set()
        running.join(20)
    live = {topic: lines for topic, lines in other.messages.items() if topic.endswith("/prediction")}
    out, alerts = tmp_path / "out.jsonl", tmp_path / "alerts.jsonl"
    assert (
        main(
            ["replay", str(tmp_path / "day.jsonl.gz"), "-c", str(config), "--output", str(out), "--alerts", str(alerts)]
        )
        == 0
    )
    again = [line for line in out.read_bytes().splitlines() if b'"a/flow"' in line]
    assert again == live["transom/gw/pumps/a/flow/prediction"]
    # The other names no time, so that it has the time of arrival at either client: milliseconds apart, the rest equal.
    timeless = [
        {k: v for k, v in json.loads(line).items() if k not in ("time", "p_value")}
        for line in out.read_bytes().splitlines()
        if b'"b/flow"' in line
    ]
    assert timeless == [
        {k: v for k, v in json.loads(line).items() if k not in ("time", "p_value")}
        for line in live["transom/gw/pumps/b/flow/prediction"]
    ]
    assert [json.loads(line)["id"] for line in alerts.read_bytes().splitlines()] == [
        json.loads(line)["id"] for line in other.messages["transom/gw/pumps/a/flow/alert"]
    ]
    written = lines_of(tmp_path / "day.jsonl.gz")
    assert {"topic": "plant/a/flow", "payload": "3", "qos": 1, "retained": True}.items() <= written[1].items()
    assert [line["event"] for line in (written[0], written[-1])] == ["begin", "end"]


def test_a_recording_survives_the_broker_and_says_how_long_it_was_away(
    mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    settings = load_settings(configured(tmp_path, mosquitto_broker.port), {})
    with Recording(settings, tmp_path / "day.jsonl") as recording:
        with Heard(mosquitto_broker.port, "none") as other:
            other.client.publish("plant/a/flow", "1", qos=1).wait_for_publish(10)
        recording.wait_for(lambda heard: heard.messages == 1)
        mosquitto_broker.stop()
        mosquitto_broker.start()
        recording.wait_for(lambda heard: heard.gap_count == 1)
        with Heard(mosquitto_broker.port, "none") as other:
            other.client.publish("plant/a/flow", "2", qos=1).wait_for_publish(10)
        recording.wait_for(lambda heard: heard.messages == 2)
    kinds = [line.get("event") or line["payload"] for line in lines_of(tmp_path / "day.jsonl")]
    assert kinds == ["begin", "1", "gap", "2", "end"]
    (gap,) = [line for line in lines_of(tmp_path / "day.jsonl") if line.get("event") == "gap"]
    assert 0 < float(str(gap["seconds"])) < 20
    assert recording.heard.gaps[0][2] == "not connected to the broker"


def test_files_are_begun_anew_at_their_size_and_the_newest_are_kept(
    mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    settings = load_settings(configured(tmp_path, mosquitto_broker.port), {})
    with (
        Recording(settings, tmp_path / "ring.jsonl", limit=64 << 10, keep=2) as recording,
        Heard(mosquitto_broker.port, "none") as other,
    ):
        for i in range(2000):
            other.client.publish("plant/a/flow", f"{i:0100}", qos=1)
        recording.wait_for(lambda heard: heard.messages == 2000)
    kept = sorted(tmp_path.glob("ring*"))
    assert len(kept) == 2
    assert all(
        (64 << 10) - 300 < path.stat().st_size < (64 << 10) + 300 for path in kept if path != recording.files.paths[-1]
    )
    assert all(lines_of(path)[0]["event"] == "begin" and lines_of(path)[-1]["event"] == "end" for path in kept)
    numbers = [
        int(str(line["payload"])) for path in recording.files.paths for line in lines_of(path) if "payload" in line
    ]
    assert numbers == list(range(numbers[0], 2000))
    assert recording.heard.size == sum(path.stat().st_size for path in kept)


def test_a_file_of_a_limited_size_ends_the_recording(mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    settings = load_settings(configured(tmp_path, mosquitto_broker.port), {})
    with (
        Recording(settings, tmp_path / "day.jsonl.gz", limit=64 << 10) as recording,
        Heard(mosquitto_broker.port, "none") as other,
    ):
        for _ in range(600):
            other.client.publish("plant/a/flow", os.urandom(400), qos=0)
        recording._thread.join(20)
    assert not recording._thread.is_alive()
    assert recording.files.full
    assert (64 << 10) - 2000 < (tmp_path / "day.jsonl.gz").stat().st_size < (64 << 10) + 2000
    assert recording.heard.messages == sum("topic" in line for line in lines_of(tmp_path / "day.jsonl.gz"))


def test_a_disk_that_is_nearly_full_ends_the_recording_and_leaves_it_whole(
    mosquitto_broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(configured(tmp_path, mosquitto_broker.port), {})
    with (
        Recording(settings, tmp_path / "day.jsonl.gz") as recording,
        Heard(mosquitto_broker.port, "none") as other,
    ):
        other.client.publish("plant/a/flow", "1", qos=1).wait_for_publish(10)
        recording.wait_for(lambda heard: heard.messages == 1)
        monkeypatch.setattr("transom.edge.recorder.LEAST_FREE", 1 << 62)
        recording._thread.join(20)
    assert "the disk has less than" in str(recording.error)
    assert [line.get("event", line.get("payload")) for line in lines_of(tmp_path / "day.jsonl.gz")] == [
        "begin",
        "1",
        "end",
    ]


def test_a_refused_subscription_ends_it_with_the_reason(mosquitto: Callable[..., Mosquitto], tmp_path: Path) -> None:
    plugin = next(Path("/usr/lib").rglob("mosquitto_dynamic_security.so"), None)
    if plugin is None:
        missing("mosquitto has no dynamic security plugin")
    password = base64.b64encode(hashlib.pbkdf2_hmac("sha512", b"secret", b"0123456789ab", 101)).decode()
    me = {"username": "me", "salt": base64.b64encode(b"0123456789ab").decode(), "password": password, "iterations": 101}
    allowed = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    (tmp_path / "rights.json").write_text(
        json.dumps({"defaultACLAccess": allowed, "clients": [me], "groups": [], "roles": []})
    )
    broker = mosquitto(
        "allow_anonymous false", f"plugin {plugin}", f"plugin_opt_config_file {tmp_path / 'rights.json'}"
    )
    settings = load_settings(
        None, {"broker": {"port": broker.port, "username": "me", "password": "secret"}}, need_streams=False
    )
    with Recording(settings, tmp_path / "day.jsonl", ("plant/+/+",)) as recording:
        pass
    assert "refuses the subscription to plant/+/+" in str(recording.error)
    assert [line["event"] for line in lines_of(tmp_path / "day.jsonl")] == ["begin", "end"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly_when_told_to_and_its_recording_needs_no_configuration(
    number: int, mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    config = configured(tmp_path, mosquitto_broker.port)
    command = [sys.executable, "-m", "transom", "record", "-c", str(config), "--output", str(tmp_path / "day.jsonl.gz")]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as recorder,
        Heard(mosquitto_broker.port, "$SYS/broker/subscriptions/count") as other,
    ):
        # Retained, so that it comes whenever the recorder has subscribed.
        for i in range(40):
            other.client.publish(
                f"plant/device-{i}/flow", json.dumps({"time": 1_767_225_600 + i, "value": i}), retain=True
            )
        path = tmp_path / "day.jsonl.gz"
        waited = threading.Event()
        for _ in range(200):
            if path.exists() and path.stat().st_size > 300:  # a second after the messages
                break
            waited.wait(0.1)
        recorder.send_signal(number)
        said, errors = recorder.communicate(timeout=20)
    assert recorder.returncode == 0, errors
    assert "40 messages of 40 topics" in said
    out = tmp_path / "out.jsonl"
    assert main(["replay", str(path), "--output", str(out)]) == 0
    begin = lines_of(path)[0]
    assert begin["streams"] == {"pumps": {"topic": "plant/{device}/{channel}", "channels": {"flow": {"unit": "l/min"}}}}


def test_a_recording_that_is_there_is_not_written_over(
    mosquitto_broker: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, config = tmp_path / "day.jsonl", configured(tmp_path, mosquitto_broker.port)
    words = ["record", "-c", str(config), "--output", str(path), "--seconds", "0.3"]
    assert main(words) == 0
    before = path.read_bytes()
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert main([*words, "--append"]) == 0
    assert [line["event"] for line in lines_of(path)] == ["begin", "end", "begin", "end"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--output", "-"], "goes into a file"),
        (["--output", "x.jsonl"], "nothing to listen to"),
        (["--output", "x.jsonl", "--topic", "a/#/b"], "has '#' before the end"),
        (["--output", "x.jsonl", "--topic", "a", "--seconds", "0"], "no time at all"),
        (["--output", "x.jsonl", "--topic", "a", "--keep", "3"], "--max-size"),
        (["--output", "x.jsonl", "--topic", "a", "--max-size", "5"], "too small"),
        (["--output", "x.jsonl", "--topic", "a", "--max-size", "huge"], "is not a size"),
        (["--output", "x.jsonl", "--topic", "a", "--broker.port", "1"], "nothing listens there"),
        (["--output", "none/x.jsonl", "--topic", "a"], "nothing listens there"),
    ],
)
def test_what_cannot_be_recorded_is_one_line(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--broker.port" not in words:
        words = [*words, "--broker.port", "1"]
    assert main(["record", *words]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("transom: ") == 1
