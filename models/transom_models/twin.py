"""A TorchScript model file to its twin on ONNX Runtime: exported, written, and proved to give the same numbers.

Model file in, model file out. Needs torch and onnx.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transom.core.model import PROMISED, Manifest
from transom.errors import ModelError
from transom.runtimes import bundle, files, onnx, torchscript
from transom.runtimes.batches import first_line
from transom.runtimes.probes import probe_windows
from transom_models.onnx_rows import steady

OPSET = 17  # of the year 2022: known to every ONNX Runtime since 1.12
LARGEST = 64  # rows of a batch: each number of them up to here is compared
TOLERANCE = 1e-5  # of a row's numbers against TorchScript's, relative to the largest of the row or 1
IN_UNITS = ("expected", "interval", "forecast")  # in those of the window, whose numbers then belong to the row


class _One(nn.Module):
    """Outputs by name become outputs in order: ONNX knows no dictionary."""

    def __init__(self, inner: nn.Module, key: str) -> None:
        super().__init__()
        self.inner, self.key = inner, key

    def forward(self, window: Tensor) -> Tensor:
        return self.inner(window)[self.key]


class _Detector(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        given = self.inner(window)
        return given["score"], given["contribution"], given["expected"]


class _DetectorWithInterval(_Detector):
    def forward(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        given = self.inner(window)
        return given["score"], given["contribution"], given["expected"], given["interval"]


class _OneStep(_One):
    def forward(self, value: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        given, after = self.inner.step(value, before)
        return given[self.key], after


class _DetectorStep(_Detector):
    def forward(self, value: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        given, after = self.inner.step(value, before)
        return given["score"], given["contribution"], given["expected"], given["interval"], after


def make(source: Path, output: Path, windows: NDArray[np.float32] | None = None) -> tuple[Manifest, float]:
    """Writes the twin of `source`; returns its manifest, and the largest difference to TorchScript that was seen.

    windows: float32 [N, T, C] on which they are compared, beside made ones. Raises ModelError for a model that cannot
    be written as ONNX or whose numbers differ; `output` is then as it was.
    """
    opened = bundle.open_bundle(source)
    reference = torchscript.from_bundle(opened)
    compared = comparison(opened, windows)
    with torch.inference_mode(), bundle.quiet():
        module = torch.jit.load(io.BytesIO(opened.archive()), map_location="cpu").eval()
        keys = [key for key in (*PROMISED[opened.manifest.task], "interval") if key in module(_tensor(compared[:2]))]
        graph = export(module, keys, compared[:2], str(source), opened.manifest.state)
        usual = module.state_dict().get("usual")  # of residuals
    manifest = msgspec.structs.replace(opened.manifest, twin_of=opened.sha256, parameters=reference.parameters)
    trial = output.with_name(f".{output.name}.trial{onnx.SUFFIX}")
    try:
        manifest = onnx.write_bundle(graph, manifest, trial)
        worst = difference(reference, onnx.load(trial), compared, None if usual is None else float(usual.min()))
        if not worst <= TOLERANCE:
            raise ModelError(
                str(source), f"its ONNX twin gives numbers that differ by {worst:.2g}, more than {TOLERANCE:g}",
                "run it on TorchScript, and report this",
            )  # fmt: skip
        files.write_with_digest(output, trial.read_bytes())
    finally:
        files.remove_with_digest(trial)
    return manifest, worst


def export(module: Any, keys: list[str], windows: NDArray[np.float32], place: str, state: int = 0) -> bytes:
    """The compiled module as an ONNX model of any batch size, its outputs named and ordered as `keys`; of an
    incremental one, with `state` numbers, its step."""
    ordered: nn.Module
    if state:
        ordered = _OneStep(module, keys[0]) if len(keys) == 1 else _DetectorStep(module)
        inputs, names = onnx.STEP_INPUTS, [*keys, onnx.STATE]
        given = _tensor(windows[:, -1]), torch.zeros(len(windows), state)
    else:
        ordered = _One(module, keys[0]) if len(keys) == 1 else _Detector(module)
        if len(keys) == 4:
            ordered = _DetectorWithInterval(module)
        inputs, names, given = [onnx.INPUT], keys, (_tensor(windows),)
    rows = {name: {0: "B"} for name in (*inputs, *names)}
    buffer = io.BytesIO()
    try:
        with _calm():
            frozen = torch.jit.freeze(torch.jit.script(ordered.eval()))  # which unrolls loops over lists of layers
            torch.onnx.export(
                frozen, given, buffer, dynamo=False, opset_version=OPSET,
                input_names=list(inputs), output_names=names, dynamic_axes=rows,
            )  # fmt: skip
    except ModuleNotFoundError as error:
        raise ModelError(error.name or "onnx", "is not installed", "pip install onnx") from error
    except Exception as error:  # of many kinds, in C++ and in Python
        raise ModelError(
            place, f"cannot be written as ONNX ({first_line(error)})", "run it on TorchScript, or train it again"
        ) from error
    return steady(buffer.getvalue())


def comparison(opened: bundle.Bundle, windows: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """float32 [N, T, C], N >= 2 * LARGEST: made windows, such about the model's own level, and those that are given."""
    m = opened.manifest
    made = probe_windows(LARGEST, m.length, len(m.channels))
    with bundle.quiet():
        state = torch.jit.load(io.BytesIO(opened.archive()), map_location="cpu").state_dict()
    mean, scale = (state.get(f"scaling.{name}") for name in ("mean", "scale"))
    parts = [made, made if mean is None or scale is None else made[::-1] * scale.numpy() + mean.numpy()]
    if windows is not None:
        gaps = windows.copy()  # what is missing in a gap of the readings
        gaps[:, m.length // 3 : m.length // 2] = np.nan
        parts += [windows, gaps]
    return np.concatenate(parts).astype(np.float32)


def difference(
    reference: torchscript.TorchScriptModel, twin: onnx.OnnxModel, windows: NDArray[np.float32],
    size: float | None = None,
) -> float:  # fmt: skip
    """The largest difference over batches of 1 to LARGEST rows, and over all windows; inf where one gives NaN alone.
    size: of residuals, see `export.apart`."""
    wanted = reference.infer(windows)
    worst = _apart(twin.infer(windows), wanted, windows, size)
    for count in range(1, LARGEST + 1):
        begin = (count * 7) % (len(windows) - count + 1)
        part = {key: array[begin : begin + count] for key, array in wanted.items()}
        rows = windows[begin : begin + count]
        worst = max(worst, _apart(twin.infer(rows), part, rows, size))
    return worst


def _apart(
    given: dict[str, NDArray[np.float32]], wanted: dict[str, NDArray[np.float32]], windows: NDArray[np.float32],
    residual: float | None,
) -> float:  # fmt: skip
    if given.keys() != wanted.keys():
        return float("inf")
    size = np.abs(np.nan_to_num(windows.reshape(len(windows), -1), posinf=0, neginf=0)).max(1, keepdims=True)
    worst = 0.0
    for key, array in given.items():
        a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (array, wanted[key]))
        if (np.isfinite(a) != np.isfinite(b)).any():
            return float("inf")
        a, b = np.nan_to_num(a, posinf=0, neginf=0), np.nan_to_num(b, posinf=0, neginf=0)
        if residual is not None and key in ("score", "contribution"):
            a, b = np.sqrt(a) * residual, np.sqrt(b) * residual
        least = np.maximum(1, size) if key in IN_UNITS else 1  # a small expected value may be the rest of large ones
        worst = max(worst, float((np.abs(a - b) / np.maximum(least, np.abs(b).max(1, keepdims=True))).max()))
    return worst


def _tensor(windows: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(windows))


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Hides what the exporter says of itself at each call: that there is a newer one, and that an LSTM's batch may vary
    (its state is made from the batch inside the graph, and all sizes are compared)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", "Exporting a model to ONNX with a batch_size other than 1", UserWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        warnings.filterwarnings("ignore", "no signature found", UserWarning)
        sys.stdout.flush()
        stdout = os.dup(1)
        try:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), 1)  # a graph that fails is printed by torch's C++, pages of it
            yield
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
