"""Keys and signatures in minisign's format: bytes and a key in, a signature's text out, and back.

The signature is Ed25519 over the BLAKE2b-512 digest of the whole file, manifest and calibration included; a second one
covers the trusted comment (jedisct1.github.io/minisign, "Signature format"). Opens no file.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from transom.errors import TransomError

PUBLIC = re.compile(r"RW[Q-T][A-Za-z0-9+/]{53}")  # base64 of "Ed", 8 bytes of key id, 32 bytes of key

_PLAIN, _HASHED, _SCRYPT, _BLAKE = b"Ed", b"ED", b"Sc", b"B2"
_OPS, _MEMORY = 1 << 22, 128 << 20  # of scrypt for our own keys: N = 2^17, r = 8, p = 1
_MOST_MEMORY = 1 << 30  # what minisign itself writes; a key file must not ask for more
_LINE = 8192


class SignatureError(TransomError):
    """A key or a signature that is damaged, foreign or does not fit."""


class PublicKey(NamedTuple):
    """id: 8 bytes, by which signatures name their key; key: 32 bytes of Ed25519."""

    id: bytes
    key: bytes

    @property
    def name(self) -> str:
        """The id as minisign shows it: 16 hexadecimal digits."""
        return self.id[::-1].hex().upper()

    @property
    def text(self) -> str:
        """One line of base64: what `models.trusted_keys` holds."""
        return base64.b64encode(_PLAIN + self.id + self.key).decode()


@dataclass(frozen=True, slots=True)
class SecretKey:
    """id: 8 bytes; seed: 32 bytes of Ed25519."""

    id: bytes
    seed: bytes = b""

    def __repr__(self) -> str:
        return f"SecretKey({self.id.hex()})"

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.id, _private(self.seed).public_key().public_bytes_raw())


class Signature(NamedTuple):
    """key_id: whose; signature, whole: 64 bytes each, over the digest, and over that and the comment."""

    key_id: bytes
    signature: bytes
    comment: str
    whole: bytes

    @property
    def key_name(self) -> str:
        return PublicKey(self.key_id, b"").name


def generate() -> SecretKey:
    return SecretKey(os.urandom(8), os.urandom(32))


def sign(data: bytes, key: SecretKey, comment: str) -> str:
    """The signature's file. comment: one line of printable text, which is signed with it."""
    if not comment.isprintable() or len(comment.encode()) > _LINE - 100:
        raise SignatureError("comment", "is not one line of printable text", "shorten it")
    private = _private(key.seed)
    signature = private.sign(hashlib.blake2b(data).digest())
    whole = private.sign(signature + comment.encode())
    return (
        f"untrusted comment: signature of a Transom model, key {key.public.name}\n"
        f"{base64.b64encode(_HASHED + key.id + signature).decode()}\n"
        f"trusted comment: {comment}\n"
        f"{base64.b64encode(whole).decode()}\n"
    )


def verify(data: bytes, signature: Signature, key: PublicKey, place: str) -> None:
    """Raises SignatureError (at `place`) unless `key` signed these bytes and this comment."""
    verify_digest(hashlib.blake2b(data).digest(), signature, key, place)


def verify_digest(digest: bytes, signature: Signature, key: PublicKey, place: str) -> None:
    """The same for a file of which only the BLAKE2b-512 digest (64 bytes) is known yet."""
    from cryptography.exceptions import InvalidSignature

    if key.id != signature.key_id:
        raise SignatureError(
            place, f"was signed with the key {signature.key_name}, not {key.name}", "use the other key"
        )
    public = _backend().Ed25519PublicKey.from_public_bytes(key.key)
    try:
        public.verify(signature.signature, digest)
    except InvalidSignature as error:
        raise SignatureError(
            place, f"the signature of the key {key.name} is not of this file: one of them was changed or damaged",
            "copy both again from where they were made, or sign it again: transom sign",
        ) from error  # fmt: skip
    try:
        public.verify(signature.whole, signature.signature + signature.comment.encode())
    except InvalidSignature as error:
        raise SignatureError(
            place, "the trusted comment of the signature was changed", "copy it again from where it was made"
        ) from error


# --- text ----------------------------------------------------------------------------------------------------------


def read_signature(text: str, place: str) -> Signature:
    """Raises SignatureError for what is no signature of the hashed kind."""
    lines = _lines(text, 4, place, "a signature")
    raw, whole = _decoded(lines[1], 74, place, "a signature"), _decoded(lines[3], 64, place, "a signature")
    prefix = "trusted comment: "
    if not lines[2].startswith(prefix) or not lines[2].replace("\t", " ").isprintable():
        raise SignatureError(place, "the third line is no trusted comment", "sign the file again: transom sign")
    if raw[:2] == _PLAIN:
        raise SignatureError(
            place, "is a signature of minisign's old kind, over the file itself", "sign it again: transom sign"
        )
    if raw[:2] != _HASHED:
        raise SignatureError(place, "is no signature that is known here", "sign the file again: transom sign")
    return Signature(raw[2:10], raw[10:], lines[2].removeprefix(prefix), whole)


def read_public(text: str, place: str) -> PublicKey:
    """A public key's one line, or the file of two in which it stands."""
    stripped = text.strip()
    line = stripped if "\n" not in stripped else _lines(text, 2, place, "a public key")[1]
    raw = _decoded(line, 42, place, "a public key") if PUBLIC.fullmatch(line) else b""
    if raw[:2] != _PLAIN:
        raise SignatureError(
            place, "is no public key", "it is one line that begins with RW, as transom keygen shows it"
        )
    return PublicKey(raw[2:10], raw[10:])


def write_public(key: PublicKey) -> str:
    return f"untrusted comment: minisign public key {key.name}\n{key.text}\n"


def write_secret(key: SecretKey, password: str) -> str:
    """The key's file, encrypted unless the password is empty."""
    pair = key.seed + key.public.key
    checksum = hashlib.blake2b(_PLAIN + key.id + pair, digest_size=32).digest()
    body = key.id + pair + checksum
    salt = os.urandom(32) if password else bytes(32)
    ops, memory = (_OPS, _MEMORY) if password else (0, 0)
    if password:
        body = _mixed(body, _stretched(password, salt, ops, memory))
    head = _PLAIN + (_SCRYPT if password else b"\0\0") + _BLAKE + salt
    raw = head + ops.to_bytes(8, "little") + memory.to_bytes(8, "little") + body
    kind = "encrypted secret key" if password else "secret key"
    return f"untrusted comment: minisign {kind}\n{base64.b64encode(raw).decode()}\n"


def encrypted(text: str, place: str) -> bool:
    return _secret_bytes(text, place)[2:4] == _SCRYPT


def read_secret(text: str, password: str, place: str) -> SecretKey:
    """Raises SignatureError for another file and for a wrong password. password: "" for a key that has none."""
    raw = _secret_bytes(text, place)
    salt, ops, memory, body = (
        raw[6:38],
        int.from_bytes(raw[38:46], "little"),
        int.from_bytes(raw[46:54], "little"),
        raw[54:],
    )
    if raw[2:4] == _SCRYPT:
        if memory > _MOST_MEMORY or ops > 1 << 26:
            raise SignatureError(place, f"asks for {memory:,} bytes of memory to be opened", "make another key")
        body = _mixed(body, _stretched(password, salt, ops, memory))
    key, pair, checksum = body[:8], body[8:72], body[72:]
    plain = raw[2:4] != _SCRYPT
    right = hmac.compare_digest(hashlib.blake2b(_PLAIN + key + pair, digest_size=32).digest(), checksum)
    if not right and not (plain and not any(checksum)):  # minisign leaves it out of a key without password
        what = "the key is damaged" if plain else "the password is wrong"
        raise SignatureError(place, what, "try again, or make another key: transom keygen")
    secret = SecretKey(key, pair[:32])
    if secret.public.key != pair[32:]:
        raise SignatureError(place, "the key is damaged: its halves do not fit", "make another key: transom keygen")
    return secret


def _secret_bytes(text: str, place: str) -> bytes:
    raw = _decoded(_lines(text, 2, place, "a secret key")[1], 158, place, "a secret key")
    if raw[:2] != _PLAIN or raw[4:6] != _BLAKE or raw[2:4] not in (_SCRYPT, b"\0\0"):
        raise SignatureError(place, "is no secret key that is known here", "make one: transom keygen")
    return raw


def _lines(text: str, count: int, place: str, what: str) -> list[str]:
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    if len(lines) != count or not lines[0].startswith("untrusted comment: ") or any(len(x) > _LINE for x in lines):
        raise SignatureError(place, f"is not {what} as transom and minisign write it", "copy it again")
    return lines


def _decoded(line: str, size: int, place: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != size:
        raise SignatureError(place, f"is not {what} as transom and minisign write it", "copy it again")
    return raw


def _mixed(body: bytes, stream: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(body, stream, strict=True))


def _stretched(password: str, salt: bytes, ops: int, memory: int) -> bytes:
    """scrypt with the parameters that libsodium takes from `ops` and `memory` (pwhash_scryptsalsa208sha256)."""
    ops, r = max(ops, 32768), 8
    small = ops < memory // 32
    most = ops // (r * 4) if small else memory // (r * 128)
    log2 = next(n for n in range(1, 64) if (1 << n) > most // 2)
    p = 1 if small else max(1, min(ops // 4 >> log2, 0x3FFFFFFF) // r)
    n = 1 << log2
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=128 * r * (n + p) + (64 << 20), dklen=104)


def _private(seed: bytes) -> Any:
    return _backend().Ed25519PrivateKey.from_private_bytes(seed)


def _backend() -> Any:
    """Loaded when a key is used: an agent that trusts none does without."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise SignatureError("cryptography", f"cannot be imported ({error})", "pip install cryptography") from error
    return ed25519
