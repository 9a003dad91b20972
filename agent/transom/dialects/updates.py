"""Models over MQTT: what announces one, what asks for its pieces, how it goes; topics, and bytes to values and back.

An `Offer` is retained and small. The file goes in chunks, each on a topic of its own, and only those that somebody has
asked for (`Want`). Opens no file, knows no broker and no key.

    transom/<agent>/update/offer/<stream>            Offer, QoS 1, retained; empty: withdrawn
    transom/<agent>/update/chunk/<sha256>/<number>   the bytes, QoS 0
    transom/<agent>/update/want                      Want, from the agent, QoS 0
    transom/<agent>/update/progress                  Progress, from the agent, QoS 0, its last one QoS 1
    transom/group/<group>/update/offer, …/chunk      for every agent of a group
"""

import base64
import binascii
import hashlib
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from transom.dialects.plain import Publication
from transom.errors import TransomError

LARGEST_OFFER = 64 << 10  # bytes of its message
LARGEST_WANT = 1024
CHUNK_SIZES = (32 << 10, 64 << 10, 128 << 10)  # bytes; brokers in clouds take 128 KiB a message
MOST_CHUNKS = 1024
DIGEST = 32  # bytes of SHA-256

_HEX64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
_HEX128 = Annotated[str, Meta(pattern=r"^[0-9a-f]{128}$")]
_ID = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")
_FINAL = frozenset(("offered", "refused"))

State = Literal["downloading", "waiting", "verifying", "offered", "refused"]


class UpdateError(TransomError):
    """A message about an update that is no such message."""


class Offer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """push: of one call of the sender, told back with the progress. suffix: what the file's name ends in. sha256,
    blake2b: of the whole file, the second is what the signature is over. chunk: bytes of each but the last; hashes:
    their SHA-256 in order, joined, in base64; signature: the text of the .minisig file. sent: for people."""

    push: _ID
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    version: Annotated[str, Meta(min_length=1, max_length=128)]
    suffix: Literal[".pt", ".onnx"]
    sha256: _HEX64
    blake2b: _HEX128
    size: Annotated[int, Meta(gt=0, le=MOST_CHUNKS * CHUNK_SIZES[-1])]
    chunk: Annotated[int, Meta(ge=256, le=CHUNK_SIZES[-1])]
    hashes: Annotated[str, Meta(max_length=4 * MOST_CHUNKS * DIGEST // 3 + 4)]
    signature: Annotated[str, Meta(max_length=16 << 10)]
    sent: Annotated[str, Meta(max_length=40)] = ""

    @property
    def chunks(self) -> int:
        """How many there are."""
        return -(-self.size // self.chunk)

    def length(self, number: int) -> int:
        """Bytes of a chunk."""
        return min(self.chunk, self.size - number * self.chunk)


class Want(Struct, frozen=True, kw_only=True):
    """Chunks that an agent asks for."""

    sha256: _HEX64
    chunks: Annotated[list[Annotated[int, Meta(ge=0, lt=MOST_CHUNKS)]], Meta(max_length=64)]


class Progress(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How far an update is. origin: mqtt, folder or https; push: of the offer, if one began it; reason: why it was
    refused, or what it waits for."""

    stream: str
    sha256: str
    state: State
    received: int = 0
    chunks: int = 0
    origin: str = "mqtt"
    push: str = ""
    reason: str = ""

    @property
    def final(self) -> bool:
        return self.state in _FINAL


# --- topics ---------------------------------------------------------------------------------------------------------


def group_base(group: str) -> str:
    """What stands for an agent's base in the topics of a group."""
    return f"transom/group/{group}"


def filters(base: str) -> list[str]:
    """What an agent subscribes to."""
    return [f"{base}/update/offer/+", f"{base}/update/chunk/#"]


def offer_topic(base: str, stream: str) -> str:
    return f"{base}/update/offer/{stream}"


def chunk_topic(base: str, sha256: str, number: int) -> str:
    return f"{base}/update/chunk/{sha256}/{number}"


def want_topic(base: str) -> str:
    return f"{base}/update/want"


def progress_topic(base: str) -> str:
    return f"{base}/update/progress"


def chunk_number(rest: str, sha256: str) -> int | None:
    """The number in what follows `chunk/` in a topic; None for another file's, or none."""
    digest, _, number = rest.partition("/")
    return int(number) if digest == sha256 and _NUMBER.fullmatch(number) else None


# --- messages -------------------------------------------------------------------------------------------------------

_offers, _wants = msgspec.json.Decoder(Offer), msgspec.json.Decoder(Want)
_progress = msgspec.json.Decoder(Progress)


def make_offer(
    data: bytes, signature: str, name: str, version: str, suffix: str, push: str, sent: str, chunk: int
) -> Offer:
    """Raises UpdateError for a file that is too large for it."""
    if not data or len(data) > MOST_CHUNKS * chunk:
        raise UpdateError(
            name, f"{len(data):,} bytes do not go into {MOST_CHUNKS:,} chunks of {chunk:,}", "send a smaller model"
        )
    digests = b"".join(hashlib.sha256(data[at : at + chunk]).digest() for at in range(0, len(data), chunk))
    body = {
        "push": push, "name": name, "version": version, "suffix": suffix, "sha256": hashlib.sha256(data).hexdigest(),
        "blake2b": hashlib.blake2b(data).hexdigest(), "size": len(data), "chunk": chunk,
        "hashes": base64.b64encode(digests).decode(), "signature": signature, "sent": sent,
    }  # fmt: skip
    return msgspec.convert(body, Offer)


def chunk_size(size: int) -> int:
    """The smallest in which a file of `size` bytes goes: small chunks keep others waiting less."""
    return next((c for c in CHUNK_SIZES if size <= MOST_CHUNKS * c), CHUNK_SIZES[-1])


def encode(message: Offer | Want | Progress) -> bytes:
    return msgspec.json.encode(message)


def decode_offer(payload: bytes) -> Offer:
    """Raises UpdateError for what is no offer, or one that contradicts itself."""
    if len(payload) > LARGEST_OFFER:
        raise UpdateError("offer", f"{len(payload):,} bytes", f"at most {LARGEST_OFFER:,}")
    try:
        offer = _offers.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpdateError("offer", f"is none ({str(error)[:200]})", "send it with transom push") from None
    hashes(offer)
    return offer


def hashes(offer: Offer) -> list[bytes]:
    """SHA-256 of each chunk. Raises UpdateError unless there is one for each."""
    try:
        joined = base64.b64decode(offer.hashes, validate=True)
    except (binascii.Error, ValueError):
        joined = b""
    if offer.chunks > MOST_CHUNKS or len(joined) != DIGEST * offer.chunks:
        raise UpdateError(
            "offer", f"{offer.size:,} bytes in chunks of {offer.chunk:,} and {len(joined):,} bytes of digests",
            "send it with transom push",
        )  # fmt: skip
    return [joined[at : at + DIGEST] for at in range(0, len(joined), DIGEST)]


def decode_want(payload: bytes) -> Want | None:
    """None for what is no such message."""
    try:
        return _wants.decode(payload) if len(payload) <= LARGEST_WANT else None
    except (msgspec.DecodeError, RecursionError):
        return None


def decode_progress(payload: bytes) -> Progress | None:
    """None for what is no such message."""
    try:
        return _progress.decode(payload) if len(payload) <= LARGEST_OFFER else None
    except (msgspec.DecodeError, RecursionError):
        return None


def progress(base: str, told: Progress) -> Publication:
    return Publication(progress_topic(base), encode(told), 1 if told.final else 0, False)


def want(base: str, sha256: str, chunks: list[int]) -> Publication:
    return Publication(want_topic(base), encode(Want(sha256=sha256, chunks=chunks)), 0, False)
