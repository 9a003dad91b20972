"""The scripts that README and CONTRIBUTING name run as they are printed there, from any folder."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from conftest import missing

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
INSTALLED = any((ROOT / ".venv" / f"installed-{extra}").exists() for extra in ("test", "dev"))


def run(folder: Path, script: str, *words: str) -> str:
    """What it printed. The environment is a user's: no virtual environment is active, and nothing is on Python's path."""
    if not INSTALLED:
        missing("no .venv here, and making one takes a minute (scripts/install test)")
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env = kept | {"OMP_NUM_THREADS": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    command = [str(SCRIPTS / script), *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_is_measured_with_each_kind_of_step(tmp_path: Path) -> None:
    told = run(tmp_path, "bench-core", "--batches", "3")
    assert len(re.findall(r"^.* readings/s", told, re.MULTILINE)) == 4


EVALUATE = [f"evaluate/{p.stem}" for p in sorted((SCRIPTS / "evaluate").glob("*.py")) if p.with_suffix("").exists()]


MEASURE = [
    "bench-core",
    "bench-journal",
    "benchmark/stages",
    "benchmark/rounds",
    "benchmark/transports",
    "benchmark/end_to_end",
]


@pytest.mark.parametrize("script", [*MEASURE, "fuzz", "picture", "torture", *EVALUATE])
def test_a_script_tells_its_options(script: str, tmp_path: Path) -> None:
    assert "--help" in run(tmp_path, script, "--help")


def test_the_picture_is_of_a_demo_that_ran(tmp_path: Path) -> None:
    run(tmp_path, "picture", "--seconds", "4", "--output", str(tmp_path / "demo.svg"))
    drawn = (tmp_path / "demo.svg").read_text()
    assert drawn.startswith("<svg")
    assert "vibration" in drawn


def test_every_script_that_the_pages_name_is_there_and_may_be_run() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {name for page in pages for name in re.findall(r"(?<![\w/])scripts/([\w.-]*\w)", page.read_text())}
    assert len(named) > 5
    assert [name for name in sorted(named) if not os.access(SCRIPTS / name, os.X_OK)] == []
