"""The process in which strange models are tried: `python -m transom.runtimes.tried`, started by trial.py.

A line of JSON names a file on standard input; a line of JSON says on standard output how it went. What runs models is
imported once, ahead of its files where a line asks for that; each file is tried in a fork that has given up its rights
(confine.py), so that none can touch the next.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from transom.errors import ModelError
from transom.runtimes import choice, onnx
from transom.runtimes.confine import Limits, confine

MOST_SAID = 64 << 10  # bytes that a trial may say


def main() -> int:
    with contextlib.suppress(OSError):  # a service may be forbidden even that
        os.nice(5)  # at a reload the agent goes on beside it
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _import(Path(request.get("import") or request["path"]))  # takes seconds, and rights that a trial has not
        if "import" in request:
            continue
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _child(request, writer)
        os.close(writer)
        with open(reader, "rb", closefd=True) as pipe:  # noqa: PTH123
            said = pipe.read(MOST_SAID)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer = json.dumps({"status": status, "said": said.decode("utf-8", "replace")})
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()
    return 0


def _child(request: dict[str, Any], writer: int) -> NoReturn:
    """Never returns into the loop, whatever happens."""
    status = 1
    try:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")  # where memory ends, this process ends, not the agent
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):  # what it says on these would be taken for the answer
            os.dup2(nothing, standard)
        os.write(writer, json.dumps(_tried(request)).encode())
        status = 0
    finally:
        os._exit(status)


def _tried(request: dict[str, Any]) -> dict[str, Any]:
    path, limits = Path(request["path"]), Limits(*request["limits"])
    try:
        held = confine(limits)
        _load(path, request["sha256"])
    except ModelError as error:
        if "alloc" in error.problem and ("memory" in error.problem or "bad_alloc" in error.problem):
            return _too_large(path, limits)
        return {"error": [error.place, error.problem, error.remedy]}
    except MemoryError:
        return _too_large(path, limits)
    except Exception as error:  # noqa: BLE001 whatever it is, the agent must not load this file
        return {"error": [str(path), f"fails when it is tried ({type(error).__name__}: {error})", "train it again"]}
    return {"held": held, "seconds": time.process_time()}


def _import(path: Path) -> None:
    if path.suffix == onnx.SUFFIX:
        onnx.import_onnxruntime()
    else:
        from transom.runtimes import torchscript

        torchscript.import_torch()


def _load(path: Path, sha256: str) -> None:
    """Verifies, loads, runs each batch size and holds what it gives against what the task promises."""
    choice.from_opened(choice.open_file(path, sha256))


def _too_large(path: Path, limits: Limits) -> dict[str, Any]:
    return {"error": [str(path), f"needs more than {limits.memory >> 20:,} MiB of memory", "train a smaller model"]}


if __name__ == "__main__":
    sys.exit(main())
