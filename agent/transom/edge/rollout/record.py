"""What stands in rollout.json: for each stream which model file runs, which ran before, and what is being tried.

Values in, values out: each change gives a new `Entry`, and nothing is written from here.
"""

from typing import Any, Literal

import msgspec
from msgspec.structs import replace

Phase = Literal["none", "shadow", "trial"]

REJECTED = 8  # digests that a stream remembers of models that have failed
FORMAT = 1


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A model file of the store. signer: who vouches for it, as `Voucher` says; origin: how it came; offered: ms since
    1970."""

    sha256: str
    suffix: str
    name: str
    version: str
    signer: str = ""
    origin: str = ""
    offered: int = 0

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def file(self) -> str:
        return f"{self.sha256}{self.suffix}"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One stream. active: what runs, None for the configured model; previous: what ran before it, None for the
    configured one; candidate: in the shadow; configured: SHA-256 of the configured file for which all this holds, and
    named: its label; spent: ms of the phase so far; open: a process is in the phase and has not ended it cleanly;
    deaths: processes that did not; rejected: digests of models that have failed here."""

    active: File | None = None
    previous: File | None = None
    candidate: File | None = None
    configured: str = ""
    named: str = ""
    phase: Phase = "none"
    spent: int = 0
    open: bool = False
    deaths: int = 0
    rejected: tuple[str, ...] = ()

    @property
    def tried(self) -> File | None:
        """The model that the phase is about."""
        return {"none": None, "shadow": self.candidate, "trial": self.active}[self.phase]

    @property
    def files(self) -> list[File]:
        return [file for file in (self.active, self.previous, self.candidate) if file is not None]

    @property
    def before(self) -> str:
        """Label of the model that what is tried is compared with."""
        file = self.active if self.phase == "shadow" else self.previous
        return file.label if file is not None else self.named

    def offered(self, file: File, configured: str, named: str) -> "Entry":
        """A candidate goes into the shadow, in the place of one that is there. configured, named: of the configured
        model, where this is the first one."""
        first = {} if self.configured else {"configured": configured, "named": named}
        return self._phase("shadow", candidate=file, **first)

    def switched(self) -> "Entry":
        """The candidate runs."""
        return self._phase("trial", active=self.candidate, previous=self.active, candidate=None, open=True)

    def accepted(self) -> "Entry":
        return self._phase("none")

    def given_up(self) -> "Entry":
        """The candidate, or else what runs, is given up: what ran before runs (again)."""
        failed = self.candidate if self.phase == "shadow" else self.active
        known = (*self.rejected, failed.sha256)[-REJECTED:] if failed is not None else self.rejected
        if self.phase == "shadow":
            return self._phase("none", candidate=None, rejected=known)
        return self._phase("none", active=self.previous, previous=None, candidate=None, rejected=known)

    def _phase(self, phase: Phase, **changes: Any) -> "Entry":
        return replace(self, **{"phase": phase, "spent": 0, "deaths": 0, "open": False, **changes})


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. events: those that are not in the journal yet, oldest first."""

    streams: dict[str, Entry] = {}
    events: tuple[dict[str, Any], ...] = ()
    format: int = FORMAT


def encode(record: Record) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=1)


def decode(data: bytes) -> Record:
    """Raises ValueError for what is no such file, or one of another format."""
    try:
        record = msgspec.json.decode(data, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if record.format != FORMAT:
        raise ValueError(f"format {record.format}, this is {FORMAT}")
    for name, entry in record.streams.items():
        if (entry.phase == "shadow") != (entry.candidate is not None) or (entry.phase == "trial" and not entry.active):
            raise ValueError(f"streams.{name}: the phase {entry.phase} has no model")
        for file in entry.files:
            if len(file.sha256) != 64 or not set(file.sha256) <= set("0123456789abcdef"):
                raise ValueError(f"streams.{name}: a digest that is none")
            if file.suffix not in (".pt", ".onnx"):
                raise ValueError(f"streams.{name}: {file.suffix!r} is no kind of model file")
    return record
