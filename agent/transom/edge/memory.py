"""Memory that was freed goes back to the system: glibc keeps it for a next time, for each thread apart.

Does nothing where the C library is another.
"""

import ctypes

ARENA_MAX = -8  # of mallopt(3)

_libc = ctypes.CDLL(None)


def frugal() -> None:
    """One heap for all threads. Before the first thread begins."""
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(ARENA_MAX, 1)


def trim() -> None:
    """Gives free pages back, in a ms or less."""
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
