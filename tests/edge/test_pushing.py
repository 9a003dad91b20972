"""The sender of models without a broker: how fast it sends, to whom it listens, and what strangers cannot make it do."""

import random
import time

import msgspec
import pytest

from tests_arrival import offer_of, piece
from transom.dialects import updates
from transom.dialects.updates import Progress
from transom.edge import pushing
from transom.edge.pushing import Sending

DATA = random.Random(9).randbytes(100_000)
WANT, PROGRESS, EVENTS = "transom/gw/update/want", "transom/gw/update/progress", "transom/gw/models"


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> Sending:
    """To one agent, 10,000 bytes a second, begun at second 0."""
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    return Sending(offer_of(DATA, chunk=1000), DATA, "s", "transom/gw", single=True, rate=10_000)


def wants(sending: Sending, *numbers: int, sha256: str = "") -> bytes:
    return updates.want("b", sha256 or sending.offer.sha256, list(numbers)).payload


def said(sending: Sending, **changes: object) -> bytes:
    told = Progress(stream="s", sha256=sending.offer.sha256, state="offered", push=sending.offer.push)
    return updates.encode(msgspec.structs.replace(told, **changes))


def test_the_rate_is_kept_and_does_not_add_up_while_nobody_asks(sending: Sending) -> None:
    for first in (0, 50):
        sending.take(WANT, wants(sending, *range(first, first + 50)), 60.0)
    sent, now = [], 60.0
    while sending.busy:
        sent += [(now, len(p.payload)) for p in sending.due(now)]
        now += 0.01
    assert sum(size for _, size in sent) == len(DATA)
    assert 9 < sent[-1][0] - 60 < 10
    for begin in range(60, 69):
        assert sum(size for at, size in sent if begin <= at < begin + 1) <= 10_000 + 2_500 + 1_000


def test_what_is_sent_is_what_was_asked_for_in_that_order(sending: Sending) -> None:
    sending.take(WANT, wants(sending, 7, 3, 99, 100, 1023), 0.0)
    found = [p for step in range(100) for p in sending.due(0.1 * step)]
    names = [updates.chunk_topic("transom/gw", sending.offer.sha256, n) for n in (7, 3, 99)]
    assert [p.topic for p in found] == names
    assert found[1].payload == piece(DATA, sending.offer, 3)
    assert all((p.qos, p.retain) == (0, False) for p in found)


def test_a_chunk_asked_for_by_two_goes_once_and_again_later(sending: Sending) -> None:
    sending.take(WANT, wants(sending, 1), 0.0)
    assert len(list(sending.due(0.1))) == 1
    sending.take("transom/other/update/want", wants(sending, 1), 0.5)
    assert list(sending.due(5.0)) == []
    sending.take(WANT, wants(sending, 1), 5.0)
    assert len(list(sending.due(5.1))) == 1


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (WANT, b"{"), (WANT, b"[" * 500), (WANT, b'{"sha256":"x","chunks":[1]}'), (PROGRESS, b"{"), (PROGRESS, b"\xff"),
        (EVENTS, b"{"), ("transom/gw/other", b"{}"), ("transom", b""),
    ],
)  # fmt: skip
def test_what_is_no_message_is_passed_over(sending: Sending, topic: str, payload: bytes) -> None:
    sending.take(topic, payload, 0.0)
    assert (sending.agents, sending.busy) == ({}, False)


def test_messages_about_another_file_or_push_are_passed_over(sending: Sending) -> None:
    sending.take(WANT, wants(sending, 1, sha256="0" * 64), 0.0)
    sending.take(PROGRESS, said(sending, sha256="0" * 64), 0.0)
    sending.take(PROGRESS, said(sending, push="0" * 16), 0.0)
    assert (sending.agents, sending.busy) == ({}, False)


def test_the_last_word_of_an_agent_stands(sending: Sending) -> None:
    sending.take(PROGRESS, said(sending, state="downloading", received=5), 1.0)
    sending.take(PROGRESS, said(sending, state="refused", reason="no"), 2.0)
    sending.take(PROGRESS, said(sending), 3.0)
    assert (sending.agents["gw"].now.reason, sending.agents["gw"].at) == ("no", 2.0)


def test_agents_and_their_events_are_bounded(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "MOST_AGENTS", 3)
    for n in range(10):
        sending.take(f"transom/a{n}/update/progress", said(sending), 0.0)
    event = msgspec.json.encode({"event": "switched", "stream": "s", "sha256": sending.offer.sha256})
    for _ in range(200):
        sending.take("transom/a1/models", event, 0.0)
    sending.take("transom/a2/models", event.replace(b'"s"', b'"t"'), 0.0)
    assert [len(heard.events) for heard in sending.agents.values()] == [0, 100, 0]
