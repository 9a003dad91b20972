"""Files in the folder of models that nothing names any more: rests of a crash, refused models, those long replaced."""

import logging
import re
from collections.abc import Set
from pathlib import Path

from transom.edge.rollout import disk

log = logging.getLogger(__name__)

_OURS = re.compile(rf"([0-9a-f]{{64}})\.(?:pt|onnx)(?:\.minisig)?(?:{re.escape(disk.TEMPORARY)})?")


def sweep(folder: Path, named: Set[str]) -> None:
    """named: digests of models that stay. What does not have a name of ours stays too."""
    try:
        for path in folder.iterdir() if folder.is_dir() else ():
            ours = _OURS.fullmatch(path.name)
            if ours is not None and ours[1] not in named:
                disk.remove(path)
    except OSError as error:
        log.warning("%s: a model that is not needed any more stays there (%s)", folder, error)
