"""A model file on TorchScript: float32 windows [B, T, C] come in, the arrays that the task promises go out.

Loads only what bundle.py has verified, and never uses a GPU, gradients or more threads than it was given.
"""

import io
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.core.model import PROMISED, Manifest, Target
from transom.errors import ModelError
from transom.runtimes.bundle import Bundle, open_bundle, quiet

# Kernels for a few rows may add in another order, so that the last digits of a row differ from those in a larger batch:
# 1 and 2 rows always did here, larger sizes with some shapes. `warm` keeps the sizes that agree to the bit. With layers
# of very few outputs (4 classes, say) even the row's place in the batch can matter; then each row runs alone.
BATCH_SIZES = (4, 16, 64, 256)

PROBED = 2  # batches of the largest size on which the sizes are compared
WARM_CALLS = 3  # TorchScript profiles the first two calls of a size and compiles for the third

_NEEDED = {"x86_64": ("avx2", "x86-64 processor with AVX2"), "aarch64": ("asimd", "64-bit ARM processor with NEON")}


def load(
    path: Path, *, sha256: str | None = None, threads: int = 1, batch_sizes: Sequence[int] = BATCH_SIZES
) -> "TorchScriptModel":
    """Verifies the file, loads it for the CPU and runs each batch size until it is fast.

    sha256: see open_bundle. threads: of torch, for the whole process. batch_sizes: ascending, each 2 or more.
    Raises ModelError for a file that is refused or a model that does not give what its task promises.
    """
    return from_bundle(open_bundle(path, sha256), threads=threads, batch_sizes=batch_sizes)


def from_bundle(bundle: Bundle, *, threads: int = 1, batch_sizes: Sequence[int] = BATCH_SIZES) -> "TorchScriptModel":
    torch = import_torch()
    torch.set_num_threads(threads)
    try:
        module, parameters = _frozen(torch, bundle)
    except (RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
        raise ModelError(
            str(bundle.path), f"torch {torch.__version__} cannot load it ({_first_line(error)})",
            f"it was made with torch {bundle.manifest.torch or 'of an unknown version'}: train it again with this one",
        ) from error  # fmt: skip
    model = TorchScriptModel(bundle, module, parameters, tuple(sorted(batch_sizes)))
    model.warm()
    return model


def _frozen(torch: Any, bundle: Bundle) -> tuple[Any, int]:
    """The module as it runs, and how many parameters it had."""
    with quiet():
        module = torch.jit.load(io.BytesIO(bundle.archive()), map_location="cpu")
        parameters = sum(p.numel() for p in module.parameters())
        return torch.jit.freeze(module.eval()), parameters


def import_torch() -> Any:
    """torch, or a ModelError in plain words.

    On a processor that torch was not built for the process ends here and nothing can catch it: see cpu_findings.
    """
    try:
        import torch
    except (ImportError, OSError) as error:
        raise ModelError(
            "torch", f"cannot be imported ({_first_line(error)})",
            "install a build for this machine (64-bit only; see `transom doctor`)",
        ) from error  # fmt: skip
    return torch


def cpu_findings(cpuinfo: str | None = None, machine: str | None = None) -> list[str]:
    """Why torch may end with an illegal instruction here, in sentences; empty when nothing is known against it.

    cpuinfo: the text of /proc/cpuinfo, machine: as platform.machine() names it; default: those of this machine.
    """
    machine = machine or platform.machine()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine)
    if machine not in _NEEDED:
        return [f"torch has no builds for {machine}: a 64-bit system on x86-64 or ARM is needed"]
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        except OSError:
            return []
    flags = {
        word
        for line in cpuinfo.splitlines()
        if line.lower().startswith(("flags", "features"))
        for word in line.partition(":")[2].split()
    }
    flag, name = _NEEDED[machine]
    if flags and flag not in flags:
        return [f"this processor lacks {flag}; torch is built for a {name} and may end with an illegal instruction"]
    return []


class TorchScriptModel:
    """`core.model.Model` on TorchScript. Batches are filled up to a few sizes and cut at the largest.

    parameters: how many numbers were trained. Calls from more than one thread at a time are safe; they wait for none.
    """

    def __init__(self, bundle: Bundle, module: Any, parameters: int, batch_sizes: tuple[int, ...]) -> None:
        if not batch_sizes or batch_sizes[0] < 2:
            raise ModelError(str(bundle.path), f"batch sizes {batch_sizes}", "give one or more, each 2 or more")
        self.bundle, self.parameters, self.batch_sizes = bundle, parameters, batch_sizes
        self._module, self._torch = module, import_torch()
        self._row_shapes = _row_shapes(bundle.manifest)
        self.alone = False  # True when a row's place in a batch changes its bits
        self._second: Any = None  # the module once more, for gradients
        self._loading = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    @property
    def sha256(self) -> str:
        """Digest of the whole file, manifest and calibration too."""
        return self.bundle.sha256

    def warm(self) -> None:
        """Runs each batch size, so that the first real call is quick, and gives up those that change a row's bits."""
        shape = self.manifest.length, len(self.manifest.channels)
        random, largest = np.random.default_rng(0), self.batch_sizes[-1]
        probe = random.normal(size=(PROBED * largest, *shape))
        probe[::2] = probe[::2].cumsum(axis=1)  # noise and walks, small and large
        probe = (probe * random.choice([0.1, 1, 3, 100], (len(probe), 1, 1))).astype(np.float32)
        probe[::7, : shape[0] // 2] = np.nan  # a series that has just begun
        probe[0] = np.nan  # and one of which nothing was heard: it may give NaN, and must not fail
        whole: dict[str, NDArray[np.float32]] = {}
        kept = []
        for size in reversed(self.batch_sizes):
            for _ in range(WARM_CALLS):
                self._run(probe[:size].copy())
            given = self._in_batches(probe, size)
            if not whole:
                whole = given
                moved = self._in_batches(np.roll(probe, 1, axis=0), size)
                self.alone = not _same({key: np.roll(array, -1, axis=0) for key, array in moved.items()}, whole)
            if _same(given, whole):
                kept.append(size)
        self.batch_sizes = (self.batch_sizes[0],) if self.alone else tuple(reversed(kept))

    def _in_batches(self, values: NDArray[np.float32], size: int) -> dict[str, NDArray[np.float32]]:
        parts = [self._run(values[i : i + size].copy()) for i in range(0, len(values), size)]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def infer(self, values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """values: float32 [B, T, C], NaN where missing -> the task's outputs, float32, first axis B.

        The same row gives the same bits in a batch of any size. Raises ModelError for another shape or dtype, and
        when the model fails or does not give what its task promises.
        """
        expected = (self.manifest.length, len(self.manifest.channels))
        if values.ndim != 3 or values.shape[1:] != expected or values.dtype != np.float32:
            raise ModelError(
                self.manifest.label, f"windows of {values.dtype} {list(values.shape)}",
                f"it takes float32 [B, {expected[0]}, {expected[1]}]",
            )  # fmt: skip
        count, largest = len(values), 1 if self.alone else self.batch_sizes[-1]
        parts = [self._padded(values[start : start + largest]) for start in range(0, max(count, 1), largest)]
        if len(parts) == 1:
            return parts[0]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _padded(self, values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        count = len(values)
        size = next(s for s in self.batch_sizes if s >= count)
        batch = np.zeros((size, *values.shape[1:]), np.float32)  # a copy: a model may write into its input
        batch[:count] = values
        return {key: array[:count] for key, array in self._run(batch).items()}

    def _run(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        torch = self._torch
        try:
            with torch.inference_mode():
                given = self._module(torch.from_numpy(batch))
        except Exception as error:  # torch.jit.Error is not always a RuntimeError
            raise ModelError(self._place, f"fails on a batch ({_last_line(error)})", "train it again") from error
        outputs: dict[str, NDArray[np.float32]] = {}
        for key, shape in self._row_shapes.items():
            tensor = given.get(key) if isinstance(given, dict) else None
            if tensor is None:
                if key == "interval":
                    continue
                raise self._broken(f"gives no {key!r}")
            if tuple(tensor.shape) != (len(batch), *shape) or tensor.dtype != torch.float32:
                raise self._broken(f"gives {key!r} as {tensor.dtype} {list(tensor.shape)}", shape)
            outputs[key] = tensor.numpy()
        return outputs

    def gradients(self, values: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
        """values: float32 [B, T, C], NaN where missing -> float32 [B, T, C], d target / d values of each row.

        Runs on a copy of the module: TorchScript compiles anew for inputs that want gradients, and `infer` must neither
        wait for that nor change a bit. Raises ModelError where the model does not give the target or no gradient.
        """
        torch = self._torch
        try:
            with self._loading:
                if self._second is None:
                    self._second, _ = _frozen(torch, self.bundle)
            with torch.enable_grad():
                given = torch.from_numpy(values.copy()).requires_grad_()
                output = self._second(given)[target.key][(slice(None), *target.at)]
                (slope,) = torch.autograd.grad(output.sum(), given)
        except Exception as error:  # torch.jit.Error is not always a RuntimeError
            raise ModelError(
                self._place, f"gives no gradient of {target.name} ({_last_line(error)})", "explain it by occlusion"
            ) from error
        return np.asarray(slope.numpy(), np.float32)

    @property
    def _place(self) -> str:
        return f"{self.bundle.path}, {self.manifest.label}"

    def _broken(self, problem: str, shape: tuple[int, ...] | None = None) -> ModelError:
        task = self.manifest.task
        if shape is None:
            return ModelError(self._place, problem, f"the task {task} promises {', '.join(PROMISED[task])}")
        wanted = ", ".join(["B", *map(str, shape)])
        return ModelError(self._place, problem, f"the task {task} promises float32 [{wanted}]")


def _row_shapes(m: Manifest) -> dict[str, tuple[int, ...]]:
    """The shape of a row of each output; `interval` alone may be left out."""
    channels = len(m.channels)
    shapes: dict[str, tuple[int, ...]] = {
        "forecast": (m.horizon, len(m.targets) or channels, len(m.quantiles)),
        "score": (),
        "contribution": (channels,),
        "expected": (channels,),
        "probability": (len(m.classes),),
    }
    return {key: shapes[key] for key in PROMISED[m.task]} | {"interval": (channels, 2)}


def _same(a: dict[str, NDArray[np.float32]], b: dict[str, NDArray[np.float32]]) -> bool:
    return all(np.array_equal(a[key], b[key], equal_nan=True) for key in a)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _last_line(error: Exception) -> str:
    """TorchScript puts its own traceback first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
