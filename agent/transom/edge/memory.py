"""Memory of a process that runs for years: what was freed goes back to the system, and what stays is looked at once."""

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None)

_MAPS = Path("/proc/self/maps")
_DONTNEED = 4  # MADV_DONTNEED of Linux
YOUNG = 20_000  # objects after which Python looks for cycles among them: a burst of messages is no reason to


def settle() -> None:
    """To be called once all is loaded: Python looks for cycles in what comes from now on, not ever again in torch's
    170,000 objects, which takes 0.1 s each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    trim()
    unmap_code()


def unmap_code() -> None:
    """Takes the code of all libraries out of this process: what is run again comes back from the kernel's cache of
    files, 64 kB in a µs or so, and what only the start ran does not (60 MB of torch's). Does nothing but on Linux."""
    for begin, end in _code():
        _libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONTNEED)


def _code() -> Iterator[tuple[int, int]]:
    """Where code is mapped from files, unchanged since: it may be executed, and must never have been written."""
    if not _MAPS.exists():
        return
    for line in _MAPS.read_text().splitlines():
        place, rights, _, _, _, *path = line.split(maxsplit=5)
        if rights == "r-xp" and path and path[0].startswith("/"):
            begin, end = place.split("-")
            yield int(begin, 16), int(end, 16)


def trim() -> None:
    """Gives free pages back, in a ms or less: glibc keeps them for a next time. Does nothing with another C library."""
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
