"""Models that arrive: which are taken, and that no moment of a crash or power cut leaves a stream without a model."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rollout_models as made
from transom.core.stream import Stream
from transom.edge import gate
from transom.edge.assembly import stream_spec
from transom.edge.rollout import disk, fit
from transom.edge.rollout.ledger import RECORD
from transom.edge.rollout.record import Entry, decode
from transom.edge.rollout.store import Store
from transom.errors import ModelError
from transom.runtimes import bundle, choice, minisign
from transom.settings import Settings, load_settings


class Named:
    """What a store looks at of a model: verified once, for there are hundreds of crashes."""

    known: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert sha256 in (None, digest)
        if digest not in self.known:
            self.known[digest] = bundle.open_bundle(path)
        self.manifest, self.sha256 = self.known[digest].manifest, digest


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "open_file", Named)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = {version: made.detector(folder, version) for version in ("1", "2", "3", "10")}
    paths["longer"] = made.detector(folder, "4", length=5)
    paths["other"] = made.detector(folder, "5", name="other")
    gate._passed.update(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.values())
    return paths


def settings_of(folder: Path, model: Path, more: str = "", of_stream: str = "") -> Settings:
    path = folder / "agent.toml"
    path.write_text(
        f'[agent]\nstate = "{folder / "state"}"\n[models]\n{more or "allow_unsigned = true"}\n'
        f'[streams.pumps]\ntopic = "plant/{{device}}/{{channel}}"\nmodel = "{model}"\nchannels = ["x"]\n{of_stream}\n'
    )
    return load_settings(path, {})


def opened(folder: Path, settings: Settings) -> Store:
    """A store as it is at a process' start, once it runs what the store says."""
    store = Store(folder)
    store.begin()
    chosen = store.chosen("pumps", settings)
    path = chosen.path if chosen is not None else Path(settings.streams["pumps"].model)
    model: Any = Named(path)
    spec = stream_spec("pumps", settings.streams["pumps"], model.manifest)
    store.watch(settings, {"pumps": Stream(spec, model)}, stream_spec)
    return store


def version(store: Store, settings: Settings) -> str:
    chosen = store.chosen("pumps", settings)
    return "1" if chosen is None else chosen.file.version


def test_a_model_that_fits_goes_into_the_shadow_and_the_configured_one_runs_on(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    settings = settings_of(tmp_path, files["1"])
    store = opened(tmp_path / "m", settings)
    digest = store.offer("pumps", files["2"], None, "folder")
    assert store.take() == ["pumps"]
    assert store.entries["pumps"].phase == "shadow"
    assert version(store, settings) == "1"
    assert store.offer("pumps", files["2"], None, "mqtt") == digest  # once more is no news
    assert store.take() == []
    (event,) = store.untold()
    assert (event["event"], event["version"], event["previous"], event["signer"]) == (
        "offered",
        "2",
        "pump@1",
        "UNSIGNED",
    )
    store.switch("pumps", "", {})
    assert version(Store(store.folder), settings) == "2"
    store.accept("pumps", "", {})
    store.offer("pumps", files["10"], None, "folder")  # 10 is newer than 2
    store.switch("pumps", "", {})
    store.give_up("pumps", "it is bad", {})
    assert version(store, settings) == "2"
    with pytest.raises(ModelError, match="has been tried here and failed"):
        store.offer("pumps", files["10"], None, "folder")
    assert {p.name for p in store.folder.iterdir()} == {RECORD, f"{digest}.pt"}


@pytest.mark.parametrize(
    ("runs", "offered", "of_stream", "says"),
    [
        ("2", "1", "", "is not newer than pump@2"),
        ("1", "longer", "", "length 5, and this stream has 4"),
        ("1", "other", "", "is not pump"),
        ("1", "2", 'model_sha256 = "{}"', "pinned to one file by model_sha256"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_leaves_nothing(
    tmp_path: Path, files: dict[str, Path], runs: str, offered: str, of_stream: str, says: str
) -> None:
    digest = hashlib.sha256(files[runs].read_bytes()).hexdigest()
    settings = settings_of(tmp_path, files[runs], of_stream=of_stream.format(digest))
    store = opened(tmp_path / "m", settings)
    with pytest.raises(ModelError, match=says):
        store.offer("pumps", files[offered], None, "folder")
    assert [event["event"] for event in store.untold()] == ["refused"]
    assert not store.entries
    assert not list(store.folder.glob("*.pt"))


def test_only_what_a_trusted_key_has_signed_is_taken(tmp_path: Path, files: dict[str, Path]) -> None:
    trusted, foreign = minisign.generate(), minisign.generate()
    settings = settings_of(tmp_path, files["1"], f'trusted_keys = ["{trusted.public.text}"]')
    store = opened(tmp_path / "m", settings)
    data = files["2"].read_bytes()
    for key, says in ((None, "is not signed by a key"), (foreign, "which is not among models.trusted_keys")):
        signature = None if key is None else tmp_path / "foreign.minisig"
        if signature is not None:
            signature.write_text(minisign.sign(data, key, "c"))
        with pytest.raises(ModelError, match=says):
            store.offer("pumps", files["2"], signature, "mqtt")
    good = tmp_path / "good.minisig"
    good.write_text(minisign.sign(data, trusted, "c"))
    store.offer("pumps", files["2"], good, "mqtt")
    entry = store.entries["pumps"]
    assert entry.candidate is not None
    assert entry.candidate.signer.startswith("signed by ")
    assert (store.folder / f"{entry.candidate.file}.minisig").read_text() == good.read_text()


def test_another_configured_model_ends_what_its_updates_were(tmp_path: Path, files: dict[str, Path]) -> None:
    settings = settings_of(tmp_path, files["1"])
    store = opened(tmp_path / "m", settings)
    store.offer("pumps", files["2"], None, "folder")
    store.switch("pumps", "", {})
    assert version(store, settings_of(tmp_path, files["3"])) == "1"  # none of the store's
    assert store.untold()[-1]["reason"] == "the configuration names another model now"


@pytest.mark.parametrize("phase", ["shadow", "trial"])
def test_a_model_with_which_the_process_dies_twice_is_given_up(
    tmp_path: Path, files: dict[str, Path], phase: str
) -> None:
    settings = settings_of(tmp_path, files["1"])
    store = opened(tmp_path / "m", settings)
    store.offer("pumps", files["2"], None, "folder")
    store.opened("pumps")
    if phase == "trial":
        store.switch("pumps", "", {})
    store.end()
    again = opened(store.folder, settings)  # it was stopped: no death
    assert again.entries["pumps"].deaths == 0
    again = opened(store.folder, settings)
    assert again.entries["pumps"].deaths == 1
    assert again.entries["pumps"].phase == phase
    again = opened(store.folder, settings)
    assert again.entries["pumps"].phase == "none"
    assert version(again, settings) == "1"
    assert "died 2 times" in again.untold()[-1]["reason"]


def test_a_file_that_does_not_load_makes_room_for_the_one_before(tmp_path: Path, files: dict[str, Path]) -> None:
    settings = settings_of(tmp_path, files["1"])
    store = opened(tmp_path / "m", settings)
    store.offer("pumps", files["2"], None, "folder")
    store.switch("pumps", "", {})
    store.unfit("pumps", ModelError("file", "is damaged"))
    assert version(store, settings) == "1"
    assert "is damaged" in store.untold()[-1]["reason"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"streams":{"a":{"phase":"trial"}}}', b'{"format":9}'])
def test_a_record_that_cannot_be_read_runs_the_configured_models_with_one_line(
    tmp_path: Path, files: dict[str, Path], content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / RECORD).write_bytes(content)
    (folder / f"{'a' * 64}.pt").write_bytes(b"who knows")
    store = opened(folder, settings_of(tmp_path, files["1"]))
    assert not store.entries
    assert (folder / f"{'a' * 64}.pt").exists()  # nobody knows whether something names it
    assert len([r for r in caplog.records if "the configured models run" in r.getMessage()]) == 1


# --- crashes ----------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    pass


class Power:
    """`os` as disk.py uses it, that ends at its n-th step, and knows what a power cut would leave of a folder."""

    O_RDONLY, O_WRONLY, O_CREAT, O_TRUNC, O_CLOEXEC, O_DIRECTORY = (
        os.O_RDONLY, os.O_WRONLY, os.O_CREAT, os.O_TRUNC, os.O_CLOEXEC, os.O_DIRECTORY
    )  # fmt: skip

    def __init__(self, folder: Path, last: int) -> None:
        self.folder, self.left, self.found = folder, last, list[Path]()
        self.synced = {p.stat().st_ino: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else {}
        self.names = {p.name: p.stat().st_ino for p in folder.iterdir()} if folder.is_dir() else {}
        self._paths: dict[int, Path] = {}

    def _step(self) -> None:
        if self.left == 0:  # what is done on the way out is no more of this process
            self.found = self.found or list(self._images(self.folder.parent))
            raise Crash
        self.left -= 1

    def open(self, path: Path, flags: int, mode: int = 0) -> int:
        self._step()
        handle = os.open(path, flags, mode)
        self._paths[handle] = Path(path)
        return handle

    def write(self, handle: int, data: memoryview) -> int:
        self._step()
        return os.write(handle, data[:8192])  # in pieces, so that a crash falls between them

    def fsync(self, handle: int) -> None:
        self._step()
        path = self._paths[handle]
        if path == self.folder:
            self.names = {p.name: p.stat().st_ino for p in path.iterdir()}
        elif path.is_file():
            self.synced[path.stat().st_ino] = path.read_bytes()

    def replace(self, source: Path, target: Path) -> None:
        self._step()
        source.replace(target)

    @staticmethod
    def close(handle: int) -> None:
        os.close(handle)

    def _images(self, root: Path) -> Iterator[Path]:
        """The folder after a kill, after a power cut that came late for the names, and after one that came early."""
        killed = root / "killed"
        shutil.copytree(self.folder, killed) if self.folder.is_dir() else killed.mkdir()
        yield killed
        now = {p.name: p.stat().st_ino for p in self.folder.iterdir()} if self.folder.is_dir() else {}
        for name, names in (("late", now), ("early", self.names)):
            image = root / name
            image.mkdir()
            for file, inode in names.items():
                (image / file).write_bytes(self.synced.get(inode, b""))
            yield image


def first(store: Store, files: dict[str, Path]) -> None:
    store.offer("pumps", files["2"], None, "folder")
    store.opened("pumps")
    store.switch("pumps", "", {})
    store.accept("pumps", "", {})


def second(store: Store, files: dict[str, Path]) -> None:
    store.offer("pumps", files["3"], None, "folder")
    store.switch("pumps", "", {})
    store.give_up("pumps", "it is bad", {})


def test_a_crash_or_power_cut_at_any_step_leaves_a_model_that_runs(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, files["1"])
    whole = {path.read_bytes() for path in files.values()}
    ready = tmp_path / "ready"
    first(opened(ready, settings), files)
    for what, begin in ((first, None), (second, ready)):
        seen, step, ended = set(), 0, False
        while not ended:
            root = tmp_path / f"{what.__name__}-{step}"
            folder = root / "m"
            root.mkdir()
            folder.mkdir() if begin is None else shutil.copytree(begin, folder)
            store = opened(folder, settings)
            power = Power(folder, step)
            with monkeypatch.context() as patch:
                patch.setattr(disk, "os", power)
                ended = True
                with contextlib.suppress(Crash):
                    what(store, files)
                    step += 1
                    continue
                ended = False
            for image in power.found or [folder]:
                again = opened(image, settings)  # loads what the record says: it is there, whole
                chosen = again.chosen("pumps", settings)
                seen.add(version(again, settings))
                for file in again.entries.get("pumps", Entry()).files:
                    assert again.path(file).read_bytes() in whole
                assert chosen is None or hashlib.sha256(chosen.path.read_bytes()).hexdigest() == chosen.file.sha256
                kept = decode((image / RECORD).read_bytes()) if (image / RECORD).exists() else None
                assert kept is None or kept.streams == again.entries
            shutil.rmtree(root)
            step += 1
        assert step > 20
        assert seen == ({"1", "2"} if begin is None else {"2", "3"})


WORDS = st.from_regex(r"[0-9a-z]{1,3}([.-][0-9a-z]{1,3}){0,3}", fullmatch=True)


@settings(max_examples=50)
@given(WORDS, WORDS, WORDS)
def test_versions_have_an_order(a: str, b: str, c: str) -> None:
    assert not fit.newer(a, a)
    assert not (fit.newer(a, b) and fit.newer(b, a))
    assert not (fit.newer(a, b) and fit.newer(b, c)) or fit.newer(a, c)


@pytest.mark.parametrize(
    ("new", "old"), [("2", "1"), ("10", "9"), ("1.1", "1"), ("1.10", "1.9"), ("2026-02", "2026-01")]
)
def test_versions_are_compared_part_by_part(new: str, old: str) -> None:
    assert fit.newer(new, old)
    assert not fit.newer(old, new)
