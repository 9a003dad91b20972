"""All that leaves a running agent, over a real broker, its log and its metrics: no value and no name that privacy keeps."""

import json
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from ports import free_port
from test_service import running

from tests_metrics import ask as ask_http
from tests_support import Distance, Heard
from transom.core.events import DriftReport
from transom.core.pipeline import Pipeline
from transom.core.stream import StreamSpec
from transom.dialects.privacy import Privacy, Rule
from transom.edge import homeassistant, logs, masks
from transom.edge.asking import ask
from transom.edge.assembly import Assembly
from transom.edge.requests import RequestError
from transom.edge.service import Agent
from transom.errors import TransomError
from transom.settings import Settings, load_settings

pytestmark = pytest.mark.mosquitto

KEY = "0123456789abcdef0123456789abcdef"
SERIES, VALUE = "zaphod7", 48151.62342  # found nowhere by chance
NAME, NUMBER = re.compile(SERIES.encode(), re.IGNORECASE), re.compile(rb"481[56]\d")
POISON = 7e6


class Choking(Distance):
    """Fails on one value, with an error that quotes a reading and a name."""

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        if (values == POISON).any():
            raise ValueError(f"cannot take {VALUE} of {SERIES}")
        return super().infer(values)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    report = DriftReport("s", f"{SERIES}/x", "x", "drift", "kW", 0, VALUE, VALUE + 1, 1.0, 0.9, 0.1, f"x {VALUE}", 1.0)
    monkeypatch.setattr(Pipeline, "drifting", lambda self: (1, [report]))
    monkeypatch.setattr(homeassistant, "SETTLE", 0.1)
    monkeypatch.setattr(homeassistant, "PACE", 0.01)
    before = logs.logging.getLogger("transom").handlers[:], logs.logging.getLogger("transom").propagate
    yield
    masks.use(Privacy(Rule()))
    logger = logs.logging.getLogger("transom")
    logger.handlers[:], logger.propagate = before


def configured(tmp_path: Path, port: int, http: int, privacy: dict[str, Any]) -> Settings:
    (tmp_path / "key").write_text(KEY)
    return load_settings(None, {
        "agent": {"id": "gw", "state": str(tmp_path / "state"), "health_every": "200ms", "commit_every": "50ms",
                  "remote": ["ping", "mute", "acknowledge", "explain"]},
        "broker": {"port": port}, "http": {"port": http, "page": True}, "homeassistant": {"enabled": True}, "privacy": privacy,
        "streams": {"s": {"topic": "plant/{device}/{channel}"}, "t": {"topic": f"attic/{SERIES}"}},
    })  # fmt: skip


def agent_of(settings: Settings) -> Agent:
    streams = [(StreamSpec(name, stream.topic, threshold=20.0, budget=None), Choking())
               for name, stream in settings.streams.items()]  # fmt: skip
    return Agent(settings, Assembly(Pipeline(streams, own_prefix="transom/gw/"), {}))


def calls(settings: Settings, series: str, alert: str) -> Iterator[object]:
    """The answers to calls that name the series, right and wrong ones."""
    for verb, fields in (
        ("explain", {"stream": "s", "series": series}), ("mute", {"stream": "s", "series": series, "duration": "1h"}),
        ("unmute", {"alert": alert}), ("acknowledge", {"alert": alert, "by": "anna"}),
        ("explain", {"stream": "s", "series": series, "target": "nonsense"}),
        ("explain", {"stream": "s", "series": "hall"}), ("acknowledge", {"alert": "00", "by": "anna"}),
    ):  # fmt: skip
        try:
            yield ask(settings, verb, fields, 15.0)
        except RequestError as error:
            yield str(error)


def told(
    tmp_path: Path, port: int, privacy: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> tuple[dict[str, list[bytes]], list[object]]:
    """What left the agent, by kind: topics and payloads, log lines, metrics; and the answers to calls."""
    http = free_port()
    settings = configured(tmp_path, port, http, privacy)
    logs.set_up("info")
    agent = agent_of(settings)
    with Heard(port, "#") as other, running(agent):
        for value in [48_100.0] * 6 + [VALUE]:
            other.client.publish(f"plant/{SERIES}/x", f"{value}", 1)
            other.client.publish(f"attic/{SERIES}", f"{value}", 1)
        other.client.publish(f"plant/{SERIES}/x", f"{VALUE} {SERIES}", 1)
        other.client.publish(f"plant/{SERIES}/x", f"{POISON}", 1)
        other.wait_until(lambda heard: sum(len(v) for k, v in heard.items() if k.endswith("/dead-letter")) >= 2)
        other.client.publish(f"plant/{SERIES}/x", f"{VALUE}", 1)
        other.wait_until(lambda heard: sum(len(v) for k, v in heard.items() if re.search("/s/.*/prediction", k)) >= 8)
        other.wait_until(lambda heard: sum(k.endswith("/alert") for k in heard) >= 2)
        other.wait_until(lambda heard: sum(k.startswith("homeassistant/") for k in heard) >= 3)
        alert = next(json.loads(v[-1]) for k, v in other.messages.items() if k.endswith("/alert") and "/s/" in k)
        answers = list(calls(settings, alert["series"], alert["id"]))
        status, metrics = ask_http(http, "/metrics")
        assert status == 200
        ready = ask_http(http, "/readyz")[1]
        page = page_of(http, alert["series"])
        other.wait_until(lambda heard: b'"drift"' in heard["transom/gw/health"][-1])
    kinds: dict[str, list[bytes]] = {
        "log": [capsys.readouterr().err.encode()],
        "http": [(metrics + ready).encode()],
        "page": page,
    }
    for topic, payloads in other.messages.items():
        if topic.startswith(("plant/", "attic/")) or "/request/" in topic:
            continue  # sent by the test itself
        kind = topic.split("/")[0] if topic.startswith("homeassistant") else re.split(r"[/]", topic)[-1]
        kind = "response" if "/response/" in topic else kind
        kinds.setdefault(kind, []).extend([topic.encode(), *payloads])
    return kinds, answers


def page_of(port: int, series: str) -> list[bytes]:
    """What the live page is told of a series, until its chart has come."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", f"/live/events?stream=s&series={quote(series)}")
    answer, lines = connection.getresponse(), list[bytes]()
    while b'"chart"' not in b"".join(lines):
        lines.append(answer.readline())
        assert lines[-1]
    answer.close()
    connection.close()
    return lines


def found(kinds: dict[str, list[bytes]], pattern: re.Pattern[bytes]) -> set[str]:
    return {kind for kind, texts in kinds.items() if any(pattern.search(text) for text in texts)}


ALL = {
    "page",
    "prediction",
    "alert",
    "dead-letter",
    "health",
    "info",
    "status",
    "homeassistant",
    "response",
    "log",
    "http",
}


def test_without_privacy_names_and_values_are_told_where_the_guide_says(
    mosquitto_broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That the others find nothing is worth as much as what this one finds."""
    kinds, _ = told(tmp_path, mosquitto_broker.port, {}, capsys)
    assert set(kinds) == ALL
    assert found(kinds, NAME) == ALL - {"status", "http"}
    assert found(kinds, NUMBER) == {"prediction", "alert", "dead-letter", "health", "response", "log", "page"}


@pytest.mark.parametrize("values", ["none", "rounded"])
def test_neither_a_value_nor_a_name_leaves(
    values: str, mosquitto_broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    privacy = {"values": values, "series_key_file": str(tmp_path / "key")}
    kinds, answers = told(tmp_path, mosquitto_broker.port, privacy, capsys)
    assert set(kinds) == ALL
    assert found(kinds, NAME) == set()
    assert found(kinds, NUMBER) == set()
    explained, muted, unmuted, seen, *refused = answers
    pseudonym = Privacy(Rule(key=KEY.encode())).name(f"{SERIES}/x")
    assert [a["series"] for a in (explained, muted, unmuted, seen)] == [pseudonym] * 4  # type: ignore[index]
    assert ("window" in explained, len(refused)) == (False, 3)  # type: ignore[operator]
    assert f"it has {pseudonym}" in refused[1]  # type: ignore[operator]


def test_a_name_is_not_taken_where_pseudonyms_are(
    mosquitto_broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = configured(tmp_path, mosquitto_broker.port, free_port(), {"series_key_file": str(tmp_path / "key")})
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent_of(settings)):
        other.client.publish(f"plant/{SERIES}/x", "1", 1)
        other.wait_until(lambda heard: any(k.endswith("/prediction") for k in heard))
        with pytest.raises(RequestError, match="has no 'zaphod7/x'"):
            ask(settings, "mute", {"stream": "s", "series": f"{SERIES}/x", "duration": "1h"})


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read"), ("", "is empty"), ("short", "has 5 characters, too few")]
)
def test_a_key_that_is_none_is_refused(content: str | None, problem: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    with pytest.raises(TransomError, match=problem):
        load_settings(None, {"privacy": {"series_key_file": str(tmp_path / "key")}}, need_streams=False)
