"""What a batch costs, in counts that no busy machine changes: writes, reads, queries, bytes."""

import gc
import socket
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec
from transom.dialects.plain import publications
from transom.edge import packets
from transom.edge.client import Client, new
from transom.edge.inbox import Token
from transom.edge.journal import Journal
from transom.edge.keeper import Keeper

T0 = 1_700_000_000_000
MANY = 1000
LENGTH = 64


class Watching:
    sha256 = ""

    def __init__(self, channel: str) -> None:
        self.manifest = Manifest(
            name="m", version="1", task="anomaly", family="none", channels=(Channel(channel),), length=LENGTH
        )

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        last = values[:, -1]
        return {"score": last[:, 0] * 0, "contribution": np.zeros_like(last), "expected": last}


def pipeline(channel: str = "x") -> Pipeline:
    spec = StreamSpec("s", "plant/{device}/{channel}", threshold=5.0, budget=None, max_series=1_000_000)
    return Pipeline([(spec, Watching(channel))])


def messages(count: int, number: int = 0, series: int = MANY) -> list[Message]:
    return [
        Message(
            f"plant/d{k % series}/x", b'{"value":%d.5,"time":%d}' % (k % 7, T0 + 1000 * number + k), T0 + 1000 * number
        )
        for k in range(count)
    ]


@pytest.fixture
def client() -> Iterator[Client]:
    """One whose socket is a pair's end; the broker's is `client.far`. It counts what it asks of the kernel."""
    near, far = socket.socketpair()
    for end in (near, far):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        end.setblocking(False)
    made = new("counting", version5=True, clean=None)
    assert isinstance(made, Client)
    made._create_socket = lambda: near  # type: ignore[method-assign]
    made._left, made._need, made._pushed = bytearray(), 0, b""
    made._sock, made.calls, made.far = near, [], far  # type: ignore[attr-defined]
    for name in ("_sock_send", "_sock_recv"):
        inner = getattr(made, name)
        setattr(made, name, lambda *a, name=name, inner=inner: made.calls.append(name) or inner(*a))  # type: ignore[attr-defined]
    yield made
    made._sock = None
    near.close()
    far.close()


def test_a_batch_of_publications_is_one_write(client: Client) -> None:
    pipe = pipeline()
    pipe.process(messages(MANY * LENGTH))
    made = [(p.topic, p.payload) for p in publications(pipe.process(messages(MANY, 100)), "transom/test")]
    assert len(made) == MANY
    client.publish_many(made)
    client.loop_write()
    assert client.calls == ["_sock_send"]  # type: ignore[attr-defined]


def test_a_batch_of_acknowledgements_is_one_write(client: Client) -> None:
    client.acknowledge(range(1, MANY + 1))
    client.loop_write()
    assert client.calls == ["_sock_send"]  # type: ignore[attr-defined]


def test_all_that_has_arrived_is_one_read_and_one_call(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    reads: list[int] = []
    client.on_batch = lambda batch: batches.append(len(batch))
    client.on_heard = lambda: reads.append(1)
    client.far.sendall(packets.publish([("plant/d1/x", b'{"value":21.5}')] * MANY, True))  # type: ignore[attr-defined]
    client.loop_read()
    assert (batches, reads) == ([MANY], [1])


def test_a_commit_is_one_transaction_of_one_query_whatever_it_holds(tmp_path: Path) -> None:
    pipe, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    keeper.start(pipe)
    assert keeper.journal is not None
    db: sqlite3.Connection = keeper.journal._connection()
    for number, count in enumerate((1, MANY, 3 * MANY)):
        turns = [Turn(messages(count, number)) for _ in range(3)]
        for turn in turns:
            pipe.take(turn)
            keeper.add(turn, [Token(1, k) for k in range(1, count + 1)], [(k, k) for k in range(1, count + 1)], ())
        asked: list[str] = []
        db.set_trace_callback(asked.append)
        assert len(keeper.commit(None, ()).tokens) == 3 * count
        db.set_trace_callback(None)
        assert [text.split()[0] for text in asked] == ["BEGIN", "INSERT", "COMMIT"]
    assert keeper.commits == 3
    keeper.close(pipe)


# A model of any sensor keeps the habits of each series, by hour of the week, beside its windows.
@pytest.mark.parametrize(("channel", "most"), [("x", 3000), (ANY, 6000)])
def test_what_a_series_costs_beside_its_windows_is_bounded(channel: str, most: int) -> None:
    pipe, more = pipeline(channel), 20_000
    pipe.process(messages(MANY))
    gc.collect()
    tracemalloc.start()
    for begin in range(0, more, MANY):
        made = [
            Message(f"plant/e{k}/x", b'{"value":%d.5,"time":%d}' % (k % 7, T0 + begin), T0 + begin)
            for k in range(begin, begin + MANY)
        ]
        pipe.process(made)
    del made
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pipe.accounts()["s"]["series"] == MANY + more
    storage = 2 * LENGTH * 4
    assert held / more - storage < most  # with rows that are empty yet: a table doubles when it grows


def test_a_reading_allocates_a_bounded_number_of_bytes() -> None:
    pipe = pipeline()
    pipe.process(messages(MANY * LENGTH))
    batches = [messages(MANY, 100 + i) for i in range(5)]
    list(publications(pipe.process(batches[0]), "transom/test"))  # what is made once is made
    tracemalloc.start()
    peaks = []
    for batch in batches[1:]:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        out = list(publications(pipe.process(batch), "transom/test"))
        _, peak = tracemalloc.get_traced_memory()
        peaks.append((peak - before) / len(batch))
        del out
    tracemalloc.stop()
    # Its window is 256 bytes of it, and what is published 400.
    assert max(peaks) < 6000, peaks
