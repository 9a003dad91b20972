"""The bounded queue: what waits, what is shed, and who has to wait."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.core.pipeline import Message
from transom.edge.inbox import Inbox, Token


def message(i: int, size: int = 0) -> Message:
    return Message(f"t{i}", b"x" * size, i)


def test_a_full_inbox_sheds_the_oldest_and_counts_them_by_topic() -> None:
    inbox = Inbox(2)
    for i in range(5):
        inbox.put(message(i))
    drained = inbox.drain()
    assert [m.topic for m in drained.messages] == ["t3", "t4"]
    assert drained.shed == {"t0": 1, "t1": 1, "t2": 1}
    assert inbox.drain() == ([], [], {}, [])
    assert inbox.wait(0) is False
    assert inbox.overloaded()
    assert not inbox.overloaded()


def test_a_message_that_waits_for_an_acknowledgement_is_never_shed() -> None:
    inbox = Inbox(2)
    inbox.put(message(0), Token(1, 1))
    inbox.put(message(1))
    inbox.put(message(2))  # sheds the only one that may be
    inbox.put(message(3), Token(1, 2))  # so does this one
    inbox.put(message(4), Token(1, 3))
    assert inbox.full
    assert [m.topic for m in inbox.drain().messages] == ["t0", "t3", "t4"]
    assert not inbox.full


def test_bytes_are_bounded_too_but_one_large_message_passes() -> None:
    inbox = Inbox(100, largest=1000)
    inbox.put(message(0, 5000))
    inbox.put(message(1, 10))
    drained = inbox.drain()
    assert [m.topic for m in drained.messages] == ["t1"]
    assert drained.shed == {"t0": 1}


def test_whoever_waits_for_room_is_woken() -> None:
    inbox, woken = Inbox(1), threading.Event()
    inbox.put(message(0), Token(1, 1))
    thread = threading.Thread(target=lambda: inbox.wait_room(10) and woken.set())
    thread.start()
    inbox.drain()
    thread.join(10)
    assert woken.is_set()


@pytest.mark.timeout(30)
def test_the_run_loop_is_woken_for_something_else_than_a_message() -> None:
    inbox = Inbox(2)
    inbox.wake()  # before it waits: nothing is missed
    inbox.wait_turn(60)
    waits = threading.Thread(target=inbox.wait_turn, args=(60,))
    waits.start()
    inbox.wake()
    waits.join()
    inbox.put(message(0))
    inbox.wait_turn(60)


@given(st.lists(st.one_of(st.booleans(), st.none()), max_size=60), st.integers(1, 8))
def test_everything_put_is_drained_or_counted_in_order(steps: list[bool | None], limit: int) -> None:
    inbox, put, out, shed = Inbox(limit), 0, 0, 0
    for i, lasting in enumerate([*steps, None]):
        if lasting is None:
            drained = inbox.drain()
            out += len(drained.messages)
            shed += sum(drained.shed.values())
            assert [m.received for m in drained.messages] == sorted(m.received for m in drained.messages)
            assert sum(token is None for token in drained.tokens) <= limit
        else:
            put += 1
            inbox.put(message(i), Token(1, i) if lasting else None)
    assert put == out + shed
