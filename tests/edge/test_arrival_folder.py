"""Models that are put into a watched folder: settled, handled once, refused with a note, and never anything but a file."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests_arrival import Noted, configured, progress_in, signed
from transom.dialects.updates import Progress
from transom.edge.arrival.desk import Desk
from transom.edge.arrival.folder import PATIENCE, Folder

DATA = b"a model" * 100


class Place:
    """The folder, and what was said of what lies in it."""

    def __init__(self, tmp_path: Path, store: Noted | None = None, **models: Any) -> None:
        self.store, self.root = store or Noted(), tmp_path / "put"
        (self.root / "s").mkdir(parents=True, exist_ok=True)
        models = {"updates": ["folder"], "updates_folder": str(self.root)} | models
        self.desk = Desk(configured(tmp_path, **models), self.store)
        self.folder = Folder(self.desk)

    def put(self, name: str = "pump-4.pt", data: bytes = DATA, signature: str | None = "") -> Path:
        path = self.root / "s" / name
        if signature is not None:
            Path(f"{path}.minisig").write_text(signature or signed(data))
        hidden = path.with_name(f".{name}")
        hidden.write_bytes(data)
        return hidden.rename(path)

    def look(self, times: int = 3) -> list[Progress]:
        for _ in range(times):
            self.folder.step()
        return [p for p in progress_in(self.desk.unsent()) if p.final]


def test_a_file_that_is_put_there_is_taken_once_also_over_a_restart(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.put()
    assert [(p.stream, p.origin, p.state) for p in place.look()] == [("s", "folder", "offered")]
    again = Place(tmp_path)
    assert place.look() + again.look() == []
    assert (place.store.offers, again.store.offers) == ([("s", DATA, signed(DATA), "folder")], [])


def test_a_file_that_still_grows_is_left_alone(tmp_path: Path) -> None:
    place = Place(tmp_path)
    path = place.put()
    for _ in range(5):
        assert place.look(1) == []
        with path.open("ab") as file:
            file.write(b"more")
    assert place.store.offers == []
    assert len(place.look()) == 1


def test_a_signature_that_comes_a_little_later_is_waited_for(tmp_path: Path) -> None:
    place = Place(tmp_path)
    path = place.put(signature=None)
    assert place.look(PATIENCE - 1) == []
    Path(f"{path}.minisig").write_text(signed(DATA))
    place.look()
    assert place.store.offers == [("s", DATA, signed(DATA), "folder")]


def test_without_a_signature_the_store_decides(tmp_path: Path) -> None:
    place = Place(tmp_path, Noted("is not signed"))
    place.put(signature=None)
    assert "is not signed" in place.look(PATIENCE + 2)[0].reason
    assert place.store.offers[0][2] == ""


def test_a_refusal_leaves_a_note_and_is_not_repeated_until_that_is_gone(tmp_path: Path) -> None:
    place = Place(tmp_path, Noted("has another task"))
    path = place.put()
    assert "has another task" in place.look()[0].reason
    note = Path(f"{path}.refused")
    assert "has another task" in note.read_text()
    again = Place(tmp_path)
    assert again.look(6) == []
    note.unlink()
    assert [p.state for p in Place(tmp_path).look()] == ["offered"]


def test_a_link_a_pipe_and_a_link_for_a_folder_are_not_followed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    other = tmp_path / "other.pt"
    other.write_bytes(DATA)
    (place.root / "s" / "link.pt").symlink_to(other)
    os.mkfifo(place.root / "s" / "pipe.pt")
    (place.root / "s" / "folder.pt").mkdir()
    (place.root / "t").symlink_to(tmp_path)
    reasons = sorted(p.reason for p in place.look(PATIENCE + 2))
    assert [r.partition(": ")[2].partition(";")[0] for r in reasons] == [
        "is no plain file",
        "is a link",
        "is no plain file",
    ]
    assert place.store.offers == []


@pytest.mark.parametrize("name", [".hidden.pt", "notes.txt", "model.pt.part"])
def test_other_names_are_passed_over(tmp_path: Path, name: str) -> None:
    place = Place(tmp_path)
    place.put(name)
    assert place.look(PATIENCE + 2) == []


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    place = Place(tmp_path, updates_largest="1KiB")
    place.put(data=bytes(2000))
    assert "updates_largest allows 1,024" in place.look()[0].reason
    assert place.store.offers == []


def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    place = Place(tmp_path, updates_folder=str(tmp_path / "later"))
    assert place.look() == []
    place.root = tmp_path / "later"
    (place.root / "s").mkdir(parents=True)
    place.put()
    assert len(place.look()) == 1
