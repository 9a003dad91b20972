"""A model file on TorchScript: float32 windows [B, T, C] come in, the arrays that the task promises go out.

Loads only what bundle.py has verified, and never uses a GPU, gradients or more threads than it was given.
"""

import io
import platform
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.core.model import Target
from transom.errors import ModelError
from transom.runtimes.batches import BATCH_SIZES, Array, BatchedModel, first_line, last_line
from transom.runtimes.bundle import Bundle, open_bundle, quiet

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
            str(bundle.path), f"torch {torch.__version__} cannot load it ({first_line(error)})",
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
        return torch.jit.freeze(module.eval(), ["step"] if bundle.manifest.state else None), parameters


def import_torch() -> Any:
    """torch, or a ModelError in plain words.

    On a processor that torch was not built for the process ends here and nothing can catch it: see cpu_findings.
    """
    try:
        import torch
    except (ImportError, OSError) as error:
        raise ModelError(
            "torch", f"cannot be imported ({first_line(error)})",
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


class TorchScriptModel(BatchedModel):
    """`core.model.Model` on TorchScript.

    parameters: how many numbers were trained. Calls from more than one thread at a time are safe; they wait for none.
    """

    warm_calls = WARM_CALLS

    def __init__(self, bundle: Bundle, module: Any, parameters: int, batch_sizes: tuple[int, ...]) -> None:
        super().__init__(bundle.manifest, str(bundle.path), batch_sizes)
        self.bundle, self.parameters = bundle, parameters
        self._module, self._torch = module, import_torch()
        self._second: Any = None  # the module once more, for gradients
        self._loading = threading.Lock()

    @property
    def sha256(self) -> str:
        """Digest of the whole file, manifest and calibration too."""
        return self.bundle.sha256

    def _call(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.generic]]:
        torch = self._torch
        try:
            with torch.inference_mode():
                given = self._module(torch.from_numpy(batch))
            return {key: tensor.numpy() for key, tensor in given.items()} if isinstance(given, dict) else {}
        except Exception as error:  # torch.jit.Error is not always a RuntimeError
            raise ModelError(self._place, f"fails on a batch ({last_line(error)})", "train it again") from error

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
                self._place, f"gives no gradient of {target.name} ({last_line(error)})", "explain it by occlusion"
            ) from error
        return np.asarray(slope.numpy(), np.float32)

    def _call_step(self, values: Array, state: Array) -> tuple[Mapping[str, NDArray[np.generic]], NDArray[np.generic]]:
        torch = self._torch
        try:
            with torch.inference_mode():
                given, after = self._module.step(torch.from_numpy(values), torch.from_numpy(state))
            return {key: tensor.numpy() for key, tensor in given.items()}, after.numpy()
        except Exception as error:  # torch.jit.Error is not always a RuntimeError
            raise ModelError(self._place, f"fails on a step ({last_line(error)})", "train it again") from error
