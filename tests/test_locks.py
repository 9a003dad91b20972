"""locks/ says what pyproject.toml and constraints.txt say, for each platform, and nothing without a digest.

Mended by scripts/lock on the platform, or in an emulated one (scripts/prove-arm64 with LOCK=yes).
"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = sorted((ROOT / "locks").glob("linux-*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+) \\\n    --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)


def pins(lock: Path) -> dict[str, str]:
    """Name -> version, of a file in which every line is one or a comment."""
    text = lock.read_text()
    found = ENTRY.findall(text)
    assert 2 * len(found) == sum(not line.startswith("#") for line in text.splitlines()), f"{lock.name}: an odd line"
    return {name: version for name, version, _ in found}


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[; ]", requirement)[0]).lower()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_holds_what_the_project_asks_for_in_the_versions_of_the_constraints(lock: Path) -> None:
    light = lock.stem.endswith("-light")
    wanted = {name_of(line) for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["demo"]]}
    locked = pins(lock)
    assert (wanted - {"torch", "onnx"} if light else wanted) <= set(locked)
    assert not light or not {"torch", "onnx"} & set(locked)
    machine = "aarch64" if "aarch64" in lock.stem else "x86_64"
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        requirement, _, marker = line.partition(";")
        name, _, version = requirement.strip().partition("==")
        if (
            line.startswith("#")
            or name_of(name) not in locked
            or (marker and ("!=" in marker) == (machine == "aarch64"))
        ):
            continue
        assert locked[name_of(name)].partition("+")[0] == version, f"{lock.name}: {name}; run scripts/lock there"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_no_lock_brings_a_build_of_torch_for_another_kind_of_machine(lock: Path) -> None:
    locked = pins(lock)
    assert not [name for name in locked if name.startswith(("nvidia-", "cuda-", "triton"))]
    if "torch" in locked:
        assert locked["torch"] == "2.10.0" if "aarch64" in lock.stem else locked["torch"].endswith("+cpu")


def test_the_platforms_of_raspberry_pi_os_are_there() -> None:
    there = {lock.name for lock in LOCKS}
    assert {f"linux-aarch64-py{v}{kind}.txt" for v in (311, 313) for kind in ("", "-light")} <= there


def test_what_builds_the_wheel_is_locked() -> None:
    assert "hatchling" in pins(ROOT / "locks/build.txt")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_scripts_install_brings_what_the_locks_hold(lock: Path) -> None:
    constrained = {name_of(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1].isalpha()}
    missing = set(pins(lock)) - constrained
    assert not missing, f"in {lock.name} and not in constraints.txt, so that tomorrow's version is installed beside it"
