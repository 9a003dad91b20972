"""A link that is silent is not taken for silent sensors, and no gap is counted twice."""

from hypothesis import given
from hypothesis import strategies as st

from transom.edge.hearing import Absence, Hearing


class Hand:
    """A clock whose hand the test moves, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_link_that_says_nothing_is_asked_once_and_then_silent() -> None:
    hand = Hand()
    hearing = Hearing(hand)
    hearing.patience = 4.0
    hand.now += 1.9
    assert not hearing.should_ask()
    hand.now += 0.1
    assert hearing.should_ask()
    hand.now += 1.0
    assert not hearing.should_ask()  # it has been asked: asking again would make paho wait anew
    assert not hearing.silent
    hand.now += 1.1
    assert hearing.silent
    hearing.hear()
    assert (hearing.silent, hearing.gaps(), hearing.gaps()) == (False, [(100.0, 104.1)], [])
    hand.now += 2.0
    assert hearing.should_ask()
    hearing.hear()
    assert hearing.gaps() == []


def test_without_a_limit_no_link_is_silent_and_nothing_is_asked() -> None:
    hand = Hand()
    hearing = Hearing(hand)
    hand.now += 1e6
    assert not hearing.silent
    assert not hearing.should_ask()
    hearing.hear()
    assert hearing.gaps() == []


def test_an_absence_counts_when_it_has_ended_and_overlaps_count_once() -> None:
    absence = Absence()
    assert absence.look(10.0, [], away=True) == 0.0
    assert absence.on
    assert absence.look(15.0, [(8.0, 14.0)], away=True) == 6.0
    assert absence.look(16.0, [], away=False) == 2.0
    assert (absence.on, absence.look(17.0, [], away=False)) == (False, 0.0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=8), st.integers(0, 8))
def test_gaps_add_up_to_the_time_that_they_cover(pairs: list[tuple[int, int]], cut: int) -> None:
    """Gaps come in the order of their ends, in one look or in two."""
    gaps = sorted(((float(min(p)), float(max(p))) for p in pairs), key=lambda g: g[1])
    covered = {second for begin, end in gaps for second in range(int(begin), int(end))}
    absence = Absence()
    total = absence.look(0.0, gaps[:cut], away=False) + absence.look(0.0, gaps[cut:], away=False)
    assert total <= len(covered)
    assert absence.look(0.0, gaps, away=False) == 0.0
    if cut == 0:
        assert total == len(covered)
