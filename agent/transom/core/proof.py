"""Whether a message comes from the device that its topic names: by what is said of its sender, and by a key they share.

A message in; its payload without the proof out, or the reason why it is refused. Knows no clock: arrival is an input.

A signed payload is `BODY.NUMBER.MAC`: the payload as it would be without, a number of up to 18 digits, and the
HMAC-SHA256 (RFC 2104, FIPS 180-4) by the device's key over `TOPIC 0x00 NUMBER 0x00 BODY`, all of them as they are sent,
in 64 hexadecimal digits. A topic holds no 0x00 and a number only digits, so no two messages have the same bytes.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from transom.core.values import PayloadError, shown_raw

MOST_TOPICS = 100_000  # whose last numbers are remembered; signed messages on more are refused
TRAILER = 1 + 18 + 1 + 64  # bytes
_NUMBER = re.compile(rb"[0-9]{1,18}")
_MAC = re.compile(rb"[0-9a-fA-F]{64}")

Refusal = Literal["payload", "sender", "signature"]


class ProofError(PayloadError):
    """Why a message is refused. kind: as what it is counted."""

    def __init__(self, kind: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.kind: Refusal = kind


@dataclass(frozen=True, slots=True)
class ProofSpec:
    """What is demanded of a stream's messages.

    sender: named levels and text, as in "{device}", that the sender must be called; None: whoever it is. keys: by
    device, each of which is good; None: nothing is signed. window: ms that a number, which is then ms since 1970, may
    lie before its arrival, ahead: and after it; None: any number will do that is larger than the topic's last one.
    """

    sender: str | None = None
    keys: Mapping[str, tuple[bytes, ...]] | None = field(default=None, repr=False)
    window: int | None = 86_400_000
    ahead: int | None = 300_000


class Proof:
    """Of one stream; remembers the last number of each topic, so that what was sent once counts once."""

    def __init__(self, spec: ProofSpec, max_bytes: int) -> None:
        """max_bytes: of a payload without its proof; larger ones are not computed on."""
        self._spec, self._max_bytes = spec, max_bytes
        self._last: dict[str, int] = {}

    def open(
        self, topic: str, payload: bytes, received: int, device: str, sender: str | None, expected: str | None
    ) -> bytes | None:
        """The payload without its proof, None for a message that was here before. received: µs; expected: what the
        sender must be called. Raises ProofError."""
        if expected is not None and sender != expected:
            said = f"says that it is {shown_raw(sender)}" if sender is not None else "says nothing of itself"
            raise ProofError("sender", f"the sender {said}, the topic is that of {shown_raw(expected)}")
        if self._spec.keys is None:
            return payload
        if len(payload) > self._max_bytes + TRAILER:
            limit = f"{self._max_bytes:,} and its signature"
            raise ProofError("payload", f"payload of {len(payload):,} bytes, the limit is {limit} (max_payload)")
        body, number = self._signed(topic, payload, device)
        last = self._last.get(topic)
        if last is None and len(self._last) >= MOST_TOPICS:
            raise ProofError("signature", f"no room: numbers of {MOST_TOPICS:,} topics are remembered")
        if number == last:
            return None
        self._in_time(number, received // 1000)
        if last is not None and number < last:
            raise ProofError("signature", f"sent again, or out of order: its number is {number}, the last was {last}")
        self._last[topic] = number
        return body

    def _signed(self, topic: str, payload: bytes, device: str) -> tuple[bytes, int]:
        """Body and number of a payload whose signature is good."""
        assert self._spec.keys is not None
        parts = payload.rsplit(b".", 2)
        if len(parts) != 3 or not _NUMBER.fullmatch(parts[1]) or not _MAC.fullmatch(parts[2]):
            raise ProofError("signature", "not signed: it does not end in .NUMBER.MAC")
        body, number, mac = parts
        keys = self._spec.keys.get(device, ())
        if not keys:
            raise ProofError("signature", f"there is no key for {shown_raw(device)} (keys_file)")
        text, given = b"\0".join((topic.encode(), number, body)), bytes.fromhex(mac.decode())
        if not any(hmac.compare_digest(hmac.digest(key, text, "sha256"), given) for key in keys):
            raise ProofError("signature", f"the signature is not that of {shown_raw(device)}")
        return body, int(number)

    def _in_time(self, number: int, received: int) -> None:
        window, ahead = self._spec.window, self._spec.ahead
        if window is None:
            return
        age = received - number
        if age > window:
            raise ProofError("signature", f"signed {age / 1000:,.0f} s before it came (replay_window)")
        if age < -(window if ahead is None else ahead):
            raise ProofError("signature", f"signed {-age / 1000:,.0f} s ahead of the clock here: check both clocks")

    def snapshot(self) -> dict[str, Any]:
        return dict(self._last)

    def restore(self, state: Mapping[str, Any]) -> None:
        self._last = {topic: int(number) for topic, number in state.items()}
