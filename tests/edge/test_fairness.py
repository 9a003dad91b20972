"""Who is shed when one topic floods: the flooder and nobody else, and only while others would have to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.core.pipeline import Message
from transom.core.topics import Pattern
from transom.edge import fairness
from transom.edge.fairness import CROWDED, Fairness
from transom.edge.inbox import Inbox, Token

LIMIT = 8 * CROWDED
BURST = LIMIT // 4


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the inbox, which only the test moves."""
    now = [1000.0]
    monkeypatch.setattr("transom.edge.inbox.time.monotonic", lambda: now[0])
    return now


def some(topic: str, count: int, size: int = 0, token: bool = False) -> list[tuple[Message, Token | None]]:
    return [(Message(topic, b"x" * size, i), Token(1, 1 + i % 65_535) if token else None) for i in range(count)]


def mixed(flood: int, quiet: int, each: int, token: bool = False) -> list[tuple[Message, Token | None]]:
    """So many of one topic, and among them `each` of so many others."""
    others = [entry for i in range(quiet) for entry in some(f"q{i}", each, token=token)]
    flooding, every = some("loud", flood, token=token), max(1, flood // max(1, len(others)))
    made = []
    for i, entry in enumerate(flooding):
        made.append(entry)
        if i % every == 0 and others:
            made.append(others.pop())
    return made + others


def put(inbox: Inbox, entries: list[tuple[Message, Token | None]], portion: int = 500) -> None:
    for begin in range(0, len(entries), portion):
        inbox.put_many(entries[begin : begin + portion])


@pytest.mark.parametrize("token", [False, True])
def test_of_a_topic_that_floods_the_excess_is_shed_and_of_the_others_nothing(token: bool) -> None:
    fair = Fairness()
    inbox = Inbox(LIMIT, fairness=fair)
    put(inbox, mixed(50_000, 100, 10, token))
    drained = inbox.drain(1 << 20)
    assert list(drained.shed) == ["loud"]
    assert len(drained.messages) + drained.shed["loud"] == 51_000
    assert sum(m.topic != "loud" for m in drained.messages) == 1000
    assert len(drained.messages) <= CROWDED + BURST + 1000 + 500
    assert len(drained.spent) == (drained.shed["loud"] if token else 0)
    assert fair.throttled().body() == {
        "messages": drained.shed["loud"], "topics": [{"topic": "loud", "shed": drained.shed["loud"]}]
    }  # fmt: skip


def test_without_a_crowd_nobody_is_throttled_however_fast_he_is() -> None:
    inbox = Inbox(LIMIT, fairness=Fairness())
    for _ in range(100):
        put(inbox, mixed(CROWDED - 150, 50, 2))
        assert inbox.drain().shed == {}


def test_a_topic_that_is_alone_and_topics_that_are_alike_are_not_throttled() -> None:
    alone = Inbox(LIMIT, fairness=Fairness())
    put(alone, some("only", LIMIT, token=True))
    assert alone.drain().shed == {}
    alike = Inbox(LIMIT, fairness=Fairness())
    put(alike, [(Message(f"t{i % 5}", b"", i), Token(1, 1)) for i in range(8 * LIMIT)])
    assert alike.drain(1 << 20).shed == {}


def test_a_rate_is_given_back_with_time(stopped: list[float]) -> None:
    inbox = Inbox(LIMIT, fairness=Fairness([(Pattern.parse("loud"), 100.0)]))
    put(inbox, mixed(5000, 20, 1), LIMIT)
    assert inbox.drain().shed == {"loud": 4500}
    stopped[0] += 2.0
    put(inbox, mixed(2000, 20, 1), LIMIT)
    assert inbox.drain().shed == {"loud": 1800}


def test_no_more_of_a_topic_waits_than_it_may_bring_at_once(stopped: list[float]) -> None:
    inbox = Inbox(LIMIT, fairness=Fairness([(Pattern.parse("loud"), 200.0)]))
    for _ in range(10):  # an agent that does next to nothing
        stopped[0] += 2.0
        put(inbox, mixed(1000, 10, 1), LIMIT)
    drained = inbox.drain(1 << 20)
    assert sum(m.topic == "loud" for m in drained.messages) == 1000
    assert drained.shed == {"loud": 9000}


def test_what_a_stream_allows_holds_for_its_topics_and_the_most_generous_one_decides() -> None:
    rates = [(Pattern.parse("a/{d}"), 10.0), (Pattern.parse("a/#"), 5000.0), (Pattern.parse("b/{d}"), None)]
    fair = Fairness(rates)
    assert [fair._rate(t) for t in ("a/x", "a/x/y", "b/x", "c")] == [5000.0, 5000.0, None, fairness.USUAL]
    inbox = Inbox(LIMIT, fairness=fair)
    put(inbox, [*some("c", 500, token=True), *some("b/x", LIMIT, token=True)])
    assert inbox.drain(1 << 20).shed == {}
    fair.change([])
    put(inbox, [*some("c", 500, token=True), *some("b/x", LIMIT, token=True)])
    assert inbox.drain(1 << 20).shed["b/x"] > 0


def test_what_waited_while_nobody_listened_is_no_flood(stopped: list[float]) -> None:
    def shed(seconds: float) -> int:
        inbox = Inbox(LIMIT, fairness=Fairness([(Pattern.parse("loud"), 10.0)]))
        inbox.absent(seconds)
        put(inbox, mixed(7000, 20, 1, token=True))
        return inbox.drain(1 << 20).shed.get("loud", 0)

    assert shed(700.0) == 0
    assert shed(0.0) - shed(100.0) == 1000


def test_large_payloads_count_for_more() -> None:
    inbox = Inbox(LIMIT, largest=8 << 20, fairness=Fairness())
    put(inbox, [*some("q", 20, 100), *some("fat", 2000, 1 << 15)], 10)
    drained = inbox.drain()
    assert drained.shed["fat"] > 1000
    assert sum(m.topic == "q" for m in drained.messages) == 20


def test_a_flood_is_told_of_once_and_again_while_it_goes_on() -> None:
    fair = Fairness()
    inbox = Inbox(LIMIT, fairness=fair)
    put(inbox, mixed(20_000, 10, 10))
    shed = inbox.drain().shed["loud"]
    assert list(fair.lines(0.0, 60.0)) == [
        f"'loud' floods: {shed} messages were shed, so that others need not wait (max_rate)"
    ]
    put(inbox, mixed(20_000, 10, 10))
    assert list(fair.lines(59.0, 60.0)) == []
    assert len(list(fair.lines(61.0, 60.0))) == 1
    assert list(fair.lines(200.0, 60.0)) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 40), st.booleans(), st.integers(0, 30) | st.none()), max_size=60
    ),
    st.integers(8, 40),
)
def test_everything_put_is_drained_or_counted_by_its_topic(steps: list[tuple], limit: int) -> None:
    fair = Fairness([(Pattern.parse("t0"), 1.0), (Pattern.parse("t1"), 0.1)])
    inbox, put_in, out = Inbox(limit, fairness=fair), dict.fromkeys(range(5), 0), dict.fromkeys(range(5), 0)
    spent = 0

    def drain(most: int | None) -> None:
        nonlocal spent
        drained = inbox.drain(most)
        spent += len(drained.spent)
        assert len(drained.messages) == len(drained.tokens)
        for topic in [m.topic for m in drained.messages] + [t for t, n in drained.shed.items() for _ in range(n)]:
            out[int(topic[1:])] += 1

    for topic, count, token, most in steps:
        inbox.put_many(some(f"t{topic}", count, token=token))
        put_in[topic] += count
        if most is not None:
            drain(most)
    drain(1 << 20)
    assert put_in == out
    assert len(inbox) == 0
    assert spent <= fair.throttled().messages
    assert fair._waiting is None
