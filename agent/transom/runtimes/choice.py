"""Which file of a model runs, and on what: a model's name and the wanted runtime come in, a verified file or a loaded
model goes out.

A file that ends in .onnx runs on ONNX Runtime, any other on TorchScript. A model has both where its twin stands beside
it: `pump.pt` and `pump.onnx`.
"""

import contextlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from transom.errors import ModelError
from transom.runtimes import files, onnx

if TYPE_CHECKING:
    from transom.runtimes import bundle, torchscript

Runtime = Literal["auto", "torchscript", "onnx"]
Opened: TypeAlias = "bundle.Bundle | onnx.OnnxBundle"
Loaded: TypeAlias = "torchscript.TorchScriptModel | onnx.OnnxModel"


def find(name: str, base: Path, runtime: Runtime = "auto") -> Path:
    """The file that runs for a shipped model's name, or a path (relative to `base`).

    `auto`: the file that is named, or its twin where that needs torch and torch is not installed. Raises ModelError
    where there is no such file or it does not run on the wanted runtime.
    """
    file = files.find_model(name, base)
    if file.suffix == onnx.SUFFIX:
        if runtime == "torchscript":
            raise ModelError(
                str(file), 'runs on ONNX Runtime, and agent.runtime is "torchscript"', 'name the .pt, or set "auto"'
            )
        return file
    torch = torch_is_installed()
    if runtime == "torchscript" or (runtime == "auto" and torch):
        return file
    twin = file.with_suffix(onnx.SUFFIX)
    if twin.exists():
        return twin
    why = 'agent.runtime is "onnx"' if runtime == "onnx" else "torch is not installed"
    raise ModelError(
        str(file), f"{why}, and there is no {twin.name} beside it",
        f"write it{'' if torch else ' where torch is'}: transom convert {file.name} --output {twin.name}",
    )  # fmt: skip


def open_model(name: str, base: Path, runtime: Runtime = "auto", sha256: str | None = None) -> Opened:
    """The file of `find`, verified; nothing is run. sha256: of the file that runs. Raises ModelError, also for a twin
    that was made from another file than the one that is named."""
    file = find(name, base, runtime)
    opened = open_file(file, sha256)
    named = files.find_model(name, base)
    if isinstance(opened, onnx.OnnxBundle) and named != file:
        _, digest = files.read_verified(named)
        if opened.manifest.twin_of != digest:
            raise ModelError(
                str(file), f"was made from another {named.name} than the one beside it",
                f"make it again: transom convert {named.name} --output {file.name}",
            )  # fmt: skip
    return opened


def open_file(file: Path, sha256: str | None = None) -> Opened:
    """This very file, verified; nothing is run. Raises ModelError."""
    if file.suffix == onnx.SUFFIX:
        return onnx.open_bundle(file, sha256)
    from transom.runtimes import bundle  # here, because an agent without torch needs none of it

    return bundle.open_bundle(file, sha256)


def import_for(file: Path) -> None:
    """Imports what runs such a file, which takes a second or more. Where that fails, loading the file says so."""
    with contextlib.suppress(ModelError):
        if file.suffix == onnx.SUFFIX:
            onnx.import_onnxruntime()
            return
        from transom.runtimes import torchscript

        torchscript.import_torch()


def from_opened(opened: Opened, *, threads: int = 1) -> Loaded:
    """Loads what was verified. Raises ModelError."""
    if isinstance(opened, onnx.OnnxBundle):
        return onnx.from_bundle(opened, threads=threads)
    from transom.runtimes import torchscript

    return torchscript.from_bundle(opened, threads=threads)


def load(name: str, base: Path, runtime: Runtime = "auto", *, sha256: str | None = None, threads: int = 1) -> Loaded:
    """Finds, verifies, loads and warms. Raises ModelError."""
    return from_opened(open_model(name, base, runtime, sha256), threads=threads)


def need_torch(verb: str) -> None:
    """Raises ModelError where it is not installed."""
    if not torch_is_installed():
        raise ModelError(
            f"transom {verb}", "needs torch, which is not installed here", "run it where the whole of Transom is"
        )


def torch_is_installed() -> bool:
    """Looked for and not imported."""
    return importlib.util.find_spec("torch") is not None
