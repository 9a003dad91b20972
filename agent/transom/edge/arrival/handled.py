"""What has been handed over, on disk: a restart must not bring a model again that was taken back since.

Words in, whether they are known out. A file that cannot be read counts as empty, and one that cannot be written is told
of: the worst is that a model is offered twice.
"""

import logging
import threading
from pathlib import Path

import msgspec

from transom.runtimes import files

log = logging.getLogger(__name__)

MOST = 256  # words; the oldest go first


class Handled:
    """Of one state folder, for any thread."""

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        try:
            self._words = dict.fromkeys(msgspec.json.decode(file.read_bytes(), type=list[str])[-MOST:])
        except FileNotFoundError:
            self._words = {}
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s: cannot be read (%s): begun anew", file, error)
            self._words = {}

    def __contains__(self, word: str) -> bool:
        return word in self._words

    def add(self, word: str) -> None:
        with self._lock:
            self._words.pop(word, None)
            self._words[word] = None
            while len(self._words) > MOST:
                del self._words[next(iter(self._words))]
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                files.write_whole(self._file, msgspec.json.encode(list(self._words)))
            except OSError as error:
                log.warning("%s: cannot be written (%s)", self._file, error.strerror)
