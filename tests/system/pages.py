"""README and docs as a reader types them: the blocks of a page, and a session in which its commands run, in their order.

A comment in the line before a block, which no reader sees, says what the test needs to know:
    <!-- not run: REASON -->        REASON is a key of UNABLE, or a test file that runs it
    <!-- file: plant.toml -->       the block is written into that file first
    <!-- with: agent pump.csv -->   materials (test_pages.py) that the page has not made itself
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE
)

UNABLE = {
    "needs root": "changes this machine",
    "needs another machine": "copies to, or installs from, somewhere else",
    "needs the package index": "asks it, or writes into the project what it answers",
    "needs another program": "Prometheus, Grafana, Home Assistant or a compiler, which CI does not have",
    "asks a person": "for a password, or waits for somebody who looks",
    "takes minutes": "a benchmark, or a training at full length",
}

# What would take minutes is made shorter; nothing else of a command is changed.
SHORTER = {
    "--seconds 60": "--seconds 3",
    "--length 720": "--length 48",
    "--horizon 96": "--horizon 12",
    "--hidden 2400": "--hidden 120",
    "--length 200 --min-steps 20": "--length 20 --min-steps 5",
    "sleep 0.2": "sleep 0.02",
}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    body: str
    note: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def unable(self) -> str | None:
        """Why it is not run."""
        return self.note.removeprefix("not run:").strip() if self.note.startswith("not run:") else None

    @property
    def file(self) -> str | None:
        return self.note.removeprefix("file:").strip() if self.note.startswith("file:") else None

    @property
    def needs(self) -> list[str]:
        return self.note.removeprefix("with:").split() if self.note.startswith("with:") else []

    @property
    def lines(self) -> list[str]:
        """Commands, with continued lines joined and comments taken off."""
        joined = self.body.replace("\\\n", " ")
        return [line for raw in joined.splitlines() if (line := re.sub(r"(^|\s+)#( .*)?$", "", raw).strip())]


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            str(page.relative_to(ROOT)), text.count("\n", 0, m.start("language")) + 1, m["language"], m["body"],
            m["note"] or "",
        )
        for m in BLOCK.finditer(text)
    ]  # fmt: skip


def spans(page: Path) -> Iterator[str]:
    """Commands in running text and tables: `transom …` between backquotes."""
    text = BLOCK.sub("", page.read_text())
    yield from re.findall(r"(?<!`)`(transom [a-z][^`\n]*)`", text)


class Session:
    """A folder that looks like the project's with the recordings beside it, and a shell in it, line after line."""

    def __init__(self, folder: Path, data: Path, environment: Mapping[str, str], functions: str) -> None:
        """functions: shell functions that stand before each command."""
        self.folder = folder / "project"
        self.folder.mkdir(parents=True)
        for item in ROOT.iterdir():
            if item.name not in {".git", "docs"} and not item.name.startswith("out"):
                (self.folder / item.name).symlink_to(item)
        (folder / "shared").mkdir()
        (folder / "shared" / "data").symlink_to(data)
        path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}:/usr/sbin"
        home = folder / "home"
        home.mkdir()
        self._environment = {
            **os.environ, "PATH": path, "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "PYTHONWARNINGS": "",
            **environment,
        }  # fmt: skip
        self._functions, self._agents = functions, list[subprocess.Popen[bytes]]()
        self._kept: list[subprocess.Popen[bytes]] = []
        self.instead: dict[str, str] = {}  # what stands in the page, and what is typed for it

    def run(self, line: str, where: str) -> str:
        """Types it; what it prints. Raises AssertionError, naming the place, when it fails."""
        for long, short in {**SHORTER, **self.instead}.items():
            line = line.replace(long, short)
        if re.search(r"(^|/)transom run\b", line):
            self._begin(line, where)
            return ""
        done = subprocess.run(
            ["bash", "-euc", f"{self._functions}\n{line}"], cwd=self.folder, env=self._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{where}: {line}\nexit status {done.returncode}\n{done.stdout[-3000:]}"
        return done.stdout

    def keep(self, line: str) -> None:
        """Goes on until the page ends."""
        command = ["bash", "-c", f"{self._functions}\n{line}"]
        self._kept.append(subprocess.Popen(command, cwd=self.folder, env=self._environment, start_new_session=True))

    def _begin(self, line: str, where: str) -> None:
        """An agent runs until the page ends."""
        log = self.folder / f"agent-{len(self._agents)}.log"
        with log.open("wb") as out:
            agent = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self._environment, stderr=out, stdout=out
            )
        self._agents.append(agent)
        end = time.monotonic() + 60
        while b"ready: watching" not in log.read_bytes():
            assert agent.poll() is None, f"{where}: {line}\nended with {agent.returncode}\n{log.read_text()}"
            assert time.monotonic() < end, f"{where}: {line}\nis not ready\n{log.read_text()}"
            time.sleep(0.05)

    def close(self) -> None:
        """Ends the agents; each must end cleanly."""
        for kept in self._kept:
            os.killpg(kept.pid, signal.SIGKILL)
            kept.wait(10)
        for agent in self._agents:
            agent.send_signal(signal.SIGTERM)
        ends = [agent.wait(20) for agent in self._agents]
        assert all(status == 0 for status in ends), f"agents ended with {ends}"

    def has(self, program: str) -> bool:
        return shutil.which(program, path=self._environment["PATH"]) is not None
