"""Memory of a process that runs for years: what was freed goes back to the system, and what stays is looked at once."""

import ctypes
import gc

_libc = ctypes.CDLL(None)


YOUNG = 20_000  # objects after which Python looks for cycles among them: a burst of messages is no reason to


def settle() -> None:
    """To be called once all is loaded: Python looks for cycles in what comes from now on, not ever again in torch's
    170,000 objects, which takes 0.1 s each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    trim()


def trim() -> None:
    """Gives free pages back, in a ms or less: glibc keeps them for a next time. Does nothing with another C library."""
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
