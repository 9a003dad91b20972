"""Tries a model file where it can do no harm, before this process loads it: a path in, what held, or a ModelError, out.

The file is loaded and run in every batch size in a child process without network, without the right to write, and with
bounded memory and time (confine.py). What the child says is cut, and never taken for more than text.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from transom.errors import ModelError
from transom.runtimes.confine import Limits

START = 120.0  # seconds in which torch must be imported, on the slowest box
MOST_ANSWER = 512 << 10
SHOWN = 300  # characters of what the child says
REMEDY = "do not load this file; if you trust where it comes from, train it again"

# Nothing else of the environment: it may hold passwords.
_KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "ATEN_CPU_CAPABILITY")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


class Passed(NamedTuple):
    """held: what bounded the child, as `confine` names it; seconds: of the processor."""

    held: tuple[str, ...]
    seconds: float


class Trials:
    """`with Trials() as trials: trials.run(path, sha256)`. One child tries any number of files, one after another."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits.here()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def started(self) -> bool:
        return self._process is not None

    def prepare(self, path: Path) -> None:
        """Starts the child, which imports what runs such a file while this process does something else."""
        process = self._started()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `run` says what is the matter
            process.stdin.write(json.dumps({"import": str(path)}).encode() + b"\n")
            process.stdin.flush()

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own, with the file under trial in it
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def run(self, path: Path, sha256: str, meanwhile: Callable[[], None] | None = None) -> Passed:
        """sha256: the digest that the file must still have; meanwhile: done here while the child is at it. Raises
        ModelError for a model that fails, that does not end in time, or that cannot be tried."""
        place = str(path)
        request = {"path": str(path.absolute()), "sha256": sha256, "limits": list(self.limits)}
        answer = self._ask(json.dumps(request).encode() + b"\n", place, meanwhile)
        status = answer.get("status")
        if status != 0:
            raise ModelError(place, self._ended(status), REMEDY)
        try:
            said = json.loads(answer["said"])
            if "error" in said:
                where, problem, remedy = (_shown(str(part)) for part in said["error"])
                raise ModelError(where, problem, remedy)
            return Passed(tuple(map(str, said["held"])), float(said["seconds"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(place, "the process that tried it said something else", REMEDY) from error

    def _ended(self, status: object) -> str:
        if status in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"did not load and answer within {self.limits.seconds} s, or took too much memory"
        if isinstance(status, int) and status < 0:
            return f"ended the process that tried it ({_signal(-status)})"
        return f"ended the process that tried it (status {status})"

    def _ask(self, line: bytes, place: str, meanwhile: Callable[[], None] | None) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            if meanwhile is not None:
                meanwhile()
            data = _line(process.stdout.fileno(), time.monotonic() + START + 2 * self.limits.seconds)
        except BrokenPipeError:
            data = b""
        if not data.endswith(b"\n"):
            ended = process.poll()
            self.close()
            if ended is None:
                raise ModelError(place, f"did not load and answer within {2 * self.limits.seconds} s", REMEDY)
            raise ModelError(
                place, f"cannot be tried: the process for it ended with status {ended}",
                f"see what says: {sys.executable} -m transom.runtimes.tried",
            )  # fmt: skip
        answer = json.loads(data)
        return answer if isinstance(answer, dict) else {}

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-m", "transom.runtimes.tried"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=kept | _ONE_THREAD,
                start_new_session=True,
            )  # fmt: skip
        return self._process


def _line(descriptor: int, deadline: float) -> bytes:
    """Until the line's end; less when the other side ends, says too much, or the deadline passes."""
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not data.endswith(b"\n") and len(data) < MOST_ANSWER:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                break
            part = os.read(descriptor, 1 << 16)
            if not part:
                break
            data += part
    return data


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:SHOWN])


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
