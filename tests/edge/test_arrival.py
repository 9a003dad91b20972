"""Models over MQTT, the agent's side without a broker: what is taken, what is refused and when, what a restart keeps."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests_arrival import FOREIGN, KEY, Noted, configured, offer_of, piece, progress_in, signed
from transom.core.model import ANY, Channel, Manifest
from transom.dialects import updates
from transom.dialects.updates import Offer, Progress
from transom.edge.arrival import desk as desks
from transom.edge.arrival import handled as handled_
from transom.edge.arrival import parts
from transom.edge.arrival import receiver as receivers
from transom.edge.arrival.desk import Desk
from transom.edge.arrival.handled import Handled
from transom.edge.arrival.receiver import Receiver
from transom.runtimes import minisign

DATA = random.Random(7).randbytes(80_000)
OPEN: list[Receiver] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


class Side:
    """An agent's receiver, and what it has said."""

    def __init__(self, tmp_path: Path, store: Noted | None = None, **models: Any) -> None:
        self.store = store or Noted()
        self.desk = Desk(configured(tmp_path, **models), self.store)
        self.receiver = Receiver(self.desk)
        self.now = 100.0
        self.said: list[Progress] = []
        self.wanted: list[int] = []
        self.folder = tmp_path / "gw" / "models" / "incoming" / "mqtt"
        OPEN.append(self.receiver)

    def offered(self, offer: Offer, stream: str = "s") -> None:
        self.receiver.offered(stream, updates.encode(offer), self.now)
        self.step()

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.receiver.step(self.now)
        publications = self.desk.unsent()
        self.said += progress_in(publications)
        for publication in publications:
            want = updates.decode_want(publication.payload) if publication.topic.endswith("/want") else None
            self.wanted += want.chunks if want is not None else []

    def serve(self, data: bytes, offer: Offer, most: int = 10_000) -> int:
        """Answers what is asked for; how many chunks were sent."""
        sent = 0
        while self.wanted and sent < most:
            number = self.wanted.pop(0)
            self.receiver.chunk(number, piece(data, offer, number), self.now)
            sent += 1
            self.step(0.1)
        return sent

    @property
    def last(self) -> Progress:
        return self.said[-1]


class Running:
    """What a stream runs, as far as anyone here asks."""

    def __init__(self, version: str, sha256: str = "", name: str = "pump") -> None:
        self.sha256 = sha256
        self.manifest = Manifest(
            name=name, version=version, task="anomaly", family="none", channels=(Channel(ANY),), length=8
        )  # fmt: skip

    def infer(self, values: object) -> Any:
        raise NotImplementedError


def test_what_was_offered_arrives_whole_and_nothing_is_left(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    side.offered(offer)
    assert side.serve(DATA, offer) == offer.chunks
    side.step()
    assert side.store.offers == [("s", DATA, signed(DATA), "mqtt")]
    assert [p.state for p in side.said if p.state != "downloading"] == ["verifying", "offered"]
    assert side.last.push == offer.push
    assert list(side.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (offer_of(DATA, FOREIGN), "not among models.trusted_keys"),
        (msgspec.structs.replace(offer_of(DATA), signature=signed(b"another file")), "is not of this file"),
        (msgspec.structs.replace(offer_of(DATA), signature=""), "signature"),
        (msgspec.structs.replace(offer_of(DATA), version="9"), "says pump@9 and its signature pump@3"),
        (msgspec.structs.replace(offer_of(DATA), blake2b="0" * 128), "is not of this file"),
        (offer_of(DATA, label="pump@1"), "pump@1 is not newer than pump@2"),
        (offer_of(random.Random(1).randbytes(100_000)), "models.updates_largest allows 81,920"),
    ],
)
def test_nothing_is_asked_for_of_what_would_not_be_taken(tmp_path: Path, offer: Offer, reason: str) -> None:
    side = Side(tmp_path, updates_largest="80KiB")
    side.desk.running = {"s": Running("2")}
    side.offered(offer)
    assert reason in side.last.reason
    assert (side.last.state, side.wanted, side.folder.exists()) == ("refused", [], False)


def test_a_file_signed_by_minisign_itself_needs_no_label(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), msgspec.structs.replace(offer_of(DATA), signature=minisign.sign(DATA, KEY, "by hand"))
    side.offered(offer)
    assert side.wanted


@pytest.mark.parametrize(
    ("new", "running", "refused"),
    [("2", "10", True), ("10", "2", False), ("2", "2", True), ("1.9", "1.10", True), ("1.10", "1.9", False)],
)
def test_only_a_newer_version_is_worth_a_download(tmp_path: Path, new: str, running: str, *, refused: bool) -> None:
    side = Side(tmp_path)
    side.desk.running = {"s": Running(running)}
    side.offered(offer_of(DATA, label=f"pump@{new}"))
    assert ([p.state for p in side.said] == ["refused"]) is refused


def test_what_runs_already_is_not_sent_again(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    side.desk.running = {"s": Running("3", offer.sha256)}
    side.offered(offer)
    assert (side.last.state, side.last.reason, side.wanted) == ("offered", "it runs here already", [])


@pytest.mark.parametrize("stream", ["no", "../s", "s/../s", "s" * 5000])
def test_a_stream_that_is_not_there_is_refused(tmp_path: Path, stream: str) -> None:
    side = Side(tmp_path)
    side.offered(offer_of(DATA), stream)
    assert "there is no" in side.last.reason
    assert not side.wanted


def test_a_pinned_stream_is_not_updated(tmp_path: Path) -> None:
    side = Side(tmp_path, stream={"model_sha256": "0" * 64})
    side.offered(offer_of(DATA))
    assert "pins the model that runs" in side.last.reason
    assert not side.wanted


def test_a_full_disk_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MARGIN", 1 << 60)
    side = Side(tmp_path)
    side.offered(offer_of(DATA))
    assert "make room on that disk" in side.last.reason
    assert not side.wanted


def test_a_disk_that_fails_half_way_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    side.offered(offer)
    side.serve(DATA, offer, most=5)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts.os, "pwrite", full)
    side.serve(DATA, offer, most=1)
    assert (side.last.state, side.receiver.active, list(side.folder.iterdir())) == ("refused", "", [])
    assert "No space left on device" in side.last.reason


def test_a_wrong_chunk_is_not_kept_and_asked_for_again(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    side.offered(offer)
    side.receiver.chunk(0, bytes(2048), side.now)
    side.receiver.chunk(5000, b"x", side.now)
    assert side.wanted.pop(0) == 0  # and nobody else sends it
    assert side.serve(DATA, offer) == offer.chunks
    side.step()
    assert side.store.offers[0][1] == DATA


def test_digests_of_chunks_that_lead_to_another_file_end_in_a_refusal(tmp_path: Path) -> None:
    """Who can write to the topic has a true signature too, and may name the chunks of another file."""
    other = random.Random(8).randbytes(len(DATA))
    offer = msgspec.structs.replace(offer_of(DATA), hashes=offer_of(other).hashes)
    side = Side(tmp_path)
    side.offered(offer)
    side.serve(other, offer)
    side.step()
    assert side.store.offers == []
    assert "do not make the file" in side.last.reason
    honest = offer_of(DATA)
    side.offered(honest)
    side.serve(DATA, honest)
    side.step()
    assert side.last.state == "offered"


def test_a_restart_goes_on_with_what_is_there(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    side.offered(offer)
    side.serve(DATA, offer, most=25)  # and is killed
    again = Side(tmp_path)
    again.receiver.resume(again.now)
    again.step()
    assert again.serve(DATA, offer) == offer.chunks - 25
    again.step()
    assert [o[1] for o in again.store.offers] == [DATA]


def test_another_sender_of_the_same_file_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    side, first, second = Side(tmp_path), offer_of(DATA), offer_of(DATA)
    side.offered(first)
    side.serve(DATA, first, most=25)
    side.wanted.clear()
    side.offered(second)
    assert side.serve(DATA, second) == second.chunks - 25
    side.step()
    assert side.last.push == second.push


def test_what_was_kept_of_an_earlier_push_is_not_sent_again(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    kept = tmp_path / "gw" / "models" / f"{offer.sha256}.pt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(DATA)
    side.offered(offer)
    side.step()
    assert (side.last.state, side.wanted, side.store.offers[0][1]) == ("offered", [], DATA)
    kept.write_bytes(DATA[:-1] + b"x")  # damaged
    again = offer_of(DATA)
    side.offered(again)
    assert side.wanted == [again.chunks - 1]


def test_a_damaged_part_is_found_at_the_restart(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    side.offered(offer)
    side.serve(DATA, offer, most=25)
    side.receiver.close()
    part = side.folder / offer.sha256 / "part"
    with part.open("r+b") as file:
        file.seek(3 * 2048)
        file.write(b"damaged")
    again = Side(tmp_path)
    again.receiver.resume(again.now)
    again.step()
    assert again.wanted[0] == 3
    assert again.serve(DATA, offer) == offer.chunks - 24


def test_rubbish_in_the_folder_of_parts_is_removed(tmp_path: Path) -> None:
    side = Side(tmp_path)
    for name in ("0" * 64, "1" * 64):
        (side.folder / name).mkdir(parents=True)
    (side.folder / ("1" * 64) / "offer.json").write_text("{")
    side.receiver.resume(side.now)
    assert list(side.folder.iterdir()) == []


def test_the_same_push_is_answered_and_not_done_twice_also_after_a_restart(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    side.offered(offer)
    side.serve(DATA, offer)
    side.step()
    side.offered(offer)
    assert (side.last.state, side.wanted) == ("offered", [])
    again = Side(tmp_path)
    again.offered(offer)
    assert (again.last.state, again.last.push, again.wanted, again.store.offers) == ("offered", offer.push, [], [])
    anew = offer_of(DATA)  # whoever calls push again means it
    again.offered(anew)
    assert again.wanted


def test_what_the_store_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    side, offer = Side(tmp_path, Noted("has another task")), offer_of(DATA)
    side.offered(offer)
    side.serve(DATA, offer)
    side.step()
    assert side.last.state == "refused"
    assert "has another task" in side.last.reason
    side.offered(offer)
    assert (len(side.store.offers), side.last.state, side.wanted) == (1, "refused", [])


def test_endless_offers_are_looked_at_at_a_bounded_rate(tmp_path: Path) -> None:
    side = Side(tmp_path)
    for _ in range(100):
        side.offered(offer_of(b"x" * 300, FOREIGN))
    assert len(side.said) <= receivers.BURST + 1
    assert side.desk.counts["limited"] >= 90
    assert len(side.receiver._answers) <= receivers.ANSWERS


def test_an_offer_nobody_serves_gives_way_and_is_given_up_in_the_end(tmp_path: Path) -> None:
    side, lonely, served = Side(tmp_path), offer_of(DATA), offer_of(DATA[:9000])
    side.offered(lonely)
    side.offered(served, "t")
    side.wanted.clear()
    side.step(11)
    assert (side.last.state, side.last.reason) == ("waiting", "nobody sends: transom push")
    side.step(receivers.TURN)
    side.wanted = side.wanted[-5:]
    side.serve(DATA[:9000], served)
    side.step()
    assert [o[0] for o in side.store.offers] == ["t"]
    side.step(1)
    side.step(receivers.PATIENCE + 1)
    assert (side.last.stream, side.last.state) == ("s", "refused")
    assert list(side.folder.iterdir()) == []


def test_an_offer_that_is_withdrawn_leaves_nothing(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    side.offered(offer)
    side.receiver.offered("s", b"", side.now)
    side.wanted.clear()
    side.step(100)
    assert (side.wanted, list(side.folder.iterdir())) == ([], [])


def test_progress_is_told_once_a_second_at_most(tmp_path: Path) -> None:
    side, offer = Side(tmp_path), offer_of(DATA)
    side.offered(offer)
    side.serve(DATA, offer)  # a tenth of a second for each chunk
    side.step()
    assert sum(p.state == "downloading" for p in side.said) <= offer.chunks / 10 + 1


def test_few_unfinished_files_are_kept(tmp_path: Path) -> None:
    side = Side(tmp_path)
    for n in range(8):
        side.offered(offer_of(DATA[n:]))
        side.receiver._bucket._left = 8.0
    assert 1 <= len(list(side.folder.iterdir())) <= 4


def test_what_was_handled_is_kept_bounded_and_survives_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handled_, "MOST", 8)
    file = tmp_path / "handled.json"
    handled = Handled(file)
    for n in range(12):
        handled.add(f"word {n}")
    again = Handled(file)
    assert [n for n in range(13) if f"word {n}" in again] == list(range(4, 12))
    file.write_bytes(b"\xff{")
    assert "word 10" not in Handled(file)
