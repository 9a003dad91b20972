"""The gate that a model passes before it is loaded: a file in; who vouches for it, or a ModelError, out.

A file must be vouched for (trust.py), hold only allowed code (bundle.py, onnx.py), and have answered in a process that
can do no harm (trial.py). The shipped models are part of the program and are not tried.
"""

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from transom.runtimes import choice
from transom.runtimes.trial import Trials
from transom.runtimes.trust import Policy, Voucher, vouch
from transom.settings import ModelsSettings

log = logging.getLogger(__name__)

_passed: set[str] = set()  # digests of models that this process has tried: a reload need not try them again


class Gate:
    """`with Gate.of(settings.models) as gate: gate.admit(path, sha256)`."""

    def __init__(self, policy: Policy, trials: Trials | None = None) -> None:
        self.policy, self._trials = policy, trials or Trials()
        self._told: set[str] = set()

    @classmethod
    def of(cls, models: ModelsSettings, trials: Trials | None = None) -> "Gate":
        return cls(Policy.of(models.trusted_keys, allow_unsigned=models.allow_unsigned), trials)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._trials.close()

    @property
    def untouched(self) -> bool:
        """Nothing has been tried yet."""
        return not self._trials.started

    def admit(self, path: Path, sha256: str | None) -> Voucher:
        """The caller must load the file with the voucher's sha256. Raises ModelError."""
        voucher = vouch(path, sha256, self.policy)
        if voucher.kind != "shipped" and voucher.sha256 not in _passed:
            choice.open_file(path, voucher.sha256)  # most of what is wrong is told here, in milliseconds
            log.info("%s: tried in a process of its own before it is loaded", path)
            passed = self._trials.run(path, voucher.sha256, partial(choice.import_for, path))
            if not {"landlock", "seccomp"} & set(passed.held):
                log.warning("%s: tried with bounded memory and time only: this kernel takes no other rights away", path)
            _passed.add(voucher.sha256)
        if voucher.sha256 not in self._told:
            self._told.add(voucher.sha256)
            if voucher.kind == "unsigned":
                log.warning("%s is UNSIGNED and runs because models.allow_unsigned = true", path)
            elif voucher.kind != "shipped":
                log.info("%s: %s", path, voucher)
        return voucher


def notes(*, allow_unsigned: bool, vouchers: Mapping[str, Voucher]) -> Iterator[str]:
    """What is allowed and should be known, in sentences, for `check`, `doctor` and BASE/info."""
    if not allow_unsigned:
        return
    unsigned = [name for name, voucher in vouchers.items() if voucher.kind == "unsigned"]
    runs = f"; NOBODY vouches for the model of {', '.join(unsigned)}" if unsigned else ""
    yield f"models.allow_unsigned is true: model files run whoever wrote them{runs}; sign them (docs/security.md)"
