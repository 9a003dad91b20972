"""Models over MQTT without a broker: whatever becomes of the chunks on the way, the file comes out or nothing does."""

import hashlib
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.dialects import updates
from transom.dialects.chunks import AGAIN, LONGEST, PATIENCE, WINDOW, Chunks
from transom.dialects.updates import Offer, Progress, UpdateError, Want

PUSH = "0123456789abcdef"


def offer_of(data: bytes, chunk: int = 256) -> Offer:
    offer = updates.make_offer(data, "signed", "pump", "3", ".pt", PUSH, "2026-01-01T00:00:00Z", chunk)
    return updates.decode_offer(updates.encode(offer))


SIZES = st.integers(1, 12_000)


@given(SIZES, st.integers(256, 1000))
def test_an_offer_says_what_the_file_is(size: int, chunk: int) -> None:
    data = random.Random(size).randbytes(size)
    offer = offer_of(data, chunk)
    assert (offer.size, offer.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert sum(offer.length(n) for n in range(offer.chunks)) == len(data)
    assert len(updates.hashes(offer)) == offer.chunks


@given(SIZES, st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0, 0.5), st.floats(0, 0.3))
def test_any_order_loss_repetition_and_forgery_lead_to_this_file(
    size: int, seed: int, lost: float, twice: float, forged: float
) -> None:
    """A receiver and a channel that does what it likes; the file is whole in the end, and never another."""
    fate = random.Random(seed)
    data = fate.randbytes(size)
    offer = offer_of(data)
    chunks, kept, now = Chunks(offer), bytearray(len(data)), 0.0
    for _ in range(3000):
        if chunks.complete:
            break
        way = list(chunks.due(now))
        assert len(way) <= WINDOW
        way = [n for n in way if fate.random() >= lost]
        way += [n for n in way if fate.random() < twice] + [fate.randrange(-1, offer.chunks + 2)]
        fate.shuffle(way)
        for number in way:
            piece = data[max(0, number) * 256 :][:256]
            if fate.random() < forged:
                piece = fate.choice([b"", piece[:-1], piece + b"x", bytes(b ^ 1 for b in piece), fate.randbytes(256)])
            if chunks.take(number, piece, now):
                assert len(piece) == offer.length(number)
                kept[number * 256 : number * 256 + len(piece)] = piece
        now += max(0.01, chunks.wait(now))
    assert chunks.complete
    assert bytes(kept) == data


def test_silence_is_asked_into_less_and_less_often() -> None:
    chunks = Chunks(offer_of(bytes(100 * 256)))
    assert chunks.due(0.0) == list(range(WINDOW))
    asked, now = [], 0.0
    while now < 600:
        now += chunks.wait(now)
        if chunks.due(now):
            asked.append(now)
    assert asked[:3] == [PATIENCE, 3 * PATIENCE, 7 * PATIENCE]
    assert len(asked) < 600 / LONGEST + 8
    chunks.hurry()
    assert chunks.due(now) == list(range(WINDOW))


def test_a_lost_chunk_is_asked_for_again_before_the_line_is_silent() -> None:
    data = random.Random(1).randbytes(100 * 256)
    chunks, now, again = Chunks(offer_of(data)), 0.0, []
    for _ in range(40):
        for number in chunks.due(now):
            if number == 3 and now < 0.5:
                continue
            if number == 3:
                again.append(now)
            chunks.take(number, data[number * 256 :][:256], now)
        now += 0.1
    assert again == pytest.approx([AGAIN], abs=0.11)


def test_a_window_is_full_and_no_fuller() -> None:
    data = random.Random(2).randbytes(100 * 256)
    chunks = Chunks(offer_of(data))
    first = chunks.due(0.0)
    assert chunks.due(0.1) == []
    for number in first[: WINDOW // 2]:
        chunks.take(number, data[number * 256 :][:256], 0.2)
    assert chunks.due(0.2) == list(range(WINDOW, WINDOW + WINDOW // 2))


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "../../etc/passwd"}, {"sha256": "A" * 64}, {"suffix": ".sh"}, {"size": 0}, {"size": 1 << 40},
        {"chunk": 1}, {"chunk": 1 << 30}, {"hashes": ""}, {"hashes": "!" * 44}, {"push": "x"}, {"name": ""},
        {"signature": "x" * 20_000},
    ],
)  # fmt: skip
def test_an_offer_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    payload = updates.encode(msgspec.structs.replace(offer_of(bytes(300)), **change))
    with pytest.raises(UpdateError, match="offer"):
        updates.decode_offer(payload)


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_no_payload_is_more_than_refused(payload: bytes) -> None:
    with pytest.raises(UpdateError):
        updates.decode_offer(payload)
    assert updates.decode_want(payload) is None
    assert updates.decode_progress(payload) is None


def test_a_message_that_is_too_large_is_not_even_read() -> None:
    with pytest.raises(UpdateError, match="at most"):
        updates.decode_offer(b"[" * 70_000)


@given(st.lists(st.integers(0, 1023), max_size=64))
def test_wants_and_progress_come_back_as_they_went(numbers: list[int]) -> None:
    want = Want(sha256="0" * 64, chunks=numbers)
    assert updates.decode_want(updates.want("b", "0" * 64, numbers).payload) == want
    told = Progress(stream="s", sha256="0" * 64, state="refused", reason="why", received=3)
    publication = updates.progress("transom/gw", told)
    assert (publication.topic, publication.qos, publication.retain) == ("transom/gw/update/progress", 1, False)
    assert updates.decode_progress(publication.payload) == told


@pytest.mark.parametrize(
    ("rest", "number"),
    [
        ("a/0", 0),
        ("a/17", 17),
        ("a/017", None),
        ("b/1", None),
        ("a/", None),
        ("a/-1", None),
        ("a/1/2", None),
        ("a", None),
    ],
)
def test_the_number_of_a_chunk_stands_in_its_topic(rest: str, number: int | None) -> None:
    assert updates.chunk_number(rest, "a") == number


def test_the_largest_file_has_an_offer_that_brokers_take() -> None:
    size = updates.MOST_CHUNKS * updates.CHUNK_SIZES[0]
    offer = offer_of(bytes(size), updates.chunk_size(size))
    assert offer.chunk == updates.CHUNK_SIZES[0]
    assert updates.chunk_size(size + 1) == updates.CHUNK_SIZES[1]
    assert len(updates.encode(offer)) < updates.LARGEST_OFFER
