"""Model files made to harm, or merely broken, at the gate: each is refused with a clear sentence and has no effect.

All but the unsigned ones are signed by a trusted key, so that what refuses them is not the lack of a signature.
"""

import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from runtimes.samples import compiled, forge, manifest, members_of
from transom.edge.gate import Gate
from transom.errors import ModelError
from transom.runtimes import archive, bundle, minisign, torchscript, trust
from transom.runtimes.confine import Limits
from transom.runtimes.minisign import SecretKey
from transom.runtimes.trial import Trials
from transom.runtimes.trust import Policy

OURS, THEIRS = SecretKey(b"trusted!", b"1" * 32), SecretKey(b"stranger", b"2" * 32)
POLICY = Policy((OURS.public,))


class Place(NamedTuple):
    """model: where the file belongs, a sound one at first; mark: what must never come to be."""

    model: Path
    mark: Path

    def members(self) -> dict[str, bytes]:
        return members_of(self.model)

    def sign(self, key: SecretKey = OURS, data: bytes | None = None) -> str:
        text = minisign.sign(self.model.read_bytes() if data is None else data, key, "as made")
        trust.signature_path(self.model).write_text(text)
        return text


@pytest.fixture
def place(lone: Path, tmp_path: Path) -> Place:
    return Place(lone, tmp_path / "mark")


@pytest.fixture(scope="module")
def trials() -> Iterator[Trials]:
    """One process for all; a small box would take as many seconds as these allow."""
    with Trials(Limits(seconds=2, memory=512 << 20)) as running:
        yield running


def refused(place: Place, gate: Gate, sentence: str) -> None:
    before = {p: p.stat().st_mtime_ns for p in place.model.parent.iterdir()}
    with pytest.raises(ModelError, match=sentence) as refusal:
        gate.admit(place.model, None)
    assert place.model.name in refusal.value.place
    assert refusal.value.remedy
    assert "\n" not in str(refusal.value)
    assert not place.mark.exists()
    assert {p: p.stat().st_mtime_ns for p in place.model.parent.iterdir()} == before


# --- refused before torch sees a byte -------------------------------------------------------------------------------

Case = Callable[[Place], object]
STATIC: dict[str, tuple[Case, str]] = {}


def case(sentence: str) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        STATIC[function.__name__] = function, sentence
        return function

    return add


def with_line(place: Place, line: str) -> None:
    """The sound file with one more line at the start of its forward, and a digest that is right."""
    members = place.members()
    name = next(n for n in members if b"class LstmAnomaly" in members[n])
    source = members[name].decode()
    start = re.search(r"def forward\(self[^)]*\)[^:\n]*:\n", source)
    assert start is not None
    members[name] = (source[: start.end()] + f"    {line}\n" + source[start.end() :]).encode()
    forge(members, place.model)


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@case("the file is empty")
def nothing(place: Place) -> None:
    place.model.write_bytes(b"")


@case("a Python pickle .* which could run anything")
def pickle_that_runs_a_command(place: Place) -> None:
    place.model.write_bytes(pickle.dumps(Runs(f"touch {place.mark}")))


@case("a checkpoint of weights written by torch.save, not a compiled model")
def checkpoint_that_runs_a_command(place: Place) -> None:
    torch.save({"weights": Runs(f"touch {place.mark}")}, place.model)


@case("a text file")
def python_source(place: Place) -> None:
    place.model.write_text(f"open({str(place.mark)!r}, 'w')\n")


@case("not an archive")
def elf_program(place: Place) -> None:
    place.model.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(64))


@case("not a regular file")
def named_pipe(place: Place) -> None:
    place.model.unlink()
    os.mkfifo(place.model)


@case("model files have at most")
def file_of_a_terabyte(place: Place) -> None:
    os.truncate(place.model, 1 << 40)


@case("cut off after")
def truncated(place: Place) -> None:
    place.model.write_bytes(place.model.read_bytes()[:-200])


@case("the archive is damaged|the content has the digest")
def one_bit_of_the_weights(place: Place) -> None:
    data = bytearray(place.model.read_bytes())
    data[data.index(b"data/0") + 200] ^= 1
    place.model.write_bytes(data)


@case("the archive is damaged .*multiple disks")
def archive_over_several_disks(place: Place) -> None:
    data = place.model.read_bytes()
    end = data.rindex(b"PK\5\6")
    locator = b"PK\6\7" + bytes(12) + (2).to_bytes(4, "little")  # of a ZIP64 directory on the second of two disks
    place.model.write_bytes(data[:end] + locator + data[end:])


@case("would unpack from")
def zip_bomb(place: Place) -> None:
    with zipfile.ZipFile(place.model, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("model/data/99", bytes(64 << 20))


@case("twice")
def member_twice(place: Place) -> None:
    with zipfile.ZipFile(place.model, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr("model/data.pkl", b"other")


@case("the unsafe name")
def path_out_of_the_folder(place: Place) -> None:
    with zipfile.ZipFile(place.model, "a") as opened:
        opened.writestr(f"model/../../../..{place.mark}", b"x")


@case("more than one top folder|the unsafe name")
def absolute_path(place: Place) -> None:
    with zipfile.ZipFile(place.model, "a") as opened:
        opened.writestr(str(place.mark), b"x")


@case("packed in a way torch does not know")
def packed_by_lzma(place: Place) -> None:
    with zipfile.ZipFile(place.model, "a", zipfile.ZIP_LZMA) as opened:
        opened.writestr("model/data/99", b"x")


@case("which no model file has")
def shared_library(place: Place) -> None:
    forge({**place.members(), "code/__torch__/evil.so": b"\x7fELF"}, place.model)


@case(r"torch\.from_file, which is not on the list")
def reads_a_file_in_forward(place: Place) -> None:
    with_line(place, 'y = torch.from_file("/etc/passwd", False, 4)')


@case(r"torch\.save")
def writes_a_file_in_forward(place: Place) -> None:
    with_line(place, f'torch.save(window, "{place.mark}")')


@case(r"ops\.aten\.save")
def writes_a_file_by_an_operator(place: Place) -> None:
    with_line(place, f'ops.aten.save(window, "{place.mark}")')


@case("__setstate__, which would run while it loads")
def runs_while_it_loads(place: Place) -> None:
    members = place.members()
    name = next(n for n in members if b"class LstmAnomaly" in members[n])
    method = (
        f'  def __setstate__(self: __torch__.X, state: Tensor) -> NoneType:\n    torch.save(state, "{place.mark}")\n'
    )
    members[name] = members[name].rstrip(b"\n") + b"\n" + method.encode()
    forge(members, place.model)


@case(r"print\(\)")
def prints_in_forward(place: Place) -> None:
    with_line(place, 'print("mine")')


@case(r"torch\.empty")
def publishes_memory_that_was_never_written(place: Place) -> None:
    with_line(place, "y = torch.empty([4096])")


@case(r"fork\(\)")
def starts_threads(place: Place) -> None:
    with_line(place, "y = fork(window)")


@case("may not carry state from call to call")
def keeps_what_it_saw(place: Place) -> None:
    with_line(place, "self.head = window")


@case("the pickle names")
def pickle_within_that_names_a_command(place: Place) -> None:
    command = pickle.dumps(Runs(f"touch {place.mark}"), protocol=2)
    forge({**place.members(), "data.pkl": command}, place.model)


@case("the pickle uses STACK_GLOBAL|the pickle names")
def pickle_within_of_a_later_protocol(place: Place) -> None:
    command = pickle.dumps(Runs(f"touch {place.mark}"), protocol=4)
    forge({**place.members(), "constants.pkl": command}, place.model)


@case("nested too deeply|cannot be read")
def code_nested_without_end(place: Place) -> None:
    with_line(place, "y = " + "-" * 20000 + "1")


@case(r"__torch__\.torch\.classes")
def class_of_a_library(place: Place) -> None:
    with_line(place, "y = __torch__.torch.classes.rnn.CellParamsBase()")


@case("manifest: is not JSON")
def manifest_that_is_no_json(place: Place) -> None:
    place.model.write_bytes(archive.pack({**place.members(), archive.MANIFEST: b"{" * 100_000}))


@case("length: 1000000000 steps are more than")
def manifest_of_a_window_without_end(place: Place) -> None:
    forge(place.members(), place.model, length=10**9)


@case("name: .* must be a word")
def manifest_with_a_topic_for_a_name(place: Place) -> None:
    forge(place.members(), place.model, name="a/+/#")


@case("the content has the digest")
def manifest_of_another_model(place: Place) -> None:
    members = place.members()
    members["data.pkl"] = members["data.pkl"].replace(b"training", b"trainin_")
    place.model.write_bytes(archive.pack(members))


@pytest.mark.parametrize("name", STATIC)
def test_a_signed_file_is_refused_before_torch_sees_it(name: str, place: Place) -> None:
    make, sentence = STATIC[name]
    make(place)
    if place.model.is_file() and place.model.stat().st_size < 1 << 30:
        place.sign()
    with Gate(POLICY) as gate:
        refused(place, gate, sentence)
        assert gate.untouched, "a process was started for it"


def test_there_are_thirty_of_them_and_the_sound_file_itself_passes(place: Place, trials: Trials) -> None:
    assert len(STATIC) + len(SIGNATURES) + len(TRIED) >= 30
    place.sign()
    voucher = Gate(POLICY, trials).admit(place.model, None)
    assert (voucher.kind, voucher.key) == ("signed", OURS.public.name)
    assert torchscript.load(place.model, sha256=voucher.sha256).sha256 == voucher.sha256


# --- signatures -------------------------------------------------------------------------------------------------------


def _unsigned(place: Place) -> None:
    pass


def _swapped(place: Place) -> None:
    place.sign(data=b"another file")


def _stranger(place: Place) -> None:
    place.sign(THEIRS)


def _forged(place: Place) -> None:
    place.sign(SecretKey(OURS.id, THEIRS.seed))


def _comment(place: Place) -> None:
    text = place.sign().replace("as made", "as made, by the boss")
    trust.signature_path(place.model).write_text(text)


def _cut(place: Place) -> None:
    text = place.sign()
    trust.signature_path(place.model).write_text(text[:-40])


def _bytes(place: Place) -> None:
    trust.signature_path(place.model).write_bytes(os.urandom(100_000))


def _changed(place: Place) -> None:
    place.sign()
    forge(place.members(), place.model, calibration={"scores": [0.5, 9e9], "p_values": [0.9, 0.8], "tail_scale": 1.0})


SIGNATURES: dict[str, tuple[Case, str]] = {
    "none": (_unsigned, r"is not signed by a key of models\.trusted_keys"),
    "of another file": (_swapped, "is not of this file: one of them was changed"),
    "of a key that is not trusted": (_stranger, f"is signed with the key {THEIRS.public.name}, which is not among"),
    "of another key under our key's name": (_forged, "is not of this file"),
    "with another comment": (_comment, "the trusted comment of the signature was changed"),
    "cut off": (_cut, "is not a signature as transom and minisign write it"),
    "of random bytes": (_bytes, "is no text|is not a signature"),
    "of the file before its calibration was changed": (_changed, "is not of this file"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_sound_file_is_refused_for_its_signature(name: str, place: Place) -> None:
    make, sentence = SIGNATURES[name]
    make(place)
    with Gate(POLICY) as gate:
        refused(place, gate, sentence)
        assert gate.untouched


def test_what_was_judged_is_what_is_loaded(place: Place, trials: Trials) -> None:
    """A file that is replaced between the two is refused, though the other one is sound and signed as well."""
    place.sign()
    voucher = Gate(POLICY, trials).admit(place.model, None)
    forge(place.members(), place.model, version="2")
    place.sign()
    with pytest.raises(ModelError, match="the file's SHA-256 is"):
        torchscript.load(place.model, sha256=voucher.sha256)


# --- refused by the process without rights ----------------------------------------------------------------------------


class Endless(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        total = window.sum((1, 2))
        while bool((total == total).all()) or bool((total != total).any()):
            total = total * 0.5
        return {"score": total}


class Huge(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"score": torch.zeros([1 << 20, 1 << 16]).sum() + window.sum((1, 2))}


class Hoards(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        kept = torch.nan_to_num(window.sum((1, 2)))
        for _ in range(40):
            kept = torch.cat([kept, kept])
        return {"score": kept[: len(window)]}


class WrongShape(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        score = window.sum((1, 2))
        return {"score": score.unsqueeze(1), "contribution": window[:, -1], "expected": window[:, -1]}


class WrongType(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        last = window[:, -1].to(torch.float64)
        return {"score": last.sum(1), "contribution": last, "expected": last}


class Silent(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"score": window.sum((1, 2))}


class Raises(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"score": torch.matmul(window, torch.ones(7, 7)).sum((1, 2))}


class OneRowOnly(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        last = window[:1, -1]
        return {"score": last.sum(1), "contribution": last, "expected": last}


TRIED: dict[type[nn.Module], str] = {
    Endless: "did not load and answer within 2 s",
    Huge: "needs more than 512 MiB of memory",
    Hoards: "needs more than 512 MiB of memory",
    WrongShape: r"gives 'score' as float32 \[\d+, 1\]",
    WrongType: r"gives 'score' as float64",
    Silent: "gives no 'contribution'",
    Raises: "fails on a batch",
    OneRowOnly: r"gives 'score' as float32 \[1\]",
}


@pytest.mark.parametrize("module", TRIED, ids=lambda module: module.__name__)
def test_a_signed_model_that_misbehaves_does_so_in_a_process_of_its_own(
    module: type[nn.Module], place: Place, trials: Trials
) -> None:
    bundle.write_bundle(compiled(module()), manifest(), place.model)
    place.sign()
    refused(place, Gate(POLICY, trials), TRIED[module])


ATTACK = """
import ctypes, os, signal, socket, subprocess, sys, torch
from transom.runtimes.confine import Limits, confine
mark, plain = sys.argv[1:]
os.chdir(os.path.dirname(mark))
held = confine(Limits(seconds=20, memory=512 << 20))
def tries(name, do):
    try:
        do()
    except (OSError, MemoryError, RuntimeError, ValueError):
        print(name, "refused", flush=True)
    else:
        print(name, "DONE", flush=True)
print(*held, flush=True)
tries("write", lambda: open(mark, "w"))
tries("append", lambda: open(plain, "ab"))
tries("remove", lambda: os.unlink(plain))
tries("rename", lambda: os.rename(plain, mark))
tries("mkdir", lambda: os.mkdir(mark))
tries("link", lambda: os.symlink("/etc/passwd", mark))
tries("mode", lambda: os.chmod(plain, 0o777))
tries("shrink", lambda: os.truncate(plain, 0))
tries("tcp", lambda: socket.create_connection(("127.0.0.1", 9), 1))
tries("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
tries("unix", lambda: socket.socket(socket.AF_UNIX))
tries("program", lambda: os.execv("/bin/true", ["true"]))
tries("process", os.fork)
tries("shell", lambda: subprocess.run(["/bin/true"]))
tries("signal", lambda: os.kill(os.getppid(), 0))
tries("limits", lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_CPU, (1, 1)))
tries("memory", lambda: bytearray(1 << 30))
torch.jit.load(plain)
print("read", len(open(plain, "rb").read()) > 0, flush=True)
"""


class RunsWhileLoading(nn.Module):
    """Writes a file when torch.jit.load reads it: what the scan refuses, were the scan to miss it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(1))

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"score": window.sum((1, 2))}

    @torch.jit.export
    def __getstate__(self):  # type: ignore[no-untyped-def]
        return self.state, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        torch.ops.aten.save(state[0], "mark")
        self.state = state[0]
        self.training = state[1]


def test_what_the_scan_might_miss_finds_no_file_no_network_and_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, mark = tmp_path / "plain.pt", tmp_path / "mark"
    with bundle.quiet():
        buffer = io.BytesIO()
        torch.jit.save(compiled(RunsWhileLoading()), buffer)
    plain.write_bytes(buffer.getvalue())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ATTACK, str(mark), str(plain)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    held, *lines = done.stdout.splitlines()
    if not Path("/proc/sys/kernel/seccomp/actions_avail").exists():
        pytest.skip(f"this kernel has no seccomp and holds a process by {held} only")
    assert "seccomp" in held
    assert lines[-1] == "read True", done.stderr
    assert [line for line in lines[:-1] if not line.endswith("refused")] == []
    assert len(lines) == 18
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain.pt"]

    monkeypatch.chdir(tmp_path)
    with bundle.quiet():
        torch.jit.load(str(plain))
    assert mark.exists(), "this torch does not run __setstate__: the test has lost its point"


def test_a_process_that_dies_refuses_its_file_and_the_next_trial_has_another(place: Place) -> None:
    digest = bundle.open_bundle(place.model).sha256
    with Trials() as running:
        assert running.run(place.model, digest).seconds < 60
        assert running._process is not None
        running._process.kill()
        running._process.wait()
        with pytest.raises(ModelError, match="cannot be tried: the process for it ended with status -9"):
            running.run(place.model, digest)
        assert running.run(place.model, digest).held[0] == "rlimits"
