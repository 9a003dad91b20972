"""What no code of ours can digest: refused one by one, and the pipeline stays what it is, with a journal or without."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from transom.core.admission import GridSpec
from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec
from transom.edge import packing, past
from transom.edge.journal import Journal
from transom.edge.keeper import Keeper
from transom.edge.past import Past
from transom.edge.sift import digest, sift

T0 = 1_700_000_000_000
POISON = b"666"


class Choosy:
    sha256 = ""
    manifest = Manifest(name="choosy", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=4)

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        if (values == 666).any():
            raise RuntimeError("cannot digest 666")
        last = values[:, -1]
        return {"score": np.abs(last[:, 0]), "contribution": np.ones_like(last), "expected": last}


def pipeline(step: int | None = None) -> Pipeline:
    return Pipeline([(StreamSpec("s", "plant/{device}/{channel}", grid=GridSpec(step=step)), Choosy())])


def turns(count: int, *, poison: bool) -> Iterator[Turn]:
    """Twenty messages each, of three series; in every third turn one of them is poison."""
    for i in range(count):
        numbers = [b"%d" % ((i + k) % 7) for k in range(20)]
        messages = [Message(f"plant/d{k % 3}/x", number, T0 + 100 * i + k) for k, number in enumerate(numbers)]
        if i % 3 == 2:
            messages[9:10] = [messages[9]._replace(payload=POISON)] if poison else []
        yield Turn(messages)


def run(keeper: Keeper, pipe: Pipeline, given: Iterator[Turn]) -> Pipeline:
    """As the run loop does it."""
    for turn in given:
        keeper.remember(pipe)
        try:
            pipe.take(turn)
        except RuntimeError:
            pipe, turn, _ = digest(turn, keeper.rebuild(pipe), Pipeline.take)
        keeper.add(turn, (), (), ())
        keeper.commit(pipe, ())
    return pipe


@pytest.mark.parametrize("kept", ["process", "none", "off"])
def test_however_many_poisons_come_only_they_are_refused(
    tmp_path: Path, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "MOST", 100)
    keeper = Keeper(None if kept == "none" else Journal(tmp_path, "process"), 1.0)
    pipe, undisturbed = pipeline(), pipeline()
    keeper.start(pipe)
    pipe = run(keeper, pipe, turns(6, poison=True))
    if kept == "off" and keeper.journal is not None:
        keeper.journal.close()
    pipe = run(keeper, pipe, turns(60, poison=True))
    assert keeper.on == (kept == "process")
    for turn in (*turns(6, poison=False), *turns(60, poison=False)):
        undisturbed.take(turn)
    counts, expected = pipe.accounts()["s"], undisturbed.accounts()["s"]
    assert (counts["invalid"], counts["accepted"]) == (22, expected["accepted"])
    assert counts["windows"] == expected["windows"]
    mine, other = (p.snapshot()["streams"]["s"]["buffers"] for p in (pipe, undisturbed))
    assert packing.pack({"b": mine}) == packing.pack({"b": other})


def test_memory_of_the_past_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "MOST", 100)
    keeper, pipe = Keeper(None, 1.0), pipeline()
    most = 0
    for turn in turns(300, poison=False):
        keeper.remember(pipe)
        pipe.take(turn)
        keeper.add(turn, (), (), ())
        keeper.commit(pipe, ())
        most = max(most, len(keeper._past._turns))
    assert most <= 6
    copy = pipe.fresh()
    keeper._past.replay(copy)
    assert packing.pack(copy.snapshot()) == packing.pack(pipe.snapshot())


def test_nothing_is_remembered_while_the_journal_does_it(tmp_path: Path) -> None:
    keeper, pipe = Keeper(Journal(tmp_path, "process"), 1.0), pipeline()
    keeper.start(pipe)
    run(keeper, pipe, turns(2, poison=False))
    assert not keeper._past
    keeper.close(pipe)


def test_a_pipeline_is_made_again_once_for_all_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, pipe = Keeper(Journal(tmp_path, "process"), 1.0), pipeline()
    keeper.start(pipe)
    run(keeper, pipe, turns(100, poison=False))
    assert keeper.journal is not None
    reads = []
    read = keeper.journal.turns
    monkeypatch.setattr(keeper.journal, "turns", lambda: (reads.append(1), read())[1])
    bad = Turn([Message("plant/d0/x", POISON if i % 50 == 7 else b"1", T0 + 10**6 + i) for i in range(400)])
    _, left, _ = digest(bad, keeper.rebuild(pipe), Pipeline.take)
    assert (len(left.messages), len(left.refused), len(reads)) == (392, 8, 1)
    keeper.close(pipe)


def test_a_journal_that_cannot_be_read_again_is_set_aside_and_the_agent_goes_on(tmp_path: Path) -> None:
    keeper, pipe = Keeper(Journal(tmp_path, "process"), 1.0), pipeline()
    keeper.start(pipe)
    run(keeper, pipe, turns(2, poison=False))
    assert keeper.journal is not None
    keeper.journal._run("UPDATE turns SET turns = x'00'")
    pipe = run(keeper, pipe, turns(3, poison=True))
    assert "checksum" in keeper.problem
    assert pipe.accounts()["s"]["accepted"] == 19  # of the last turn
    assert keeper.reopen() is True
    assert keeper.resume(pipe, (), ()) == []
    assert len([p for p in tmp_path.iterdir() if ".damaged-" in p.name]) >= 1
    keeper.close(pipe)


class Deep:
    """Fails in the first tries after each sifting: as one does near the end of the stack."""

    fails = 0

    def __init__(self, taken: list[Turn]) -> None:
        self._taken = taken

    def take(self, turn: Turn) -> None:
        self._taken.append(turn)
        if len(turn.messages) > 1 and Deep.fails:
            Deep.fails -= 1
            raise RecursionError("too deep")


def test_messages_that_are_harmless_in_one_try_and_not_in_the_next_end_nothing() -> None:
    turn = Turn([Message("a/b", b"1", i) for i in range(4)], T0)
    for fails in range(40):
        Deep.fails = fails
        taken: list[Turn] = []
        _, left, _ = digest(turn, lambda taken=taken: Deep(taken), Deep.take)  # type: ignore[arg-type]
        assert len(left.messages) + len(left.refused) == 4
        assert taken[-1] == left


def test_a_look_for_idle_series_that_fails_blames_no_message() -> None:
    pipe = pipeline(step=1000)
    fill = [Message("plant/a/x", b"1", T0 + 1000 * i) for i in range(3)]
    pipe.take(Turn([*fill, Message("plant/a/x", POISON, T0 + 3000)]))
    state = pipe.snapshot()

    def again() -> Pipeline:
        copy = pipe.fresh()
        copy.restore(state)
        return copy

    turn = Turn([Message("plant/b/x", b"1", T0 + 3500)], T0 + 600_000)
    with pytest.raises(RuntimeError):
        again().take(turn)
    _, left, _ = digest(turn, again, Pipeline.take)
    assert (left.messages, left.refused, left.now) == (turn.messages, [], None)


def test_a_copy_that_is_kept_cannot_be_changed_by_what_is_made_of_it() -> None:
    pipe, memory = pipeline(), Past()
    for turn in turns(3, poison=False):
        pipe.take(turn)
    memory.keep(pipe)
    before = packing.pack(pipe.snapshot())
    for _ in range(2):
        copy = memory.copy(pipe.fresh())
        assert packing.pack(copy.snapshot()) == before
        for turn in turns(5, poison=False):
            copy.take(turn)


def test_of_a_turn_without_messages_nothing_is_sifted() -> None:
    assert sift(Turn(), pipeline, Pipeline.take) == ([], [])
