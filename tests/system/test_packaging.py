"""The installer and the Debian package, on this machine and without a network: the packages of the tests' own
environment stand in the new one. scripts/prove-arm64 does the same on emulated Pis, with all that is fetched.

The tests of the first part are steps of one story, in their order.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from conftest import missing
from transom.edge.installing import lasting

ROOT = Path(__file__).parents[2]
PACKAGES = sysconfig.get_path("purelib")
PYTHON = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
EPOCH = "1580601600"


def build_wheel(sources: Path, out: Path, epoch: str = EPOCH) -> Path:
    """As scripts/build-wheel does, from any copy of the sources."""
    env = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=sources, env=env, check=True, capture_output=True)
    return next(out.glob("transom-*.whl"))


def copy_sources(target: Path, version: str = "0.1.0", spoil: str = "") -> Path:
    """What the wheel is made of, with another version. spoil: a line at the head of the command's module."""
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, target / name)
    for name in ("agent", "models"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (target / "pyproject.toml", target / "agent/transom/__init__.py"):
        file.write_text(file.read_text().replace('version = "0.1.0"', f'version = "{version}"')
                        .replace('__version__ = "0.1.0"', f'__version__ = "{version}"'))  # fmt: skip
    if spoil:
        module = target / "agent/transom/cli.py"
        module.write_text(f"{spoil}\n{module.read_text()}")
    return target


class Place:
    """A prefix in a folder of the tests, and the installer for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.prefix, self.command = folder, folder / "opt", folder / "bin" / "transom"

    def words(self, *words: str) -> list[str]:
        return [
            str(ROOT / "scripts/install-pi"),
            "--prefix",
            str(self.prefix),
            "--bin",
            str(self.folder / "bin"),
            *words,
        ]

    def ask(self, *words: str, python: str = PYTHON) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHON": python}
        return subprocess.run(self.words(*words), env=env, capture_output=True, text=True, timeout=200, check=False)

    def install(self, wheel: Path) -> str:
        done = self.ask("--wheel", str(wheel), "--packages", PACKAGES)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def version(self) -> str:
        return subprocess.run(
            [str(self.command), "--version"], check=True, capture_output=True, text=True
        ).stdout.strip()

    def link(self, name: str) -> str:
        return (self.prefix / name).readlink().name.partition("-")[0]

    def versions(self) -> list[str]:
        return sorted(path.name.partition("-")[0] for path in (self.prefix / "venvs").iterdir())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By version: 0.1.0, 0.1.1, and 0.1.2 whose command ends with an error."""
    folder = tmp_path_factory.mktemp("wheels")
    spoils = {"0.1.0": "", "0.1.1": "", "0.1.2": "raise RuntimeError('spoilt')"}
    return {v: build_wheel(copy_sources(folder / v, v, spoil), folder / f"out-{v}") for v, spoil in spoils.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    if shutil.which("flock") is None:
        missing("no flock (apt install util-linux)")
    return Place(tmp_path_factory.mktemp("place"))


def test_the_first_installation_gives_a_command_that_runs_from_the_wheel(place: Place, wheels: dict[str, Path]) -> None:
    told = place.install(wheels["0.1.0"])
    assert f"as {place.command}" in told
    assert place.version() == "transom 0.1.0"
    where = subprocess.run([str(place.prefix / "current/bin/python"), "-c", "import transom; print(transom.__file__)"],
                           check=True, capture_output=True, text=True, cwd="/").stdout  # fmt: skip
    assert where.startswith(str(place.prefix)), "it runs what the wheel brought, not the checkout"
    assert (place.prefix / "mode").read_text() == "full\n"


def test_the_second_run_changes_nothing(place: Place, wheels: dict[str, Path]) -> None:
    before = {p: p.lstat().st_mtime_ns for p in (place.prefix / "venvs").iterdir()}
    assert "is installed already" in place.install(wheels["0.1.0"])
    assert {p: p.lstat().st_mtime_ns for p in (place.prefix / "venvs").iterdir()} == before


def test_an_upgrade_keeps_the_version_before(place: Place, wheels: dict[str, Path]) -> None:
    place.install(wheels["0.1.1"])
    assert (place.link("current"), place.link("previous")) == ("0.1.1", "0.1.0")
    assert place.version() == "transom 0.1.1"


def test_a_service_names_the_link_and_so_outlives_upgrades(place: Place) -> None:
    version = (place.prefix / "current").resolve()
    assert lasting(version / "bin/transom") == place.prefix / "current/bin/transom"
    before = (place.prefix / "previous").resolve() / "bin/transom"
    assert lasting(before) == before
    assert lasting(Path("/opt/other/bin/transom")) == Path("/opt/other/bin/transom")


def test_a_version_that_does_not_run_here_changes_nothing(place: Place, wheels: dict[str, Path]) -> None:
    done = place.ask("--wheel", str(wheels["0.1.2"]), "--packages", PACKAGES)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "install-pi: the new version does not run here, and nothing was changed: RuntimeError: spoilt"
    )
    assert (place.version(), place.versions()) == ("transom 0.1.1", ["0.1.0", "0.1.1"])


def test_a_package_whose_digest_is_not_in_the_lock_is_refused(place: Place, wheels: dict[str, Path]) -> None:
    lock = ROOT / "locks" / f"linux-x86_64-py{sys.version_info[0]}{sys.version_info[1]}-light.txt"
    if not lock.exists():
        missing(f"no {lock.name}")
    folder = place.folder / "tampered"
    folder.mkdir()
    for line in lock.read_text().splitlines():  # every package under its name and version, none with its content
        if "==" in line:
            name, _, version = line.rstrip(" \\").replace("-", "_").partition("==")
            with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
                archive.writestr(f"{name}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n")
    pip = place.folder / "pip"
    pip.mkdir()
    (pip / "pip").symlink_to(Path(PACKAGES) / "pip")
    words = ("--wheel", str(wheels["0.1.2"]), "--find-links", str(folder), "--packages", str(pip))
    done = place.ask("--light", *words)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "nothing was changed" in done.stderr.splitlines()[-1]
    assert (place.version(), place.versions()) == ("transom 0.1.1", ["0.1.0", "0.1.1"])


def test_killed_in_the_middle_the_old_version_runs_and_the_next_run_clears_up(
    place: Place, wheels: dict[str, Path]
) -> None:
    command = place.words("--wheel", str(wheels["0.1.2"]), "--packages", PACKAGES)
    process = subprocess.Popen(command, env=os.environ | {"PYTHON": PYTHON}, start_new_session=True)
    end = time.monotonic() + 60
    while "0.1.2" not in place.versions() and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    assert place.versions() == ["0.1.0", "0.1.1", "0.1.2"]
    assert place.version() == "transom 0.1.1"
    assert "is installed already" in place.install(wheels["0.1.1"])
    assert place.versions() == ["0.1.0", "0.1.1"]


def test_a_rollback_goes_back_and_forth(place: Place) -> None:
    for version, other in (("0.1.0", "0.1.1"), ("0.1.1", "0.1.0")):
        assert place.ask("--rollback").returncode == 0
        assert place.version() == f"transom {version}"
        assert (place.link("current"), place.link("previous")) == (version, other)


# --- what is refused, and where nothing is written ---


def stand_in(folder: Path, told: str) -> str:
    """A Python that says of itself what another machine's would."""
    file = folder / "python3"
    file.write_text(f"#!/bin/sh\necho {told}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(("told", "says"), [
    ("3 11 32", "a 32-bit system, for which there is no torch; install the 64-bit image"),
    ("3 9 64", "is 3.9: needs Python 3.11, 3.12 or 3.13; use Raspberry Pi OS Bookworm or newer"),
    ("3 14 64", "is 3.14: needs Python 3.11, 3.12 or 3.13; use Raspberry Pi OS Bookworm or newer"),
])  # fmt: skip
def test_a_machine_that_cannot_run_it_is_refused_in_one_line(told: str, says: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    done = place.ask(python=stand_in(tmp_path, told))
    assert done.returncode == 1
    assert done.stderr.startswith("install-pi: ")
    assert done.stderr.endswith(f"{says}\n")
    assert done.stderr.count("\n") == 1
    assert not place.prefix.exists()


@pytest.mark.parametrize(("words", "says"), [
    (("--wheel", "/nowhere/transom-9-py3-none-any.whl"), "there is no such file; scripts/build-wheel makes one"),
    (("--rollback",), "there is no version before this one; install one with --wheel FILE"),
    (("--prefix", "opt"), "--prefix opt: not absolute; give the whole path, such as /opt/transom"),
    (("--bright",), "--bright: no such option; see --help"),
    (("--wheel",), "--wheel: needs a value; see --help"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = Place(tmp_path).ask(*words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.endswith(f"{says}\n")


def test_a_disk_without_room_is_refused_before_anything_is_installed(tmp_path: Path, wheels: dict[str, Path]) -> None:
    if os.geteuid() != 0:
        missing("a small disk is mounted by root")
    (tmp_path / "opt").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "small", str(tmp_path / "opt")], check=True)
    try:
        done = Place(tmp_path).ask("--wheel", str(wheels["0.1.0"]))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "8 MB are free and 1600 are needed; make room, or use --light" in done.stderr
        assert list((tmp_path / "opt/venvs").iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path / "opt")], check=True)


# --- the same files, the same bytes ---


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_wheel_is_the_same_from_another_folder_with_other_times_and_rights(
    tmp_path: Path, wheels: dict[str, Path]
) -> None:
    other = copy_sources(tmp_path / "elsewhere")
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o700 if path.is_dir() else 0o600)
    again = build_wheel(other, tmp_path / "out")
    assert digest(again) == digest(wheels["0.1.0"])
    assert digest(build_wheel(other, tmp_path / "later", "1700000000")) != digest(again), "the times are in it"
