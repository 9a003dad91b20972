"""The lines of our own recordings: what went in comes out, gaps are jumps, and a cut end costs no more than its line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.core import recorded
from transom.core.pipeline import Message, Turn
from transom.errors import RecordingError

NOW = 1_767_225_600_000


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=("Cs",))), st.binary(max_size=20), st.integers(0, 4 * 10**12), st.booleans()), max_size=20)
)  # fmt: skip
def test_every_message_comes_back_as_it_was(messages: list[tuple[str, bytes, int, bool]]) -> None:
    given_ = [Message(topic, payload, time, retained=kept) for topic, payload, time, kept in messages]
    lines = [recorded.line(message, 1).decode() for message in given_]
    assert [m for turn in recorded.turns(lines, "x") for m in turn.messages] == given_


def test_a_line_says_what_a_person_wants_to_know() -> None:
    line = recorded.line(Message("plant/a", b"21.5", NOW, retained=True), 1)
    assert json.loads(line) == {
        "time": "2026-01-01T00:00:00.000Z",
        "topic": "plant/a",
        "payload": "21.5",
        "qos": 1,
        "retained": True,
    }
    assert json.loads(recorded.line(Message("plant/a", b"\xff", NOW)))["base64"] == "/w=="


def turns(*lines: bytes, after: int | None = None) -> list[Turn]:
    return [t for t in recorded.turns([line.decode() for line in lines], "x.jsonl", after) if t.messages or t.jump]


def test_a_gap_is_a_jump_between_what_came_before_and_after() -> None:
    one, two = Message("a", b"1", NOW), Message("a", b"2", NOW + 9000)
    found = turns(recorded.line(one), recorded.word("gap", NOW + 8000, seconds=7.5, reason="away"), recorded.line(two))
    assert found == [Turn([one], NOW), Turn(jump=7500), Turn([two], NOW + 9000)]


def test_the_time_between_two_recordings_is_a_gap() -> None:
    one, two = Message("a", b"1", NOW), Message("a", b"2", NOW + 60_000)
    again = (recorded.word("begin", NOW + 50_000, filters=["a"]), recorded.line(two))
    joined = turns(
        recorded.word("begin", NOW, filters=["a"]), recorded.line(one), recorded.word("end", NOW + 10), *again
    )
    assert joined == [Turn([one], NOW), Turn(jump=49_990), Turn([two], NOW + 60_000)]
    assert turns(*again, after=NOW + 10) == joined[1:]


def test_what_a_killed_recorder_left_is_read_to_its_last_whole_line() -> None:
    whole = recorded.line(Message("a", b"1", NOW))
    assert [t.messages for t in turns(whole, whole[:-9])] == [[Message("a", b"1", NOW)]]


@pytest.mark.parametrize("line", ["{}\n", '{"time":"2026-01-01T00:00:00Z"}\n', '{"time":"x","topic":"a"}\n', '{"topic":"a"}\n', "[]\n", '{"time":"2026-01-01T00:00:00Z","topic":"a","base64":"!"}\n'])  # fmt: skip
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(RecordingError, match="x.jsonl:2.*is no line of a recording"):
        list(recorded.turns([recorded.line(Message("a", b"1", NOW)).decode(), line], "x.jsonl"))


@pytest.mark.parametrize(
    "line",
    [
        b'{"time":"NaT","topic":"a"}\n',
        b'{"time":"99999-01-01T00:00:00.000Z","topic":"a"}\n',
        b'{"time":"2026-01-01T00:00:00.000Z","event":"gap","seconds":1e308}\n',
        b'{"time":"2026-01-01T00:00:00.000Z","event":"gap","seconds":-5}\n',
    ],
)
def test_a_time_or_gap_that_cannot_be_is_refused_with_its_line(line: bytes) -> None:
    with pytest.raises(RecordingError, match="x.jsonl:2"):
        turns(recorded.line(Message("a", b"1", NOW)), line)


def test_a_time_with_an_offset_is_that_instant() -> None:
    (turn,) = turns(b'{"time":"2026-01-01T02:00:00.000+02:00","topic":"a","payload":"1"}\n')
    assert turn.messages == [Message("a", b"1", NOW)]
