"""Who vouches for a model file: the file, its signature and the trusted keys in; a Voucher, or a ModelError, out.

Only the signer's authority is decided here; what the file holds is for bundle.py, onnx.py and their scans. torch is not
imported.
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from transom.errors import ModelError
from transom.runtimes import files, minisign
from transom.runtimes.minisign import PublicKey, Signature, SignatureError

SUFFIX = ".minisig"  # as minisign names them
MAX_SIGNATURE = 16 << 10  # bytes of such a file

Kind = Literal["shipped", "signed", "pinned", "unsigned"]


class Policy(NamedTuple):
    """keys: those whose signature is enough; allow_unsigned: files run that nobody vouches for."""

    keys: tuple[PublicKey, ...] = ()
    allow_unsigned: bool = False

    @classmethod
    def of(cls, keys: Iterable[str], *, allow_unsigned: bool = False) -> "Policy":
        """keys: as `models.trusted_keys` holds them. Raises SignatureError."""
        return cls(tuple(minisign.read_public(key, "models.trusted_keys") for key in keys), allow_unsigned)


class Voucher(NamedTuple):
    """kind: why the file may run; sha256: of the bytes that were judged, so that no others are loaded; key: the name of
    the key that signed; comment: what the signer said."""

    kind: Kind
    sha256: str
    key: str = ""
    comment: str = ""

    def __str__(self) -> str:
        if self.kind == "signed":
            return f"signed by {self.key}"
        return {"shipped": "shipped", "pinned": "pinned by model_sha256", "unsigned": "UNSIGNED"}[self.kind]


def vouch(path: Path, sha256: str | None, policy: Policy) -> Voucher:
    """sha256: the digest that the configuration names, which vouches for a file as a key does.

    Raises ModelError for a file for which nobody vouches, unless the policy allows that, and, whatever the policy, for
    one that a signature beside it does not fit.
    """
    data, digest = files.read_verified(path, sha256)
    if digest in shipped_digests():
        return Voucher("shipped", digest)
    signature = signature_of(path)
    if signature is not None:
        key = next((k for k in policy.keys if k.id == signature.key_id), None)
        if key is not None:
            try:
                minisign.verify(data, signature, key, str(path))
            except SignatureError as error:
                raise ModelError(error.place, error.problem, error.remedy) from error
            return Voucher("signed", digest, key.name, signature.comment)
    if sha256 is not None:
        return Voucher("pinned", digest)
    if policy.allow_unsigned:
        return Voucher("unsigned", digest)
    if signature is not None:
        raise ModelError(
            str(path), f"is signed with the key {signature.key_name}, which is not among models.trusted_keys",
            "add that key if you trust its owner, or have the file signed by one that is",
        )  # fmt: skip
    how = f"transom sign {path}" if policy.keys else f"transom keygen, transom sign {path}, and the key it shows there"
    raise ModelError(
        str(path), "is not signed by a key of models.trusted_keys",
        f"sign it: {how}; or name its digest as model_sha256; or set models.allow_unsigned = true",
    )  # fmt: skip


def signature_of(path: Path) -> Signature | None:
    """The signature in `<file>.minisig`; None where there is none. Raises ModelError for one that cannot be read."""
    beside = signature_path(path)
    try:
        with beside.open("rb") as file:
            data = file.read(MAX_SIGNATURE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(str(beside), f"cannot be read ({error.strerror})", "make it readable or remove it") from error
    try:
        return minisign.read_signature(data[:MAX_SIGNATURE].decode(), str(beside))
    except UnicodeDecodeError:
        raise ModelError(str(beside), "is no text, so no signature", "sign the file again: transom sign") from None
    except SignatureError as error:
        raise ModelError(error.place, error.problem, error.remedy) from error


def signature_path(path: Path) -> Path:
    return path.with_name(f"{path.name}{SUFFIX}")


@functools.cache
def shipped_digests() -> frozenset[str]:
    """SHA-256 of the models that are installed with Transom, as the package itself lists them."""
    folders = {file.parent for file in files.shipped_models().values()}
    lists = [folder / files.CHECKSUMS for folder in folders]
    return frozenset(
        line.split()[0].lower() for file in lists if file.exists() for line in file.read_text().splitlines() if line
    )
