"""Turns of which one may be under way while the next is gathered: what comes of them is what comes of them in a row."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transom.core.admission import GridSpec
from transom.core.due import infer
from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec
from transom.edge import packing, turns
from transom.edge.keeper import Keeper
from transom.edge.turns import Done, Turns, Work

T0 = 1_700_000_000_000
WAIT = 20  # seconds after which a test has failed


class Counting:
    """Knows how often it was asked, for how many windows; refuses 666."""

    sha256 = ""
    manifest = Manifest(name="counting", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=4)

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.threads: set[str] = set()
        self.gate: threading.Event | None = None
        self.begun = threading.Event()

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        self.begun.set()
        if self.gate is not None:
            assert self.gate.wait(WAIT)
        self.asked.append(len(values))
        self.threads.add(threading.current_thread().name.rpartition("_")[0])
        if (values == 666).any():
            raise RuntimeError("cannot digest 666")
        last = values[:, -1]
        return {"score": np.abs(last[:, 0]), "contribution": np.ones_like(last), "expected": last}


class Stepping(Counting):
    """Goes from step to step, and what it says depends on all steps so far and their order."""

    manifest = Manifest(
        name="stepping", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=4, state=1
    )
    start = np.zeros(1, np.float32)

    def step(self, values: np.ndarray, state: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        after = np.nan_to_num(values) - 0.7 * state
        return super().infer(np.where(values == 666, values, after)[:, None]), after.astype(np.float32)


def pipeline(model: Counting, step: int | None = None) -> Pipeline:
    spec = StreamSpec("s", "plant/{device}/{channel}", grid=GridSpec(step=step), threshold=5.0, budget=None)
    return Pipeline([(spec, model)])


def messages(number: int, count: int = 100) -> list[Message]:
    """Of fifty series; now and then one is far away."""
    return [
        Message(f"plant/d{k % 50}/x", b"%d" % ((number * 7 + k) % 11), T0 + 1000 * number + k) for k in range(count)
    ]


class Runner:
    """Turns with a keeper without a journal, as the run loop has them."""

    def __init__(self, pipe: Pipeline) -> None:
        self.keeper = Keeper(None, 1.0)
        self.keeper.start(pipe)
        self.keeper.remember(pipe)
        self.turns = Turns(pipe, "transom/test", self.keeper.rebuild)
        self.done: list[Done] = []
        self.settled: list[bool] = []

    def land(self, done: Done) -> None:
        self.done.append(done)
        self.settled.append(self.turns.settled)
        self.keeper.add(done.work.turn, (), (), [])

    def take(self, turn: Turn, *, ahead: bool) -> None:
        self.turns.take(Work(turn), self.land, ahead=ahead)

    def end(self) -> list[tuple[str, bytes]]:
        self.turns.settle(self.land)
        self.turns.close()
        return [(p.topic, p.payload) for d in self.done for p in d.publications]


@pytest.fixture(autouse=True)
def _little_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WORTH", 1)


def in_a_row(
    given_turns: list[Turn], step: int | None = None, kind: type[Counting] = Counting
) -> tuple[list[tuple[str, bytes]], bytes]:
    runner = Runner(pipeline(kind(), step))
    for turn in given_turns:
        runner.take(turn, ahead=False)
    return runner.end(), packing.pack(runner.turns.pipeline.snapshot())


@pytest.mark.parametrize("kind", [Counting, Stepping])
def test_the_next_turn_is_gathered_while_the_model_is_busy(kind: type[Counting]) -> None:
    model = kind()
    runner = Runner(pipeline(model))
    runner.take(Turn(messages(0, 200)), ahead=False)
    model.gate = threading.Event()
    model.begun.clear()
    runner.take(Turn(messages(1)), ahead=True)
    assert model.begun.wait(WAIT)
    assert runner.turns.under_way
    assert len(runner.done) == 1, "a turn whose model is busy is not done"
    opener = threading.Timer(0.05, model.gate.set)
    before = runner.turns.pipeline.accounts()["s"]["received"]
    opener.start()
    runner.take(Turn(messages(2)), ahead=True)
    assert runner.turns.pipeline.accounts()["s"]["received"] == before + 100
    assert [d.work.turn.messages[0].received for d in runner.done] == [T0, T0 + 1000]
    assert runner.settled == [True, False], "what was gathered ahead must not get into a snapshot"
    made = [Turn(messages(0, 200)), Turn(messages(1)), Turn(messages(2))]
    assert runner.end() == in_a_row(made, kind=kind)[0]
    assert model.threads >= {"transom-model"}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 120), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=12),
    st.sampled_from([None, 500]),
    st.sampled_from([Counting, Stepping]),
)
def test_whatever_is_under_way_the_events_and_the_state_are_those_of_a_row(
    plan: list[tuple[int, bool, bool, bool]], step: int | None, kind: type[Counting]
) -> None:
    made = []
    for i, (count, _, poison, tick) in enumerate(plan):
        some = messages(i, count)
        if poison and some:
            some[len(some) // 2] = some[len(some) // 2]._replace(payload=b"666")
        made.append(Turn(some, now=T0 + 1000 * i + 200 if tick else None))
    runner = Runner(pipeline(kind(), step))
    for turn, (_, ahead, _, _) in zip(made, plan, strict=True):
        runner.take(turn, ahead=ahead)
    heard, state = runner.end(), packing.pack(runner.turns.pipeline.snapshot())
    assert (heard, state) == in_a_row(made, step, kind)
    assert runner.turns.settled
    assert len(runner.done) == len(made)


@pytest.mark.parametrize("kind", [Counting, Stepping])
def test_one_poison_under_way_costs_neither_what_was_gathered_behind_it_nor_the_rest(kind: type[Counting]) -> None:
    model = kind()
    runner = Runner(pipeline(model))
    bad = messages(1)
    bad[7] = bad[7]._replace(payload=b"666")
    for number, some in enumerate([messages(0, 200), bad, messages(2), messages(3)]):
        runner.take(Turn(some), ahead=number > 0)
    runner.end()
    counts = runner.turns.pipeline.accounts()["s"]
    assert (counts["received"], counts["invalid"], counts["accepted"]) == (500, 1, 499)
    assert [len(d.work.turn.refused) for d in runner.done] == [0, 1, 0, 0]


def test_streams_that_share_a_model_ask_it_once() -> None:
    model = Counting()
    specs = [StreamSpec(name, f"{name}/{{device}}/{{channel}}", budget=1e-9) for name in ("a", "b", "c")]
    other = Counting()
    pipe = Pipeline([*((spec, model) for spec in specs), (StreamSpec("d", "d/{device}/{channel}", budget=1e-9), other)])

    def some(number: int) -> Iterator[Message]:
        for name in "abcd":
            for k in range(5):
                yield Message(f"{name}/d{k}/x", b"%d" % k, T0 + 1000 * number + k)

    for number in range(4):
        pipe.process(list(some(number)))
    assert (model.asked, other.asked) == ([15] * 4, [5] * 4)
    waiting = pipe.gather(Turn(list(some(4))))
    outputs = infer(waiting)
    assert [len(o["score"]) for o in outputs] == [5, 5, 5, 5]
    assert [o["score"].tolist() for o in outputs] == [[0, 1, 2, 3, 4]] * 4


def test_streams_that_share_an_incremental_model_ask_it_once_a_round() -> None:
    model = Stepping()
    specs = [StreamSpec(name, f"{name}/{{device}}/{{channel}}", budget=1e-9) for name in ("a", "b")]
    pipe, alone = Pipeline([(spec, model) for spec in specs]), Pipeline([(specs[1], Stepping())])

    def some(number: int) -> list[Message]:
        """Of a: d0 once, d1 twice; of b: d0 three times, d1 once."""
        counts = {("a", 0): 1, ("a", 1): 2, ("b", 0): 3, ("b", 1): 1}
        return [
            Message(f"{name}/d{k}/x", b"%d" % (number + i), T0 + 1000 * number + 10 * i)
            for (name, k), count in counts.items()
            for i in range(count)
        ]

    for number in range(3):
        waiting = pipe.gather(Turn(some(number)))
        assert model.asked == [4, 2, 1] * number, "the model was asked before it was its turn"
        outputs = infer(waiting)
        pipe.judge(waiting, outputs)
        alone.process([m for m in some(number) if m.topic.startswith("b/")])
    assert model.asked == [4, 2, 1] * 3
    states = [p.streams["b"].buffers.snapshot()["states"]["state"] for p in (pipe, alone)]
    assert np.array_equal(*states)
    assert states[0].any()
