"""Programs that are measured: started, waited for until they say that they are ready, and always ended.

CPU time and memory come from /proc (Linux). Raises BenchError, with what a program said last, when it does not start.
"""

import os
import resource
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from transom.errors import TransomError

START = 120.0  # seconds that a program may take to be ready: torch on a busy small box takes tens
END = 10.0  # seconds that it may take to end before it is killed
KEPT = 20  # lines of what it said last
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchError(TransomError):
    """Something that is needed to measure does not work here."""


class Program:
    """`with Program(command, ready="ready:") as p: …`; `ready` in a line says that it is. None: it need not be."""

    def __init__(self, command: Sequence[str], ready: str | None, *, devnull: bool = False) -> None:
        """devnull: what it prints is thrown away by the kernel, for a program that prints each message."""
        self.name = Path(command[0]).name if len(command) < 3 else " ".join(command[1:4])
        self._command, self._ready, self._devnull = list(command), ready, devnull
        self.said: deque[str] = deque(maxlen=KEPT)
        self._lines = threading.Condition()
        self._ended = False
        self.seconds = 0.0  # from start to ready

    def __enter__(self) -> Self:
        begun = time.perf_counter()
        out = subprocess.DEVNULL if self._devnull else subprocess.PIPE
        try:
            self._process = spawn(
                self._command, out, subprocess.PIPE if self._devnull else subprocess.STDOUT
            )  # fmt: skip
        except OSError as error:
            raise BenchError(self._command[0], f"cannot be started ({error.strerror})") from None
        self._reader = threading.Thread(target=self._read, name="bench-lines", daemon=True)
        self._reader.start()
        try:
            if self._ready is not None and not self.wait_for(self._ready, START):
                told = " / ".join(self.said) or "nothing"
                raise BenchError(  # noqa: TRY301  # it is ended first
                    self.name, f"is not ready after {time.perf_counter() - begun:.0f} s; it said: {told}"
                )  # fmt: skip
        except BaseException:
            self.end()
            raise
        self.seconds = time.perf_counter() - begun
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _read(self) -> None:
        stream = self._process.stderr if self._devnull else self._process.stdout
        assert stream is not None
        for line in stream:
            with self._lines:
                self.said.append(line.strip())
                self._lines.notify_all()
        with self._lines:
            self._ended = True
            self._lines.notify_all()

    def wait_for(self, text: str, seconds: float) -> bool:
        """True as soon as one of its latest lines holds the text, False when it ends or the time is over without."""
        with self._lines:
            self._lines.wait_for(lambda: self._ended or any(text in line for line in self.said), seconds)
            return any(text in line for line in self.said)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def cpu(self) -> float:
        """Seconds of CPU, of all its threads, so far (10 ms are the kernel's unit)."""
        fields = _proc(self._process.pid, "stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def rss(self) -> int:
        """Bytes of memory that it holds."""
        return int(_proc(self._process.pid, "statm").split()[1]) * _PAGE

    def wait(self, seconds: float) -> tuple[float, float] | None:
        """For a program that ends by itself: (moment of its end, monotonic; seconds of CPU), None when it does not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                return time.monotonic(), usage.ru_utime + usage.ru_stime
            time.sleep(0.002)
        return None

    def end(self) -> None:
        """Asks it to end, and kills it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(1)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None and not self._reader.is_alive():
                stream.close()


def children() -> float:
    """Seconds of CPU of all programs that have ended so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def environment() -> dict[str, str]:
    """Ours without settings of a user's own agent, which would change what is measured; one thread for each model."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TRANSOM_")}
    return kept | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def spawn(command: Sequence[str], out: int, err: int) -> "subprocess.Popen[str]":
    """In a session of its own: Ctrl-C is for us, and we end it. A signal that comes while it is started waits until it
    is known, or nobody would end it. Raises OSError."""
    held: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.signal(n, lambda number, _: held.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, env=environment(),
            start_new_session=True,
        )  # fmt: skip
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        process.kill()
        process.wait()
        raise KeyboardInterrupt
    return process


def output(command: Sequence[str], seconds: float) -> str:
    """What a program prints that ends by itself. Raises BenchError when it fails or takes longer."""
    process = spawn(command, subprocess.PIPE, subprocess.PIPE)
    try:
        out, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise BenchError(" ".join(command[1:4]), f"has not ended after {seconds:.0f} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise BenchError(" ".join(command[1:4]), f"failed: {told.strip().splitlines()[-1] if told.strip() else out}")
    return out


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError as error:
        raise BenchError(f"process {pid}", f"has ended while it was measured ({error.strerror})") from None
