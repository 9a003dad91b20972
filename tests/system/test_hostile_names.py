"""Names that come over the network, at every place where the agent lets them out: shown, and never obeyed.

Series and channels have hostile names, in topics and as keys of payloads, through a real broker and a real agent.
"""

import io
import json
import logging
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import pytest
from ports import free_port
from rich.console import Console
from test_service import counts_of, running

from discovery_rules import problems
from tests_metrics import ask, samples_of
from tests_support import T0, Distance, Heard
from transom import cli
from transom.core import recorded
from transom.core.events import Events
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.dialects.plain import Publication
from transom.edge import homeassistant, logs
from transom.edge.assembly import Assembly
from transom.edge.packets import PUBLISH, Packet
from transom.edge.service import Agent
from transom.settings import load_settings
from transom.verbs.view import View

pytestmark = pytest.mark.mosquitto

# What a broker lets through in a topic (mosquitto takes no control characters there) ...
TOPICS = [
    "..", "$(reboot)", "`id`;rm -rf ~", '"><script>alert(1)<!--', "{{ states() }}", "%s%n%(x)s%00", "a\u202eb", "~",
    "[red]x", "-rf", "\\..\\x", "'; DROP TABLE outbox; --", " ", "x" * 500, "é" * 200, "__proto__", "CON",
]  # fmt: skip
# ... and what a key of a payload, or a broker that is less strict, may hold besides.
CAREFUL = ["\0", "\n<3>fake line", "\x1b[2J\x1b]0;x\x07", "\x9b31m", "a\r\nb", "\uffff\ufdd0", "\u2028"]
KEYS = [*CAREFUL, "../../etc/passwd", "[/nope]", "</script>", "+/#"]
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) ")
SENT = 6  # readings of each name, the last of them strange


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """The log as it stands on standard error."""
    root, out = logging.getLogger("transom"), io.StringIO()
    before = root.handlers[:], root.propagate, root.level
    logs.set_up("info")
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(out)
    yield out
    root.handlers[:], root.propagate = before[:2]
    root.setLevel(before[2])


def value(n: int) -> float:
    return 90.0 if n == SENT - 1 else 20.0 + n % 2


def readings(number: float) -> Iterator[tuple[str, bytes]]:
    """Topic and payload of one reading of each name."""
    yield "object/a", json.dumps(dict.fromkeys([*KEYS, *TOPICS], number)).encode()
    for name in TOPICS:
        yield f"plant/{name}/v", b"%g" % number


def packets(names: list[str]) -> list[Packet]:
    """As a broker that looks at nothing would send them."""
    return [
        (f"plant/{name}/v".encode("utf-8", "surrogatepass"), b"%g" % value(n), PUBLISH, 0, None)
        for n in range(SENT)
        for name in [*names, "\ud800", "y" * 60_000]
    ]


def pipeline() -> Pipeline:
    topic, threshold = StreamSpec("topics", "plant/{device}/{channel}", threshold=5.0, budget=None), 5.0
    keys = StreamSpec("keys", "object/{device}", threshold=threshold, budget=None)
    return Pipeline([(topic, Distance(learning=1)), (keys, Distance(learning=1))], "transom/gw/")


def shown_plainly(text: str) -> None:
    assert "".join(text.splitlines()).isprintable(), ascii(text)


def test_a_hostile_name_does_nothing_wherever_it_comes_out(
    mosquitto_broker, tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    work = tmp_path / "here"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(homeassistant, "PACE", 0.0)
    monkeypatch.setattr(homeassistant, "SETTLE", 0.0)
    monkeypatch.setattr(homeassistant, "LOOK", 0.05)
    port = free_port()
    chosen = load_settings(None, {
        "agent": {"id": "gw", "state": str(work / "state"), "health_every": "100ms", "remote": ["ping", "mute"]},
        "broker": {"port": mosquitto_broker.port}, "http": {"port": port}, "homeassistant": {"enabled": True},
        "streams": {"topics": {"topic": "plant/{device}/{channel}"}, "keys": {"topic": "object/{device}"}},
    })  # fmt: skip
    events: list[Events] = []
    agent = Agent(chosen, Assembly(pipeline(), {}), lambda batch, _: events.append(batch))
    sensor = paho.Client(paho.CallbackAPIVersion.VERSION2)
    with Heard(mosquitto_broker.port, "#") as other, running(agent):
        sensor.connect("127.0.0.1", mosquitto_broker.port)
        sensor.loop_start()
        for n in range(SENT):
            for topic, payload in readings(value(n)):
                sensor.publish(topic, payload, 1).wait_for_publish(10)
        sensor.publish("object/a", b'{"\\ud800": 1}', 1).wait_for_publish(10)
        sensor.publish("plant/" + "z" * 60_000 + "/v", b"1", 1).wait_for_publish(10)
        sensor.publish("transom/gw/request/\u202e", b"{}", 1).wait_for_publish(10)
        sensor.publish(
            "transom/gw/request/mute", json.dumps({"id": 1, "stream": "keys", "series": "a/" + CAREFUL[1]}).encode(), 1
        ).wait_for_publish(10)
        sensor.disconnect()
        sensor.loop_stop()
        assert agent.connection is not None
        agent.connection._receiver.take(packets(CAREFUL))  # no broker at hand is so careless
        counts = counts_of(other, lambda c: c["received"] >= SENT * (len(TOPICS) + len(CAREFUL)), "topics")
        counts_of(other, lambda c: c["received"] >= SENT * (len(TOPICS) + len(KEYS)) + 1, "keys")
        assert counts["series"] == len(TOPICS) + len(CAREFUL)
        # The broker threw nobody out: every topic that the agent has published is one.
        for stream, series in (("topics", len(TOPICS) + len(CAREFUL)), ("keys", len(TOPICS) + len(KEYS))):
            ends = [f"transom/gw/{stream}/", "/alert"]
            other.wait_until(
                lambda heard, ends=ends, series=series: len([
                    t for t in heard if t.startswith(ends[0]) and t.endswith(ends[1])
                ]) == series, 30,
            )  # fmt: skip
        other.wait_until(lambda heard: len([t for t in heard if t.endswith("/config")]) > len(TOPICS) * 2, 30)
        answer = json.loads(other.wait_for("transom/gw/response/mute"))
        assert answer["error"]["place"] == "series" or answer["id"] == 1
        assert agent.connection.counters()["connects"] == 1
        assert agent.connection.counters()["errors"] == 0
        assert agent.connection.counters()["bad_topics"] == 2 * SENT + 1
        metrics = ask(port, "/metrics")[1]
        pages = metrics + "".join(ask(port, page)[1] for page in ("/healthz", "/readyz"))
    # Topics and bodies.
    for topic, payloads in other.messages.items():
        if topic.startswith("transom/gw/") and "/request/" not in topic:
            assert not re.search("[\\x00-\\x1f\\x7f-\\x9f\\ufdd0\\uffff]", topic)
            for payload in payloads:
                json.loads(payload)
        if topic.endswith("/config"):
            assert problems(Publication(topic, other.messages[topic][-1], 1, True)) == []
            assert re.fullmatch(r"homeassistant/device/transom-gw/[a-z0-9-]+/config", topic)
    letters = [json.loads(p) for p in other.messages["transom/gw/keys/dead-letter"]]
    assert any("malformed JSON" in letter["reason"] for letter in letters)
    # The disk: the state folder has its file and what SQLite puts beside it, and nothing is anywhere else.
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if "mosquitto" not in str(p))
    assert written[:3] == ["here", "here/state", "here/state/transom.db"]
    assert all(name.startswith("here/state/transom.db") for name in written[2:])
    # HTTP: figures only, as many as ever.
    for name in [*TOPICS, *KEYS]:
        if len(name) > 2 and name != "CON":
            assert name not in pages
    assert len([s for s in samples_of(metrics.encode()) if dict(s[1]).get("stream") == "keys"]) == len(
        [s for s in samples_of(metrics.encode()) if dict(s[1]).get("stream") == "topics"]
    )
    # The log.
    lines = said.getvalue().split("\n")
    assert lines.pop() == ""
    assert len(lines) > 3
    for line in lines:
        assert LINE.match(line), line
        shown_plainly(line)
    # The live view, narrow and wide.
    view = View({})
    for batch in events:
        view.take(batch)
    for width in (60, 160):
        out = io.StringIO()
        Console(file=out, width=width, height=100).print(view)
        shown_plainly(out.getvalue())
        assert "[/nope]" in out.getvalue()
    # A recording, its replay, its comparison and its picture.
    log, last = work / "day.jsonl", 80
    messages = [
        Message(topic, payload, T0 + 60_000 * n)
        for n in range(last + 1)
        for topic, payload in readings(500.0 if n == last else 20.0 + n % 7)
    ]
    begin = {
        "topics": {"topic": "plant/{device}/{channel}", "threshold": 5.0},
        "keys": {"topic": "object/{device}", "threshold": 5.0},
    }
    refused = [Message("plant/\x1b[2J/v", b"nothing", T0), *[Message(f"plant/{'x' * 9000}/v", b"1", T0)] * 3]
    log.write_bytes(
        recorded.word("begin", messages[0].received, filters=["#"], streams=begin)
        + b"".join(recorded.line(m) for m in [*refused, *messages])
    )
    out_file, picture = work / "out.jsonl", work / "out.svg"
    capsys.readouterr()
    assert cli.main(["replay", str(log), "--output", str(out_file), "--plot", str(picture)]) == 0
    assert cli.main(["replay", str(log), "--compare", "threshold=1", "threshold=9"]) == 0
    told = capsys.readouterr()
    assert "refused: plant/\\u001b[2J/v" in told.err
    assert told.err.replace("\n", "").count("refused: plant/xxx") == 2  # once by each replay, and not at full length
    assert told.err.count("x") < 1000
    shown_plainly(told.out)
    shown_plainly(told.err)
    assert {json.loads(line)["series"] for line in out_file.read_bytes().splitlines()} >= {f"{t}/v" for t in TOPICS}
    root = ET.fromstring(picture.read_text())
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    shown_plainly("".join(root.itertext()))
    assert "alert(1)" in "".join(root.itertext())


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202e"])
def test_an_error_that_names_what_came_from_elsewhere_is_plain_lines(tmp_path: Path, capsys, text: str) -> None:
    log = tmp_path / "day.jsonl"
    log.write_bytes(json.dumps({"time": text, "topic": text}, ensure_ascii=False).encode() + b"\nx\n")
    assert cli.main(["replay", str(log), "-c", str(tmp_path / text), "--output", str(tmp_path / "o")]) != 0
    told = capsys.readouterr().err
    lines = told.split("\n")
    assert lines.pop() == ""
    assert all(line.startswith("transom: ") and line.isprintable() for line in lines)


def test_a_topic_without_end_is_acknowledged_and_not_kept() -> None:
    from transom.edge.inbox import Inbox
    from transom.edge.receiver import LONGEST_NAME, Receiver

    inbox = Inbox(1000)
    receiver = Receiver(inbox)
    long = b"x" * (LONGEST_NAME + 1)
    assert receiver.take([(long, b"1", PUBLISH | 2, 7, None), (long[:-1], b"1", PUBLISH | 2, 8, None)]) == [7]
    assert [len(m.topic) for m in inbox.drain().messages] == [LONGEST_NAME]
    for i in range(2000):
        receiver.take([(b"%d" % i + long[:4000], b"1", PUBLISH, 0, None)])
    assert receiver._names == {}


def test_what_waits_is_bounded_with_its_topics() -> None:
    from transom.edge.inbox import Inbox

    inbox = Inbox(1000, largest=100_000)
    for i in range(100):
        inbox.put(Message(f"{i}" + "x" * 4000, b"1", i))
    assert len(inbox) == 24
    assert np.isclose(sum(inbox.drain().shed.values()), 76)
