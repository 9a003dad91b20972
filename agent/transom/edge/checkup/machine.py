"""The machine: processor, bits, torch's build, clock, memory, supply. Facts in, findings out; `look_…` gather facts."""

import ctypes
import json
import os
import platform
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from transom.edge.checkup import Finding

TRIAL = 120.0  # seconds that the trial of torch may take: on a small box the first import takes many
LEAST_MEMORY = 400 << 20  # bytes: torch and a handful of models hold some 300 MB
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
NEWER_THAN = 2025  # the year before which no clock that reads it can be right

_TRIAL = """
import json, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
x = torch.randn(4, 64, 8)
with torch.inference_mode():
    y, _ = torch.nn.LSTM(8, 32, batch_first=True)(x)
    z = torch.nn.Conv1d(8, 16, 5)(x.transpose(1, 2))
sane = bool(y.isfinite().all() and z.isfinite().all())
print(json.dumps({"version": str(torch.__version__), "cuda": torch.version.cuda, "sane": sane}))
"""


class Torch(NamedTuple):
    """What came of running small layers in a process of its own. ended: the signal that ended it, 0 for none; error:
    the last line of what it said when it failed."""

    version: str = ""
    cuda: str | None = None
    sane: bool = False
    ended: int = 0
    error: str = ""


def look_torch() -> Torch:
    """Runs an LSTM and a convolution in a child, which an instruction that the processor lacks may end."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL],
            capture_output=True,
            text=True,
            timeout=TRIAL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Torch(error=f"no answer within {TRIAL:.0f} s")
    if done.returncode < 0:
        return Torch(ended=-done.returncode)
    if done.returncode:
        return Torch(error=(done.stderr.strip().splitlines() or ["it says nothing"])[-1])
    told = json.loads(done.stdout)
    return Torch(told["version"], told["cuda"], told["sane"])


def torch_findings(torch: Torch, *, gpu: bool, machine: str) -> Iterator[Finding]:
    """gpu: whether there is one; machine: as platform.machine() says it."""
    aarch64 = machine == "aarch64"
    cpu_build = (
        f"{sys.prefix}/bin/pip install torch==2.10.0"
        if aarch64
        else f'{sys.prefix}/bin/pip install --force-reinstall torch --index-url "$TRANSOM_TORCH_INDEX"  '
        "(the address of PyTorch's CPU index: README)"
    )
    if torch.ended:
        name = signal.Signals(torch.ended).name
        yield Finding(
            f"torch is ended by {name} when it runs a small network",
            "this build uses instructions that the processor lacks; the agent would end in the same way"
            if name == "SIGILL"
            else "the agent would end in the same way",
            cpu_build,
        )
    elif torch.error:
        yield Finding(f"torch does not run: {torch.error}", "no model can be loaded", cpu_build)
    elif not torch.sane:
        yield Finding(
            f"torch {torch.version} computes values that are no numbers", "no score would be right", cpu_build
        )
    if torch.cuda and not gpu:
        yield Finding(
            f"torch {torch.version} is built for CUDA {torch.cuda}, and there is no GPU",
            "it takes gigabytes of disk and starts more slowly, for nothing",
            cpu_build,
        )


def look_gpu() -> bool:
    return any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/kfd"))


def look_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The first processor's features; empty where the system does not tell."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return next((set(words.split()) for key, _, words in lines if key.strip() in ("flags", "Features")), set())


def cpu_findings(features: set[str], *, machine: str, bits: int) -> Iterator[Finding]:
    """bits: of this Python, which are those of the installed system where the kernel has more."""
    if bits < 64:
        yield Finding(
            f"a {bits}-bit system ({machine})",
            "there is no torch for it, and none is coming",
            "install the 64-bit image of the system; a Raspberry Pi 3 or newer can run it",
        )
    elif machine == "x86_64" and features and "avx2" not in features:
        yield Finding("the processor has no AVX2", "models run some 2 to 4 times slower", "nothing to do", note=True)
    elif machine == "aarch64" and features and "asimd" not in features:
        yield Finding("the processor has no SIMD unit", "torch needs it", "another board")


def look_bits() -> int:
    return 8 * struct.calcsize("P")


def look_clock() -> bool | None:
    """Whether the kernel holds its clock for synchronised; None where it does not tell."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(512))  # struct timex, with modes = 0: only reads
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def clock_findings(synchronised: bool | None, year: int | None = None) -> Iterator[Finding]:
    """year: the present one if None."""
    year = time.gmtime().tm_year if year is None else year
    if year < NEWER_THAN:
        yield Finding(
            f"the clock says {year}",
            "readings with a time of their own are all refused as from the future",
            "sudo timedatectl set-ntp true",
        )
    elif synchronised is False:
        yield Finding(
            "the clock is not synchronised",
            "readings with a time of their own come late or from the future, and alerts carry a wrong time",
            "sudo timedatectl set-ntp true",
        )


def look_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that a new process could have."""
    try:
        lines = meminfo.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def memory_findings(available: int | None) -> Iterator[Finding]:
    if available is not None and available < LEAST_MEMORY:
        yield Finding(
            f"{available >> 20} MB of memory are free",
            "torch and a few models hold some 300 MB, more with many series",
            "systemctl status --no-pager; ps -eo rss,comm --sort=-rss | head   (what could be stopped)",
        )


_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")


def supply_findings(file: Path = _THROTTLED) -> Iterator[Finding]:
    """A Raspberry Pi's own account of its supply: bit 0 = too low now, bit 16 = has been since it was started."""
    try:
        bits = int(file.read_text().strip(), 16)
    except (OSError, ValueError):
        return
    if bits & 0x10001:
        yield Finding(
            f"the supply voltage {'is' if bits & 1 else 'has been'} too low",
            "SD cards lose data by it, and the processor slows down",
            "use the board's own power supply; look again with: vcgencmd get_throttled",
        )


def findings() -> Iterator[Finding]:
    """All about this machine but torch, which takes seconds."""
    machine = platform.machine()
    yield from cpu_findings(look_cpu(), machine=machine, bits=look_bits())
    yield from clock_findings(look_clock())
    yield from memory_findings(look_memory())
    yield from supply_findings()
    if os.environ.get("LD_PRELOAD"):
        yield Finding(
            "LD_PRELOAD is set", "libraries put before torch's have crashed it", "unset LD_PRELOAD", note=True
        )
