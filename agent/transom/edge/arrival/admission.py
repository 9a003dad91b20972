"""Whether an offer is worth a download: an offer and the terms in; nothing, or a ModelError, out. Downloads nothing.

The signature is over the file's BLAKE2b digest, which the offer names: so a trusted key must have signed that digest
before a single chunk is asked for, and the file must have it in the end.
"""

import re

from transom.dialects.updates import Offer
from transom.edge.arrival.desk import Desk
from transom.edge.rollout import fit
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
    running = desk.running[stream].manifest if stream in desk.running else None
    if running is not None and offer.name == running.name and not fit.newer(offer.version, running.version):
        raise ModelError(
            "version", f"{offer.name}@{offer.version} is not newer than {running.label}, which runs here",
            "give what you train a higher version (--model-version)",
        )  # fmt: skip
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
