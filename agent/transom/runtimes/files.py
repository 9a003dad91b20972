"""Model files on disk: a path comes in, verified bytes go out; bytes become a file, whole or not at all.

Knows the names of shipped models and the lists of digests, and nothing of what stands in a file.
"""

import contextlib
import difflib
import hashlib
import importlib.util
import os
import re
import stat
import tempfile
from pathlib import Path

from transom.errors import ModelError

MAX_SIZE = 256 << 20  # bytes of a model file
SUFFIX = ".pt"

AGAIN = "copy the file again from where it was made, or train it again"
FOREIGN = "a model file is what `transom train` writes"

CHECKSUMS = "SHA256SUMS"  # of a folder of models, as sha256sum writes it


def shipped_models() -> dict[str, Path]:
    """The models that are installed with Transom: name -> file. Finds the package without importing it."""
    spec = importlib.util.find_spec("transom_models")
    folders = spec.submodule_search_locations if spec else None
    files = [f for folder in folders or () for f in sorted((Path(folder) / "pretrained").glob(f"*{SUFFIX}"))]
    return {f.stem: f for f in files}


def find_model(name: str, base: Path) -> Path:
    """The file of a shipped model's name, or a path (relative to `base`). Raises ModelError when there is neither."""
    shipped = shipped_models()
    if name in shipped:
        return shipped[name]
    file = base / Path(name).expanduser()
    if name and file.exists():
        return file
    if "/" in name or Path(name).suffix:
        raise ModelError(str(file), "there is no such model file", "see `transom train --help` for how to make one")
    close = difflib.get_close_matches(name.lower(), shipped, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    known = f"shipped: {', '.join(shipped)}" if shipped else "none are shipped with this installation"
    raise ModelError(
        "model", f"there is no model {name!r}", f"{meant}{known}; or name a file such as {name or 'my'}.pt"
    )


def read_verified(path: Path, sha256: str | None = None) -> tuple[bytes, str]:
    """The file's bytes, read once, and their SHA-256 as hex.

    sha256: the digest that the file must have; else the one in `<file>.sha256` or in the folder's SHA256SUMS counts,
    where there is one. Raises ModelError for a file that is not there, is too large, or has another digest.
    """
    data = _read(path)
    digest = hashlib.sha256(data).hexdigest()
    _verify_pins(path, digest, sha256)
    return data, digest


def write_with_digest(path: Path, data: bytes) -> str:
    """Writes the file, and `<file>.sha256` beside it; returns the digest. Raises OSError when the disk does."""
    digest, sidecar = hashlib.sha256(data).hexdigest(), _sidecar(path)
    sidecar.unlink(missing_ok=True)  # first, so that no moment has a new file beside an old digest
    write_whole(path, data)
    write_whole(sidecar, f"{digest}  {path.name}\n".encode())
    return digest


def remove_with_digest(path: Path) -> None:
    """Removes a model file and the digest beside it, where they are."""
    path.unlink(missing_ok=True)
    _sidecar(path).unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        # Not waiting: a named pipe would hold the agent at its start for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                raise ModelError(str(path), f"{kind}, not a model file", FOREIGN)
            data = file.read(MAX_SIZE + 1) if status.st_size <= MAX_SIZE else b""
            if (not data and status.st_size) or len(data) > MAX_SIZE:
                raise ModelError(
                    str(path), f"the file has {status.st_size:,} bytes", f"model files have at most {MAX_SIZE:,}"
                )
            return data
    except FileNotFoundError as error:
        raise ModelError(str(path), "there is no such file", "name a model file or a shipped model") from error
    except IsADirectoryError as error:
        raise ModelError(str(path), "a folder, not a model file", FOREIGN) from error
    except OSError as error:
        raise ModelError(str(path), f"cannot be read ({error.strerror})", "check its owner and permissions") from error


def _verify_pins(path: Path, digest: str, sha256: str | None) -> None:
    pins = [("model_sha256", sha256.strip().lower())] if sha256 is not None else _listed(path)
    for source, pin in pins:
        if pin != digest:
            raise ModelError(
                str(path),
                f"the file's SHA-256 is {digest[:12]}… and {source} says {pin[:12] or 'nothing'}…",
                "the file was changed or damaged: copy it again, or correct the digest if the change was meant",
            )


def _listed(path: Path) -> list[tuple[str, str]]:
    """Digests of this file in the lists beside it, with the list's name."""
    found = []
    for listing in (_sidecar(path), path.with_name(CHECKSUMS)):
        try:
            lines = listing.read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ModelError(
                str(listing), f"cannot be read ({error.strerror})", "make it readable or remove it"
            ) from error
        entries = [m for m in (re.fullmatch(r"([0-9a-fA-F]{64})(?: [ *](.+))?", line.strip()) for line in lines) if m]
        own = [m[1].lower() for m in entries if listing.name != CHECKSUMS or Path(m[2] or "").name == path.name]
        if not own and listing.name != CHECKSUMS:
            raise ModelError(str(listing), "holds no SHA-256 digest", f"write it with: sha256sum {path.name}")
        found += [(listing.name, digest) for digest in own]
    return found


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def write_whole(path: Path, data: bytes) -> None:
    """Whole or not at all, also when the power fails. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp made it private, and the agent runs as another user than the one who trains
        os.replace(name, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
