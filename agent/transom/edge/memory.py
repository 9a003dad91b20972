"""Memory of a process that runs for years: what was freed goes back to the system, and what stays is looked at once."""

import ctypes
import gc
import re
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None)

_MAPS = Path("/proc/self/smaps")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:r-.p \S+ \S+ \S+ +(/)|.)")  # of a file, to be read alone; or another
_DONTNEED = 4  # MADV_DONTNEED of Linux
YOUNG = 20_000  # objects after which Python looks for cycles among them: a burst of messages is no reason to


def settle() -> None:
    """To be called once all is loaded: Python looks for cycles in what comes from now on, not ever again in torch's
    170,000 objects, which takes 0.1 s each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    trim()


def unmap_files() -> None:
    """Takes code and constants of libraries out of this process: what is used again comes back from the kernel's cache
    of files, 64 kB in a µs or so, and what only the start used does not (70 MB of torch's). Only on Linux.

    To be called while no other thread could load a library: of one that is half loaded, pages would be lost.
    """
    for begin, end in _unwritten():
        _libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONTNEED)


def _unwritten() -> Iterator[tuple[int, int]]:
    """Where files are mapped of which no page was ever written here, nor can be: each is what the file holds."""
    if not _MAPS.exists():
        return
    begin = end = own = 0  # own: kB that are no longer the file's
    for line in _MAPS.read_text().splitlines():
        mapping = _MAPPING.match(line)
        if mapping is None:
            field, _, value = line.partition(":")
            own += int(value.split()[0]) if field in ("Anonymous", "Swap") else 0
            continue
        if end and not own:
            yield begin, end
        begin, end = (int(mapping[i], 16) for i in (1, 2)) if mapping[3] else (0, 0)
        own = 0
    if end and not own:
        yield begin, end


def trim() -> None:
    """Gives free pages back, in a ms or less: glibc keeps them for a next time. Does nothing with another C library."""
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
