"""`transom run` for tests: takes offers on its standard input, and kills itself at a step of a switch ($KILL_AT).

A step is NAME:before or NAME:after; a name is a change of the ledger, or `renew`, the last snapshot of a switch.
"""

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transom.cli import main
from transom.edge import gate
from transom.edge.keeper import Keeper
from transom.edge.rollout import store
from transom.edge.rollout.store import Store


def killed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **named: Any) -> Any:
        if os.environ.get("KILL_AT") == f"{name}:before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **named)
        if os.environ.get("KILL_AT") == f"{name}:after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


class Offering(Store):
    """Offers what the lines of standard input name: a stream and a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        STORES.append(self)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            stream, _, path = line.strip().partition(" ")
            self.offer(stream, Path(path), None, "folder")

    switch = killed("switch", Store.switch)
    give_up = killed("give_up", Store.give_up)


def renewed(keeper: Keeper, pipeline: Any) -> None:
    written = any(entry.phase != "shadow" and entry.active for entry in STORES[0].entries.values()) if STORES else False
    (killed("renew", RENEW) if written else RENEW)(keeper, pipeline)


RENEW = Keeper.renew
STORES: list[Offering] = []


if __name__ == "__main__":
    # A trial of each file takes a process; that one is tested elsewhere.
    for model in Path(sys.argv[2]).parent.glob("*.onnx"):
        gate._passed.add(hashlib.sha256(model.read_bytes()).hexdigest())
    store.Store = Offering  # type: ignore[misc]
    Keeper.renew = renewed  # type: ignore[method-assign]
    sys.exit(main(["run", *sys.argv[1:]]))
