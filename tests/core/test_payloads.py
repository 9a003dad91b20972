"""Payloads as devices send them: a folder a case, and fuzzing that no bytes can break a decoder."""

import json
import math
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transom.core.payloads import FORMATS, PayloadSpec, compile_decoder
from transom.core.times import LATEST
from transom.core.values import LARGEST, ChannelSpec, PayloadError

CASES = Path(__file__).parent.parent / "cases"
RECEIVED = 1_704_110_400_000_000  # 2024-01-01T12:00:00Z


def spec_of(config: dict[str, Any]) -> PayloadSpec:
    channels = tuple(ChannelSpec(**c) for c in config.pop("channels", []))
    zone = ZoneInfo(config.pop("timezone", "UTC"))
    return PayloadSpec(**config, channels=channels, timezone=zone)


@pytest.mark.parametrize("case", sorted(p.name for p in CASES.iterdir()))
def test_case(case: str) -> None:
    folder = CASES / case
    decode = compile_decoder(spec_of(json.loads((folder / "config.json").read_text())))
    expected = json.loads((folder / "expected.json").read_text())
    payload = (folder / "payload").read_bytes()
    if folder.name.startswith("cbor"):
        payload = bytes.fromhex(payload.decode().strip())
    if "error" in expected:
        with pytest.raises(PayloadError, match=expected["error"]):
            decode(payload, RECEIVED)
        return
    found = [[leaf, time, str(v) if isinstance(v, PayloadError) else v] for leaf, time, v in decode(payload, RECEIVED)]
    assert found == expected["samples"]


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["value", "time", "ts", "a", "b.c", ""]), inner, max_size=4)
    ),
    max_leaves=12,
)
specs = st.builds(
    PayloadSpec,
    format=st.sampled_from(sorted(FORMATS)),
    value=st.sampled_from([None, "value", "a", "a.b.c", "a[].b", ""]),
    time=st.sampled_from([None, "time", "a.time"]),
    time_unit=st.sampled_from(["auto", "iso", "s", "ms", "us", "ns", "arrival"]),
    channels=st.sampled_from([(), (ChannelSpec("a"),), (ChannelSpec("a", switch=True), ChannelSpec("b", "b.c"))]),
)


def holds(spec: PayloadSpec, payload: bytes) -> None:
    """Samples that keep their word, or PayloadError with a reason; nothing else."""
    try:
        samples = compile_decoder(spec)(payload, RECEIVED)
    except PayloadError as error:
        assert str(error)
        return
    assert samples
    for leaf, time, value in samples:
        assert leaf is None or isinstance(leaf, str)
        assert time is None or 0 <= time <= LATEST
        assert isinstance(value, PayloadError) or (math.isfinite(value) and abs(value) <= LARGEST)


@given(specs, st.binary(max_size=200))
@example(PayloadSpec(), b"[" * 100_000)
@example(PayloadSpec(), b'{"a":' * 100_000)
@example(PayloadSpec(format="cbor"), b"\x81" * 100_000)
@example(PayloadSpec(format="cbor"), b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff")
@example(PayloadSpec(format="cbor"), b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff")
@example(PayloadSpec(), b"9" * 400)
@example(PayloadSpec(), b'{"value":1,"time":1e300}')
def test_no_bytes_can_break_a_decoder(spec: PayloadSpec, payload: bytes) -> None:
    holds(spec, payload)


@given(specs, values)
def test_no_json_can_break_a_decoder(spec: PayloadSpec, value: object) -> None:
    holds(spec, json.dumps(value).encode())


@given(specs, values)
def test_no_cbor_can_break_a_decoder(spec: PayloadSpec, value: object) -> None:
    holds(spec, cbor2.dumps(value))


def test_a_payload_over_the_limit_is_not_decoded() -> None:
    with pytest.raises(PayloadError, match="10,000,000 bytes, the limit is 1,048,576"):
        compile_decoder(PayloadSpec())(b"1" * 10_000_000, RECEIVED)
