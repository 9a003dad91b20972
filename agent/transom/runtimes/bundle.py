"""The model file: a path comes in, verified members and a manifest go out; a compiled module becomes such a file.

Reading never imports torch and never runs what it reads.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from transom.core.model import Manifest, encode_manifest
from transom.errors import ModelError
from transom.runtimes import archive, files, scan
from transom.runtimes import manifest as manifests
from transom.runtimes.archive import MANIFEST, content_sha256
from transom.runtimes.files import AGAIN, FOREIGN, MAX_SIZE, find_model, shipped_models

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_SIZE", "Bundle", "find_model", "open_bundle", "quiet", "shipped_models", "write_bundle"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified model file. size: its bytes; sha256: its digest, hex; members: name in the archive -> bytes."""

    path: Path
    manifest: Manifest
    size: int
    sha256: str
    members: Mapping[str, bytes] = field(repr=False)

    def archive(self) -> bytes:
        """The verified members packed anew for torch, so that it reads what was scanned whatever the file's layout."""
        return archive.pack(self.members)


def open_bundle(path: Path, sha256: str | None = None) -> Bundle:
    """Reads the file once and verifies what was read: digests first, then archive, manifest, code and pickles.

    sha256: the digest that the file must have; else the one in `<file>.sha256` or in the folder's SHA256SUMS counts,
    where there is one. Raises ModelError that names what is wrong. torch is not imported.
    """
    place = str(path)
    data, digest = files.read_verified(path, sha256)
    members = archive.unpack(data, place)
    if MANIFEST not in members:
        raise ModelError(place, "a TorchScript file without a manifest", FOREIGN)
    manifest = manifests.read(members[MANIFEST], place)
    archive.refuse_unknown(members, place)
    content = content_sha256(members)
    if content != manifest.content_sha256:
        said = manifest.content_sha256[:12] or "nothing"
        raise ModelError(place, f"the content has the digest {content[:12]}… and the manifest says {said}…", AGAIN)
    scan.scan(members, place)
    return Bundle(path, manifest, len(data), digest, members)


def write_bundle(module: "torch.jit.ScriptModule", manifest: Manifest, path: Path) -> Manifest:
    """Writes the compiled module with its manifest as one file, and `<file>.sha256` beside it; returns the manifest.

    The returned manifest has its `content_sha256`, which is the same for each save of the same module. The file is
    first written beside its place and verified as `open_bundle` would; an older file stays until it is replaced whole.
    Raises ModelError for a module or manifest that `open_bundle` would refuse, OSError when the disk does.
    """
    import torch

    buffer = io.BytesIO()
    with quiet():
        torch.jit.save(module, buffer)
    members = archive.keep(archive.unpack(buffer.getvalue(), str(path)))
    manifest = msgspec.structs.replace(
        manifest, content_sha256=content_sha256(members), torch=manifest.torch or str(torch.__version__)
    )
    members[MANIFEST] = encode_manifest(manifest)
    manifests.read(members[MANIFEST], str(path))
    archive.refuse_unknown(members, str(path))
    scan.scan(members, str(path))
    files.write_with_digest(path, archive.pack(members))
    return manifest


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides that torch announces the end of TorchScript with each call; Python 3.13 still runs it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
        yield
