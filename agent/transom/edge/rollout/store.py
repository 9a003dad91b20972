"""Models that come in: judged, copied, and put into the shadow of what a stream runs; or refused, and nothing changes.

Any thread may call what is here. A trial of a file takes seconds, and holds up nobody.
"""

import logging
from pathlib import Path

from msgspec.structs import replace

from transom.core.model import Manifest
from transom.edge.gate import Gate
from transom.edge.rollout import disk, fit
from transom.edge.rollout.ledger import EVENTS, RECORD, Ledger, now
from transom.edge.rollout.record import Entry, File
from transom.errors import ModelError
from transom.runtimes import choice, files, onnx, trust
from transom.runtimes.trust import Voucher
from transom.settings import Settings

log = logging.getLogger(__name__)


class Store(Ledger):
    """folder: agent.state/models."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._news: list[str] = []

    def offer(self, stream: str, model: Path, signature: Path | None, origin: str, force: bool = False) -> str:
        """Judges a model that has come for a stream, takes a copy and has it tried beside what runs. Returns its
        SHA-256; one that is being tried, or runs, is no news. signature: in a file of minisign's form; origin: how it
        came, for people; force: an older version is meant. Safe in any thread.

        Raises ModelError for one that is not taken; what runs goes on.
        """
        name, version, digest = "", "", ""
        try:
            data, digest = files.read_verified(model)
            settings = self._expecting(stream)
            if self._known(stream, digest):
                return digest
            with self._lock:
                self._coming.add(digest)
            try:
                path = self._copy(digest, model.suffix, data, signature)
                with Gate.of(settings.models) as gate:
                    voucher = gate.admit(path, None)
                manifest = choice.open_file(path, digest).manifest
                name, version = manifest.name, manifest.version
                self._take(stream, manifest, voucher, path.suffix, origin, force=force)
            finally:
                with self._lock:
                    self._coming.discard(digest)
                    self._clean()
        except ModelError as error:
            self._refused(stream, File(sha256=digest, suffix="", name=name, version=version, origin=origin), error)
            raise
        return digest

    def take(self) -> list[str]:
        """Streams for which something has come since the last call, for the run loop."""
        with self._lock:
            news, self._news = self._news, []
            return news

    def _expecting(self, stream: str) -> Settings:
        with self._lock:
            settings, running = self._settings, self._running
        if settings is None or stream not in settings.streams or stream not in running:
            known = ", ".join(sorted(running)[:10])
            raise ModelError(f"streams.{stream[:80]}", "does not run here", f"there are {known}" if known else "")
        if settings.streams[stream].model_sha256 is not None:
            raise ModelError(
                f"streams.{stream}", "is pinned to one file by model_sha256", "change the digest there, or remove it"
            )
        if (self.entries.get(stream) or Entry()).phase == "trial":
            raise ModelError(
                f"streams.{stream}", "another new model is on trial", "wait, or end it: transom rollout accept"
            )
        return settings

    def _known(self, stream: str, digest: str) -> bool:
        """Raises ModelError for one that has failed here."""
        entry = self.entries.get(stream) or Entry()
        if digest in entry.rejected:
            raise ModelError(
                f"streams.{stream}", f"{digest[:12]}… has been tried here and failed", "train another; see its event"
            )
        return digest in {file.sha256 for file in (entry.active, entry.candidate) if file is not None} or (
            entry.active is None and self._running[stream].model.sha256 == digest
        )

    def _copy(self, digest: str, suffix: str, data: bytes, signature: Path | None) -> Path:
        suffix = onnx.SUFFIX if suffix == onnx.SUFFIX else files.SUFFIX
        path = self.folder / f"{digest}{suffix}"
        try:
            self._make_folder()
            signed = None
            if signature is not None:
                with signature.open("rb") as file:
                    signed = file.read(trust.MAX_SIGNATURE + 1)
            with self._lock:
                if signed is None:
                    disk.remove(trust.signature_path(path))
                else:
                    disk.put(trust.signature_path(path), signed)
                disk.put(path, data)
        except OSError as error:
            raise ModelError(
                str(self.folder), f"the model cannot be written ({error.strerror})", "look at the disk and its owner"
            ) from error
        return path

    def _take(
        self, stream: str, manifest: Manifest, voucher: Voucher, suffix: str, origin: str, *, force: bool
    ) -> None:
        with self._lock:
            settings = self._expecting(stream)
            wanted = settings.agent.runtime
            if wanted not in ("auto", "onnx" if suffix == onnx.SUFFIX else "torchscript"):
                raise ModelError(f"streams.{stream}: {manifest.label}", f'agent.runtime is "{wanted}"', "send its twin")
            running, spec_of = self._running[stream], self._spec_of
            assert spec_of is not None
            spec = spec_of(stream, settings.streams[stream], manifest)
            fit.check(stream, (running.spec, running.model.manifest), (spec, manifest), force=force)
            entry = self.entries.get(stream) or Entry()
            if entry.candidate is not None and not force and not fit.newer(manifest.version, entry.candidate.version):
                raise ModelError(
                    f"streams.{stream}: {manifest.label}", f"{entry.candidate.label} is in the shadow and as new",
                    "send a newer one, or roll that one back: transom rollout rollback",
                )  # fmt: skip
            file = File(
                sha256=voucher.sha256, suffix=suffix, name=manifest.name, version=manifest.version,
                signer=str(voucher), origin=origin, offered=now(),
            )  # fmt: skip
            entry = entry.offered(file, running.model.sha256, running.model.manifest.label)
            event = self._event("offered", stream, file, entry.before)
            try:
                self._set(stream, entry, event)
            except OSError as error:
                raise ModelError(
                    str(self.folder / RECORD), f"cannot be written ({error.strerror})", "see the disk"
                ) from (error)
            self._news.append(stream)
        log.info("streams.%s: %s has come (%s, %s): it is tried beside what runs", stream, file.label, origin, voucher)

    def _refused(self, stream: str, file: File, error: ModelError) -> None:
        log.warning("a model is refused: %s", error)
        event = self._event("refused", stream[:80], file, reason=str(error)[:500])
        with self._lock:
            self._record = replace(self._record, events=(*self._record.events, event)[-EVENTS:])  # memory is enough
