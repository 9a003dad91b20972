"""Whether an offer is worth a download: an offer and the terms in; nothing, or a ModelError, out. Downloads nothing.

The signature is over the file's BLAKE2b digest, which the offer names: so a trusted key must have signed that digest
before a single chunk is asked for, and the file must have it in the end.
"""

import re

from transom.core.model import Manifest
from transom.dialects.updates import Offer
from transom.edge.arrival.desk import Desk
from transom.errors import ModelError
from transom.runtimes import minisign
from transom.runtimes.minisign import SignatureError
from transom.runtimes.trust import Policy

SIGNATURE = "the offer's signature"


def admit(offer: Offer, stream: str, desk: Desk) -> None:
    """Raises ModelError for an offer that is foreign, too large, too old, or for a stream that takes none."""
    desk.stream(stream)
    comment = _signed(offer, desk.settings.models.trusted_keys)
    # What transom sign writes; of a file that minisign signed the version is only known when it is here.
    label = re.search(r"(?:^| )model:(\S+)", comment)
    if label is not None and label[1] != f"{offer.name}@{offer.version}":
        raise ModelError(
            "offer", f"says {offer.name}@{offer.version} and its signature {label[1]}", "send it with transom push"
        )
    running = desk.running.get(stream)
    if running is not None and older(offer, running):
        raise ModelError("version", f"{offer.name}@{offer.version} is older than the {running.label} that runs",
                         "train or name it with a higher version")  # fmt: skip
    desk.room(offer.size)


def _signed(offer: Offer, keys: tuple[str, ...]) -> str:
    """The comment that a trusted key has signed."""
    try:
        signature = minisign.read_signature(offer.signature, SIGNATURE)
        key = next((k for k in Policy.of(keys).keys if k.id == signature.key_id), None)
        if key is None:
            raise ModelError(
                SIGNATURE, f"is of the key {signature.key_name}, which is not among models.trusted_keys",
                "add that key if you trust its owner, or have the file signed by one that is",
            )  # fmt: skip
        minisign.verify_digest(bytes.fromhex(offer.blake2b), signature, key, SIGNATURE)
    except SignatureError as error:
        raise ModelError(error.place, error.problem, error.remedy) from error
    return signature.comment


def older(offer: Offer, running: Manifest) -> bool:
    """True when the same name has a lower version. Versions that are no numbers joined by dots cannot be compared."""
    if offer.name != running.name:
        return False
    both = [text.split(".") for text in (offer.version, running.version)]
    if not all(re.fullmatch(r"[0-9]{1,18}", part) for parts in both for part in parts):
        return False
    new, old = ([int(part) for part in parts] for parts in both)
    return new < old
