"""What would go wrong here: findings about the machine, its storage, the service and the broker. Changes nothing."""

from typing import NamedTuple


class Finding(NamedTuple):
    """what: what was found; why: why it matters; mend: the command that mends it, or what to do where none does.
    note: worth knowing, and nothing that has to be mended."""

    what: str
    why: str
    mend: str
    note: bool = False
