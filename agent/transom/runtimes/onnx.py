"""A model file on ONNX Runtime: float32 windows [B, T, C] come in, the arrays that the task promises go out.

The file is one .onnx with the manifest in its metadata. torch is never imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from transom.core.model import PROMISED, Manifest, encode_manifest
from transom.errors import ModelError
from transom.runtimes import files, onnx_scan
from transom.runtimes import manifest as manifests
from transom.runtimes.batches import BATCH_SIZES, Array, BatchedModel, first_line
from transom.runtimes.files import AGAIN, FOREIGN

SUFFIX = ".onnx"
INPUT = "window"
STEP_INPUTS, STATE = ["value", "before"], "after"  # of an incremental model: it goes through a window step by step


@dataclass(frozen=True, slots=True)
class OnnxBundle:
    """A verified model file. size: its bytes; sha256: its digest, hex; model: the graph, without the manifest."""

    path: Path
    manifest: Manifest
    size: int
    sha256: str
    model: bytes = field(repr=False)


def open_bundle(path: Path, sha256: str | None = None) -> OnnxBundle:
    """Reads the file once and verifies what was read: digests first, then each field and operator, then the manifest.

    sha256: see files.read_verified. Raises ModelError that names what is wrong. ONNX Runtime is not imported.
    """
    data, digest = files.read_verified(path, sha256)
    manifest, model = _verified(data, str(path))
    return OnnxBundle(path, manifest, len(data), digest, model)


def write_bundle(model: bytes, manifest: Manifest, path: Path) -> Manifest:
    """Writes an exported model with its manifest as one file, and `<file>.sha256` beside it; returns the manifest with
    its `content_sha256`. Raises ModelError for what `open_bundle` would refuse, OSError when the disk does."""
    scanned = onnx_scan.scan(model, str(path))
    manifest = msgspec.structs.replace(manifest, content_sha256=scanned.content_sha256)
    data = onnx_scan.with_manifest(scanned.bare, encode_manifest(manifest))
    _verified(data, str(path))
    files.write_with_digest(path, data)
    return manifest


def _verified(data: bytes, place: str) -> tuple[Manifest, bytes]:
    scanned = onnx_scan.scan(data, place)
    if scanned.manifest is None:
        raise ModelError(place, "an ONNX file without a manifest", FOREIGN)
    manifest = manifests.read(scanned.manifest, place)
    if scanned.content_sha256 != manifest.content_sha256:
        said = manifest.content_sha256[:12] or "nothing"
        raise ModelError(
            place, f"the content has the digest {scanned.content_sha256[:12]}… and the manifest says {said}…", AGAIN
        )
    wanted = STEP_INPUTS if manifest.state else [INPUT]
    if scanned.inputs != wanted:
        takes = ", ".join(scanned.inputs) or "nothing"
        raise ModelError(place, f"takes {takes}", f"a model of this kind takes {', '.join(wanted)}")
    return manifest, scanned.bare


def load(
    path: Path, *, sha256: str | None = None, threads: int = 1, batch_sizes: Sequence[int] = BATCH_SIZES
) -> "OnnxModel":
    """Verifies the file, loads it for the CPU and tries each batch size.

    sha256: see files.read_verified. threads: of this model. batch_sizes: ascending, each 2 or more. Raises ModelError
    for a file that is refused or a model that does not give what its task promises.
    """
    return from_bundle(open_bundle(path, sha256), threads=threads, batch_sizes=batch_sizes)


def from_bundle(bundle: OnnxBundle, *, threads: int = 1, batch_sizes: Sequence[int] = BATCH_SIZES) -> "OnnxModel":
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors: they come as exceptions as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a small box has other work for its cores
    options.enable_mem_pattern = False  # one more buffer for each batch size
    options.enable_cpu_mem_arena = False  # it keeps 10 MB of an LSTM(32) that has seen 256 windows, and is no faster
    try:
        session = runtime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base but Exception
        raise ModelError(
            str(bundle.path), f"ONNX Runtime {runtime.__version__} cannot load it ({first_line(error)})",
            "convert it again with this version: transom convert MODEL.pt",
        ) from error  # fmt: skip
    model = OnnxModel(bundle, session, tuple(sorted(batch_sizes)))
    model.warm()
    return model


def import_onnxruntime() -> Any:
    """onnxruntime, or a ModelError in plain words."""
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise ModelError(
            "onnxruntime", f"cannot be imported ({first_line(error)})",
            "pip install onnxruntime (64-bit systems only), or run the .pt file with torch",
        ) from error  # fmt: skip
    return onnxruntime


class OnnxModel(BatchedModel):
    """`core.model.Model` on ONNX Runtime.

    parameters: how many numbers were trained, as the manifest says. Calls from more than one thread at a time are safe.
    """

    def __init__(self, bundle: OnnxBundle, session: Any, batch_sizes: tuple[int, ...]) -> None:
        super().__init__(bundle.manifest, str(bundle.path), batch_sizes)
        self.bundle, self.parameters = bundle, bundle.manifest.parameters
        self._session = session
        known = {*PROMISED[bundle.manifest.task], "interval"}
        self._outputs = [output.name for output in session.get_outputs() if output.name in known]

    @property
    def sha256(self) -> str:
        """Digest of the whole file, manifest and calibration too."""
        return self.bundle.sha256

    def _call(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.generic]]:
        if self.manifest.state:  # the file holds the step alone
            state: NDArray[Any] = np.repeat(self.start[None], len(batch), 0)
            for i in range(self.manifest.length):
                given_, state = self._call_step(batch[:, i], state)
            return given_
        try:
            given = self._session.run(self._outputs, {INPUT: batch}) if self._outputs else []
        except Exception as error:  # its exceptions have no common base but Exception
            raise ModelError(self._place, f"fails on a batch ({first_line(error)})", "convert it again") from error
        return dict(zip(self._outputs, given, strict=True))

    def _call_step(self, values: Array, state: Array) -> tuple[Mapping[str, NDArray[np.generic]], NDArray[np.generic]]:
        names = [*self._outputs, STATE]
        try:
            given = self._session.run(names, dict(zip(STEP_INPUTS, (values, state), strict=True)))
        except Exception as error:  # its exceptions have no common base but Exception
            raise ModelError(self._place, f"fails on a step ({first_line(error)})", "convert it again") from error
        return dict(zip(self._outputs, given, strict=False)), given[-1]
