"""Clock, logs, redeliveries and poison: the small parts that keep an agent calm."""

import logging

from hypothesis import given
from hypothesis import strategies as st

from transom.core.pipeline import Message, Turn
from transom.edge import logs, observe, redelivered
from transom.edge.clock import Clock
from transom.edge.redelivered import Redelivered
from transom.edge.sift import sift

SECOND = 1_000_000_000


class Hands:
    """A clock whose hands the test moves, in seconds."""

    def __init__(self) -> None:
        self.wall = self.boot = self.awake = 0.0

    def clock(self) -> Clock:
        return Clock(lambda: int(self.wall * SECOND), lambda: int(self.boot * SECOND), lambda: int(self.awake * SECOND))

    def pass_by(self, seconds: float) -> None:
        self.wall, self.boot, self.awake = self.wall + seconds, self.boot + seconds, self.awake + seconds


def test_a_clock_that_runs_does_not_jump_even_when_it_is_slewed() -> None:
    hands = Hands()
    clock = hands.clock()
    for _ in range(100):
        hands.pass_by(10)
        hands.wall += 0.015
        assert clock.look()[1] == 0


def test_a_gateway_without_a_clock_that_learns_the_time_jumps_once(caplog) -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_by(5)
    hands.wall += 50 * 365 * 86_400
    assert clock.look()[1] == 50 * 365 * 86_400_000
    hands.pass_by(5)
    assert (clock.look()[1], clock.steps) == (0, 1)
    hands.wall -= 3600
    assert clock.look()[1] == -3_600_000
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "the clock was set forward by 1576800000 s", "the clock was set back by 3600 s",
    ]  # fmt: skip


def test_a_machine_that_slept_says_for_how_long() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_by(5)
    hands.wall, hands.boot = hands.wall + 8 * 3600, hands.boot + 8 * 3600
    assert clock.look()[1] == 8 * 3_600_000
    hands.pass_by(5)
    assert clock.look()[1] == 0


def test_a_warning_that_repeats_is_said_once_a_minute_with_its_count() -> None:
    now, said = [0.0], []
    collapse = logs.Collapse(lambda: now[0])

    def warn(text: str, level: int = logging.WARNING) -> None:
        record = logging.LogRecord("transom", level, "", 0, "%s", (text,), None)
        if collapse.filter(record):
            said.append(record.getMessage())

    for i in range(1000):
        now[0] = i / 10
        warn("the broker is away")
    warn("something else")
    warn("an ordinary line", logging.INFO)
    warn("an ordinary line", logging.INFO)
    assert said == [
        "the broker is away", "the broker is away (599 more times in the last 60 s)", "something else",
        "an ordinary line", "an ordinary line",
    ]  # fmt: skip


def test_the_collapsing_of_lines_is_bounded() -> None:
    collapse = logs.Collapse(lambda: 0.0)
    for i in range(5000):
        assert collapse.filter(logging.LogRecord("transom", logging.WARNING, "", 0, f"line {i}", (), None))
    assert len(collapse._seen) <= logs.REMEMBERED


def test_a_message_that_comes_again_is_recognised_and_a_new_one_is_not() -> None:
    seen = Redelivered()
    first, again = Message("t", b"1", 0), Message("t", b"1", 5, redelivered=True)
    assert not seen.seen(1, first)
    assert seen.seen(1, again)
    assert not seen.seen(1, first)  # not marked: the broker has begun anew with its ids
    assert not seen.seen(2, again)
    assert not seen.seen(1, Message("t", b"2", 6, redelivered=True))


def test_what_was_seen_is_remembered_across_a_restart_and_bounded(monkeypatch) -> None:
    monkeypatch.setattr(redelivered, "REMEMBERED", 10)
    seen = Redelivered()
    for mid in range(50):
        seen.seen(mid, Message("t", b"%d" % mid, 0))
    assert len(seen.marks()) == 10
    after = Redelivered()
    after.add(seen.marks())
    assert after.seen(49, Message("t", b"49", 1, redelivered=True))
    assert not after.seen(39, Message("t", b"39", 1, redelivered=True))


def test_a_loss_that_goes_on_is_said_once_and_then_once_an_hour() -> None:
    losses, said = observe.Losses(), []
    for second in range(0, 7300, 30):
        accounts = {
            "s": {"accepted": second, "invalid": second // 3, "late": 0, "duplicate": 0, "shed": 0, "missing": 0}
        }
        said += losses.lines(accounts, float(second))
    assert [line.split(";")[0] for line in said] == [
        "streams.s: readings were lost: 10 refused as invalid",
        "streams.s: readings were lost: 1200 refused as invalid",
        "streams.s: readings were lost: 1200 refused as invalid",
    ]


class Sum:
    """A pipeline that fails when what it has taken adds up to too much: no single message is to blame."""

    def __init__(self) -> None:
        self.total = 0

    def take(self, turn: Turn) -> None:
        for m in turn.messages:
            self.total += int(m.payload)
            if self.total == 13:
                raise ValueError("thirteen")


@given(st.lists(st.integers(0, 9), max_size=40))
def test_what_is_sifted_can_be_taken_together(numbers: list[int]) -> None:
    turn = Turn([Message("a/b", b"%d" % n, i) for i, n in enumerate(numbers)], 0)
    good, bad = sift(turn, Sum, Sum.take)  # type: ignore[arg-type]
    Sum().take(turn._replace(messages=good))
    assert sorted(good + [m for m, _ in bad], key=lambda m: m.received) == turn.messages
    assert bool(bad) == (13 in (sum(numbers[: i + 1]) for i in range(len(numbers))))
