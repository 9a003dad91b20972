"""The live page in a real browser: what a person sees of values, bands and alerts, and that a name is never HTML."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from ports import free_port

from browser import Browser, chromium
from conftest import missing
from transom.edge.assembly import build_pipeline
from transom.edge.broker import EmbeddedBroker
from transom.edge.service import Agent
from transom.settings import load_settings

HOSTILE = "<img src=x onerror=\"document.title='broken into'\">"
TOKEN = "0123456789abcdef"
T0 = 1_700_000_000
LEARNT = 200  # readings, after which a spike is an alert


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if chromium() is None:
        missing("no chromium (apt install chromium)")
    with Browser(tmp_path) as browser:
        yield browser


class Plant:
    """An agent, a broker, and two devices; one of them calls itself something evil."""

    def __init__(self, folder: Path, broker: EmbeddedBroker) -> None:
        self.port, self.broker = free_port(), broker
        settings = load_settings(None, {
            "agent": {"id": "gw", "state": str(folder), "durability": "none"},
            "broker": {"port": broker.port, "protocol": "3.1.1", "session": 0},
            "http": {"port": self.port, "page": True, "token": TOKEN},
            "streams": {"s": {"topic": "plant/{device}/{channel}", "channels": {"t": {"unit": "°C"}}, "threshold": 5}},
        })  # fmt: skip
        self.agent = Agent(settings, build_pipeline(settings))
        self.stop, self.sent = threading.Event(), 0
        self.thread = threading.Thread(target=self.agent.run, args=(self.stop,))
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)

    def __enter__(self) -> "Plant":
        self.thread.start()
        assert self.agent.ready.wait(60)
        self.client.connect("127.0.0.1", self.broker.port)
        self.client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.end()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def send(self, *values: float) -> None:
        for value in values:
            body = json.dumps({"value": value, "time": T0 + self.sent})
            self.client.publish("plant/pump-1/t", body)
            self.client.publish(f"plant/{HOSTILE}/t", body)
            self.sent += 1


def listed(name: str) -> str:
    return f"[...document.querySelectorAll('button.series')].find((b) => b.querySelector('.name').textContent === {json.dumps(name)})"


def text(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).textContent"


def test_a_person_sees_values_bands_and_alerts_and_a_name_is_text(
    browser: Browser, amqtt_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    with Plant(tmp_path, amqtt_broker) as plant:
        browser.look(390, 844, dark=True)
        browser.open(f"http://127.0.0.1:{plant.port}/live/")
        # The form of the token.
        browser.wait("document.querySelector('#token') && document.readyState === 'complete'")
        browser.ask("document.querySelector('#token').value = 'wrong'; document.querySelector('button').click()")
        browser.wait("document.querySelector('#answer').textContent === 'This is not the token.'")
        browser.ask(f"document.querySelector('#token').value = '{TOKEN}'; document.querySelector('button').click()")
        browser.wait(f"{text('#doing')}.startsWith('watching')")
        plant.send(20.0)
        browser.wait(f"{text('#filling')} === '2 more fill their first window'")
        # A value and a band, as they come.
        plant.send(*(20 + 0.1 * (i % 7) for i in range(LEARNT)))
        name = f"{HOSTILE}/t"
        browser.wait(listed(name))
        browser.ask(f"{listed(name)}.click()")
        browser.wait(f"{text('#one-title')} === {json.dumps(name)}")
        browser.wait(
            f"/^t 20(\\.\\d)? °C, expected [\\d.]+ \\([\\d.]+ to [\\d.]+\\)$/.test({text('#charts figcaption')})"
        )
        assert browser.ask("document.querySelectorAll('#charts canvas').length") == 2  # values and score
        assert browser.ask(f"{listed(name)}.getAttribute('aria-current')") == "true"
        # It is drawn: the middle of the canvas is not empty.
        drawn = "[...document.querySelector('#charts canvas').getContext('2d').getImageData(0, 0, 600, 400).data].some(Boolean)"
        assert browser.ask(drawn)
        # An alert as it happens, word for word, by word and not by colour alone.
        plant.send(90.0)
        browser.wait("document.querySelectorAll('#alert-list li').length === 2")
        sentence = browser.ask(text("#alert-list .sentence"))
        assert sentence.startswith("t 90 °C, expected 2")
        assert browser.ask(text("#alert-list .badge")) in ("▲ warning", "▲ critical")
        browser.wait(f"{listed(name)}.querySelector('.badge').textContent === '▲ alert'")
        browser.wait(f"{text('#told')}.includes('t 90 °C')")
        assert browser.ask("document.title") == "▲2 Transom gw"
        # The name was text everywhere, and nothing was fetched for it.
        assert browser.ask("document.querySelectorAll('img').length") == 0
        assert name in browser.ask(text("#alert-list"))
        assert name in browser.ask(text("#series-list"))
        # A search is answered by the agent.
        browser.ask(
            "const s = document.querySelector('#search'); s.value = 'PUMP'; s.dispatchEvent(new Event('input'))"
        )
        browser.wait("document.querySelectorAll('button.series').length === 1")
        assert browser.ask("document.body.scrollWidth <= 390")  # nothing sticks out of a phone
        plant.end()
        browser.wait("document.querySelector('#lost').textContent === 'Connection lost, trying again'")
        assert not browser.ask("document.querySelector('#lost').hidden")
    refused = [e for e in browser.errors if "401" in e or "ERR_CONNECTION_REFUSED" in e or "ERR_" in e]
    assert browser.errors == refused  # no script failed, and the policy has stopped nothing
