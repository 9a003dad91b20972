"""Whom an alert names: at the raise, by an update when another channel earns it, and at its end."""

import copy

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transom.core.blame import NAMED, OFTEN, UPDATES, Blame, carriers, in_order
from transom.core.events import Alert
from transom.core.model import Channel, Manifest
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec

ONE = np.zeros(1, np.int32)
T0 = 1_700_000_000_000


@given(st.lists(st.floats(0, 1e9, width=32), min_size=1, max_size=9))
def test_a_sentence_names_one_to_three_channels_and_those_with_the_largest_shares(shares: list[float]) -> None:
    row = np.array([shares], np.float32)
    named = carriers(row)[0]
    assert 1 <= named.sum() <= NAMED
    if not named.all():
        assert row[0, named].min() >= row[0, ~named].max()


def test_a_channel_with_more_than_a_quarter_is_named_though_another_has_most() -> None:
    assert carriers(np.array([[7.0, 2.8, 0.2]])).tolist() == [[True, True, False]]
    assert carriers(np.array([[9.0, 0.5, 0.5]])).tolist() == [[True, False, False]]


class Deviations:
    """A model whose channels are 0 on normal data: a channel's size is its contribution."""

    sha256 = ""

    def __init__(self, channels: int = 4) -> None:
        self.manifest = Manifest(
            name="deviations", version="1", task="anomaly", family="none", length=1,
            channels=tuple(Channel(f"c{i}", "bar") for i in range(channels)),
        )  # fmt: skip

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        size = np.abs(values[:, -1])
        return {"score": size.sum(1), "contribution": size, "expected": np.zeros_like(size),
                "interval": np.stack([np.zeros_like(size), np.ones_like(size)], 2)}  # fmt: skip


def messages(rows: list[list[float]]) -> list[Message]:
    names = range(len(rows[0]))
    return [
        Message("plant/a", ("{" + ",".join(f'"c{j}":{row[j]}' for j in names) + "}").encode(), T0 + 1000 * i)
        for i, row in enumerate(rows)
    ]


def pipeline() -> Pipeline:
    return Pipeline([(StreamSpec("s", "plant/{device}", budget=None, threshold=5.0), Deviations())])


def told(rows: list[list[float]]) -> list[Alert]:
    made = pipeline()
    return [*made.process(messages(rows)).alerts, *made.flush().alerts]


def test_a_second_channel_at_fault_is_told_of_by_one_update_that_names_both() -> None:
    raised, update = told([[6.0, 0, 0, 0]] * 4 + [[3.0, 0, 4.0, 0]] * 10)
    assert (raised.event, raised.channels) == ("raise", ("c0",))
    assert (update.event, update.channels, update.id) == ("update", ("c0", "c2"), raised.id)
    assert update.summary == "c2 4 bar, expected 0 (0 to 1); c0 3 bar, expected 0 (0 to 1)"
    assert update.time - raised.time == 1_000_000 * (4 + OFTEN - 1)


def test_a_channel_that_shows_for_fewer_windows_than_needed_is_not_told_of() -> None:
    assert len(told([[6.0, 0, 0, 0]] * 4 + [[3.0, 4.0, 0, 0]] * (OFTEN - 1) + [[6.0, 0, 0, 0]] * 10)) == 1


def test_an_alert_tells_of_new_channels_a_bounded_number_of_times() -> None:
    blame = Blame(9)
    blame.resize(1)
    updates = 0
    up = np.ones(1, bool)
    for fault in range(9):
        row = np.zeros((1, 9), np.float32)
        row[0, fault] = 5.0
        for _ in range(6):
            more = blame.weigh(ONE, row, up, up)
            updates += int(more[0])
            if more[0]:
                blame.name(ONE, row)
    assert updates == UPDATES


def test_the_end_of_an_alert_names_whom_it_named_and_the_next_starts_anew() -> None:
    rows = [[0, 9.0, 0, 0]] * 3 + [[0.1, 0, 0, 0.2]] * 6 + [[0, 0, 9.0, 0]]
    _, cleared, again = told(rows)
    assert (cleared.event, cleared.channels) == ("clear", ("c1",))
    assert cleared.summary.startswith("c1 0 bar")
    assert (again.event, again.channels) == ("raise", ("c2",))


def test_who_was_named_survives_a_snapshot() -> None:
    rows = [[6.0, 0, 0, 0]] * 6 + [[6.0, 0, 7.0, 0]] * 10
    begun, resumed = pipeline(), pipeline()
    first = begun.process(messages(rows)[:8]).alerts
    assert resumed.restore(copy.deepcopy(begun.snapshot())) == []
    assert [*first, *resumed.process(messages(rows)[8:]).alerts] == told(rows)


def test_places_are_in_the_order_of_naming() -> None:
    blame = Blame(3)
    blame.resize(1)
    blame.name(ONE, np.array([[0.0, 9.0, 0.0]]))
    blame.name(ONE, np.array([[5.0, 0.0, 4.0]]))
    assert in_order(blame.place[0]) == [1, 0, 2]
    blame.forget(ONE)
    assert in_order(blame.place[0]) == []
