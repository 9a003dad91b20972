"""What an agent remembers of its subscriptions, and what overlapping streams make of a reading."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
from test_service import counts_of, running, settings

from conftest import missing
from tests_support import Heard
from transom.edge.assembly import build_pipeline
from transom.edge.journal import Journal
from transom.edge.service import Agent
from transom.settings import load_settings

pytestmark = pytest.mark.mosquitto


def test_one_filter_that_is_refused_does_not_make_the_agent_forget_the_others(mosquitto, tmp_path: Path) -> None:
    plugin = next(Path("/usr/lib").rglob("mosquitto_dynamic_security.so"), None)
    if plugin is None:
        missing("mosquitto has no dynamic security plugin")
    password = base64.b64encode(hashlib.pbkdf2_hmac("sha512", b"secret", b"0123456789ab", 101)).decode()
    me = {
        "username": "me", "salt": base64.b64encode(b"0123456789ab").decode(), "password": password, "iterations": 101,
        "roles": [{"rolename": "plant"}],
    }  # fmt: skip
    role = {"rolename": "plant", "acls": [{"acltype": "subscribePattern", "topic": "plant/#", "allow": True}]}
    allowed = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    rights = tmp_path / "rights.json"
    rights.write_text(json.dumps({"defaultACLAccess": allowed, "clients": [me], "groups": [], "roles": [role]}))
    broker = mosquitto("allow_anonymous false", f"plugin {plugin}", f"plugin_opt_config_file {rights}")
    chosen = load_settings(None, {
        "agent": {"state": str(tmp_path / "state")},
        "broker": {"port": broker.port, "username": "me", "password": "secret"},
        "streams": {"s": {"topic": "plant/{device}/{channel}"}, "t": {"topic": "home/{room}"}},
    })  # fmt: skip
    agent = Agent(chosen, build_pipeline(chosen))
    with running(agent):
        assert agent.connection is not None
        assert list(agent.connection.refused) == ["home/+"]
    journal = Journal(tmp_path / "state", "process")
    journal.open()
    try:
        assert journal.note("subscribed") == ["127.0.0.1", broker.port, {"plant/+/+": 1}]
    finally:
        journal.close()


def test_streams_that_overlap_take_each_reading_once_each(mosquitto_broker, tmp_path: Path) -> None:
    chosen = settings(tmp_path, mosquitto_broker.port, s={"topic": "o/{device}"}, t={"topic": "o/#", "series": []})
    with Heard(mosquitto_broker.port, "transom/#") as other, running(Agent(chosen, build_pipeline(chosen))):
        for i in range(10):
            other.client.publish("o/a", b"%d" % i, 1)
        for stream in ("s", "t"):
            counts = counts_of(other, lambda c: c["received"] >= 10, stream)
            assert counts["received"] == counts["accepted"] == 10
