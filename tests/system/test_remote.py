"""Remote calls over a real broker: each verb, refusals, and what of them a restart keeps."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_service import running

from tests_support import Distance, Heard
from transom.cli import main
from transom.core.pipeline import Pipeline
from transom.core.stream import StreamSpec
from transom.edge import remote
from transom.edge.asking import ask
from transom.edge.assembly import Assembly, build_pipeline
from transom.edge.reload import Reload
from transom.edge.requests import RequestError
from transom.edge.service import Agent
from transom.errors import SettingsError, TransomError
from transom.settings import Settings, load_settings

pytestmark = pytest.mark.mosquitto

ALL = ["ping", "reload", "mute", "acknowledge", "explain", "set-budget"]
SERIES = {"stream": "s", "series": "d/x"}


def configured(tmp_path: Path, port: int, allowed: list[str] | None = None) -> Settings:
    return load_settings(None, {
        "agent": {"id": "gw", "state": str(tmp_path / "state"), "health_every": "200ms", "commit_every": "50ms",
                  "remote": ALL if allowed is None else allowed},
        "broker": {"port": port}, "streams": {"s": {"topic": "plant/{device}/{channel}"}},
    })  # fmt: skip


def agent_of(settings: Settings, **changes: Any) -> Agent:
    spec = StreamSpec("s", "plant/{device}/{channel}", **({"threshold": 20.0, "budget": None} | changes))
    return Agent(settings, Assembly(Pipeline([(spec, Distance())], own_prefix="transom/gw/"), {}))


def send(other: Heard, *values: float) -> None:
    for value in values:
        other.client.publish("plant/d/x", json.dumps(value), 1)


def alerts(heard: dict[str, list[bytes]]) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in heard.get("transom/gw/s/d/x/alert", [])]


def predicted(other: Heard, count: int) -> None:
    other.wait_until(lambda heard: len(heard.get("transom/gw/s/d/x/prediction", [])) >= count)


def health(other: Heard, there: Any) -> dict[str, Any]:
    def told(messages: dict[str, list[bytes]]) -> bool:
        last = messages.get("transom/gw/health", [])
        return bool(last) and there(json.loads(last[-1]))

    other.wait_until(told, 30)
    body: dict[str, Any] = json.loads(other.messages["transom/gw/health"][-1])
    return body


def raw(other: Heard, verb: str, payload: bytes, *, retain: bool = False) -> None:
    other.client.publish(f"transom/gw/request/{verb}", payload, 1, retain)


def test_a_ping_is_answered_with_the_callers_id(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port, ["ping"])
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent_of(chosen)):
        raw(other, "ping", b'{"id":"mine"}')
        answer = json.loads(other.wait_for("transom/gw/response/ping"))
        assert (answer["id"], answer["allowed"]) == ("mine", ["ping"])
        assert ask(chosen, "ping", {})["version"]
        body = health(other, lambda h: h["calls"].get("ping") == 2)
        assert body["streams"]["s"]["received"] == 0
        assert body["unmatched"] == 0


def test_nothing_is_answered_or_subscribed_to_unless_allowed(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port, [])
    agent = agent_of(chosen)
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent):
        assert agent._filters() == ["plant/+/+"]
        with pytest.raises(RequestError, match="no answer within 0.5 s"):
            ask(chosen, "ping", {}, timeout=0.5)
        assert "transom/gw/response/ping" not in other.messages


@pytest.mark.parametrize(
    ("verb", "payload", "place", "problem"),
    [
        ("mute", b'{"id":1,"stream":"s","series":"d/x","duration":"1h"}', "request/mute", "is not allowed here"),
        ("mutt", b'{"id":1}', "request/mutt", "no such call"),
        ("ping", b"{", "payload", "is no JSON"),
        ("ping", b"", "payload", "is no JSON"),
        ("ping", b"[" * 3000, "payload", ""),
        ("ping", b'{"id":1,"x":2}', "payload", "unknown field `x`"),
        ("ping", b"{}", "payload", "missing required field `id`"),
        ("ping", b'{"id":1,"pad":"' + b"x" * 5000 + b'"}', "payload", "5,0"),
        ("acknowledge", b'{"id":1,"alert":"00","by":"anna"}', "alert", "'00' is not up"),
        ("acknowledge", b'{"id":1,"alert":"00","by":""}', "by", "expected `str` of length >= 1"),
        ("explain", b'{"id":1,"stream":"t","series":"d/x"}', "stream", "there is no 't'"),
        ("explain", b'{"id":1,"stream":"s","series":"d/y"}', "series", "s has no 'd/y'"),
        ("set-budget", b'{"id":1,"stream":"s","false_alarms":"1/day"}', "stream", "threshold decides in s"),
        ("reload", b'{"id":1}', "reload", "this agent was given no configuration"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_refused_with_place_problem_and_remedy(
    mosquitto_broker, tmp_path: Path, verb: str, payload: bytes, place: str, problem: str
) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port, ["ping", "acknowledge", "explain", "set-budget", "reload"])
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent_of(chosen)):
        raw(other, verb, payload)
        answer = json.loads(other.wait_for(f"transom/gw/response/{verb}"))
        assert answer["error"]["place"] == place
        assert problem in answer["error"]["problem"]
        assert answer["error"]["remedy"]
        assert answer["id"] in (1, None)
        health(other, lambda h: h["calls"].get("refused") == 1)


def test_a_retained_request_is_ignored_and_counted(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port)
    with Heard(mosquitto_broker.port, "transom/gw/#") as other:
        raw(other, "ping", b'{"id":"stored"}', retain=True)
        other.wait_for("transom/gw/request/ping")
        with running(agent_of(chosen)):
            body = health(other, lambda h: h["calls"].get("retained") == 1)
            assert "ping" not in body["calls"]
            assert "transom/gw/response/ping" not in other.messages


def test_more_calls_than_allowed_a_second_are_refused_and_counted(
    mosquitto_broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RATE", 0.001)
    chosen = configured(tmp_path, mosquitto_broker.port)
    with Heard(mosquitto_broker.port, "transom/gw/#") as other, running(agent_of(chosen)):
        for i in range(30):
            raw(other, "ping", b'{"id":%d}' % i)
            send(other, i)
        body = health(other, lambda h: h["calls"].get("limited") == 10 and h["streams"]["s"]["received"] == 30)
        assert body["calls"]["ping"] == 20
        answers = [json.loads(a) for a in other.messages["transom/gw/response/ping"]]
        told = [a for a in answers if "error" in a]
        assert len(told) >= 1
        assert "calls a second" in told[0]["error"]["problem"]


def test_a_mute_and_an_acknowledgement_survive_a_restart(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port)
    with Heard(mosquitto_broker.port, "transom/gw/#") as other:
        with running(agent_of(chosen)):
            send(other, 0, 0, 0, 0, 0, 0, 0, 0, 100)
            other.wait_until(lambda heard: [a["event"] for a in alerts(heard)] == ["raise"])
            alert = alerts(other.messages)[0]["id"]
            answer = ask(chosen, "acknowledge", {"alert": alert, "by": "anna"})
            assert (answer["stream"], answer["series"], answer["by"]) == ("s", "d/x", "anna")
            assert "until" in ask(chosen, "mute", SERIES | {"duration": "1h"})
            send(other, 1000)
            predicted(other, 10)
        with running(agent_of(chosen)):
            send(other, 10_000)
            predicted(other, 11)
            body = health(other, lambda h: h["streams"]["s"]["windows"] == 11)
            assert (body["streams"]["s"]["muted"], body["streams"]["s"]["withheld"]) == (1, 2)
            assert [a["event"] for a in alerts(other.messages)] == ["raise"]
            assert ask(chosen, "unmute", SERIES) == SERIES
            send(other, 10_001)
            other.wait_until(lambda heard: [a["event"] for a in alerts(heard)] == ["raise", "update"])
            last = alerts(other.messages)[-1]
            assert (last["id"], last["acknowledged"]["by"]) == (alert, "anna")


def test_what_a_call_has_set_is_there_after_a_kill(mosquitto_broker, tmp_path: Path) -> None:
    """The answer comes when what it says is kept: a copy of the state made then knows the mute."""
    chosen = configured(tmp_path, mosquitto_broker.port)
    with Heard(mosquitto_broker.port, "transom/gw/#") as other, running(agent_of(chosen)):
        send(other, 0, 0, 0)
        predicted(other, 3)
        ask(chosen, "mute", SERIES | {"duration": "1h"})
        copied = tmp_path / "copy"
        copied.mkdir()
        for file in (tmp_path / "state").iterdir():
            with suppress(FileNotFoundError):
                (copied / file.name).write_bytes(file.read_bytes())
    from transom.edge.journal import Journal
    from transom.edge.keeper import Keeper

    after = agent_of(chosen).pipeline
    Keeper(Journal(copied, "process"), 1.0).start(after)
    assert after.accounts()["s"]["muted"] == 1


def test_a_budget_holds_until_a_restart(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port)
    budget = {"threshold": None, "budget": 1 / 604_800_000}
    agent = agent_of(chosen, **budget)
    with running(agent):
        answer = ask(chosen, "set-budget", {"stream": "s", "false_alarms": "2/day"})
        assert answer == {
            "stream": "s", "false_alarms": "2/day", "before": "1/week", "until": "restart or reload",
        }  # fmt: skip
        assert agent.pipeline.streams["s"].judge.budget == pytest.approx(2 / 86_400_000)
    again = agent_of(chosen, **budget)
    with running(again):
        assert again.pipeline.streams["s"].judge.budget == 1 / 604_800_000


def test_an_explanation_of_the_last_window_comes_from_the_running_agent(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port)
    assembly = build_pipeline(chosen)
    with Heard(mosquitto_broker.port, "transom/gw/#") as other:
        with running(Agent(chosen, assembly)):
            send(other, *(i % 5 for i in range(200)), 90)
            predicted(other, 186)
            found = ask(chosen, "explain", SERIES)
            assert found["method"] == "integrated gradients"
            assert found["value"] > found["reference_value"]
            assert "most of it in the last" in found["summary"]
            assert ask(chosen, "explain", SERIES | {"method": "occlusion", "pieces": "16"})["method"] == "occlusion"
            assert found["reference"] == "an ordinary window before it"
            with pytest.raises(TransomError, match="a detector has a score"):
                ask(chosen, "explain", SERIES | {"target": "walking"})
        with running(Agent(chosen, build_pipeline(chosen))):  # what was ordinary is not known any more
            assert ask(chosen, "explain", SERIES)["reference"] == "its own older half, twice"


def test_a_reload_is_answered_when_it_is_done_or_refused(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port)
    new: list[Any] = [configured(tmp_path, mosquitto_broker.port, ["ping", "reload"])]

    def read() -> Settings:
        if isinstance(new[0], Exception):
            raise new[0]
        return new[0]

    agent = Agent(chosen, build_pipeline(chosen), reload=Reload(read, None))
    with running(agent):
        assert ask(chosen, "reload", {}, timeout=30) == {"reloaded": True}
        with pytest.raises(RequestError, match="allowed: ping, reload"):
            ask(chosen, "set-budget", {"stream": "s", "false_alarms": "1/day"})
        new[0] = SettingsError([TransomError("agent.toml: broker.prot", "unknown key", "did you mean broker.port?")])
        with pytest.raises(RequestError, match=r"broker\.prot.*unknown key"):
            ask(chosen, "reload", {}, timeout=30)


def test_the_command_prints_the_answer_or_says_in_one_line_why_there_is_none(
    mosquitto_broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'[agent]\nid = "gw"\nremote = ["ping", "explain"]\n[broker]\nport = {mosquitto_broker.port}\n')
    chosen = configured(tmp_path, mosquitto_broker.port, ["ping", "explain"])
    call = ["call", "-c", str(file)]
    with Heard(mosquitto_broker.port, "transom/gw/#") as other, running(Agent(chosen, build_pipeline(chosen))):
        send(other, *range(20))
        predicted(other, 5)
        assert main([*call, "ping"]) == 0
        assert json.loads(capsys.readouterr().out)["allowed"] == ["explain", "ping"]
        assert main([*call, "mute", "stream=s", "series=d/x", "duration=1h"]) == 1
        assert "request/mute: is not allowed here; allowed: explain, ping" in capsys.readouterr().err
        assert main([*call, "mute", "stream=s"]) == 1
        assert "missing required field `duration`" in capsys.readouterr().err
        assert main(["explain", "--live", "-c", str(file), "--series", "s/d/x"]) == 0
        assert "check: the shares add up to" in capsys.readouterr().out
    began = time.monotonic()
    assert main([*call, "ping", "--timeout", "0.5"]) == 1
    assert time.monotonic() - began < 30
    assert "no answer within 0.5 s; is the agent 'gw' running" in capsys.readouterr().err
    mosquitto_broker.stop()
    assert main([*call, "ping"]) == 1
    assert "nothing listens there" in capsys.readouterr().err
