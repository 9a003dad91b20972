"""Payloads as devices send them: a folder a case, and fuzzing that no bytes can break a decoder."""

import contextlib
import json
import math
from datetime import UTC
from decimal import Decimal
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


HOSTILE = {
    "five thousand digits as a time": ("auto", b'{"value":1,"time":"' + b"9" * 5000 + b'"}'),
    "five thousand digits as a value": ("auto", b'{"value":"' + b"9" * 5000 + b'"}'),
    "five thousand digits bare": ("auto", b"9" * 5000),
    "nested arrays": ("auto", b"[" * 987 + b"]" * 987),
    "nested arrays, deeper": ("auto", b"[" * 100_000),
    "a whole number of 5,000 digits": ("cbor", cbor2.dumps({"value": 10**5000})),
    "the same as a time": ("cbor", cbor2.dumps({"value": 1, "time": 10**5000})),
    "the first day there is, east of here": ("cbor", b"\xa2evalue\x01dtime\xc0x\x190001-01-01T00:00:00+14:00"),
    "the last day there is, west of here": ("cbor", b"\xa2evalue\x01dtime\xc0x\x199999-12-31T23:59:59-14:00"),
    "bytes after the end": ("cbor", b"\x01\x02"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_payload_is_refused_and_its_reason_is_short(name: str) -> None:
    form, payload = HOSTILE[name]
    decode = compile_decoder(PayloadSpec(format=form))
    try:
        samples = decode(payload, 1_700_000_000_000_000)
    except PayloadError as error:
        reasons = [str(error)]
    else:
        reasons = [str(value) for _, _, value in samples if isinstance(value, PayloadError)]
        assert reasons or name == "five thousand digits as a time"  # as "12:30" on a display: not the reading's time
    assert all(len(reason) < 400 for reason in reasons)


def test_shared_references_cannot_make_much_of_little() -> None:
    """32 levels of two references each to the level below: 2^32 leaves in some 200 bytes."""
    item: object = [1]
    for _ in range(32):
        item = [item, item]
    payload = cbor2.dumps(item, value_sharing=True)
    assert len(payload) < 1000
    with pytest.raises(PayloadError, match="shared references"):
        compile_decoder(PayloadSpec(format="cbor"))(payload, 0)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.booleans(), inner), max_leaves=30,
))  # fmt: skip
def test_whatever_cbor_can_say_is_read_or_refused(thing: object) -> None:
    payload = cbor2.dumps(thing, timezone=UTC)
    for spec in (PayloadSpec(format="cbor"), PayloadSpec(format="cbor", sequence="n", time="time")):
        with contextlib.suppress(PayloadError):
            compile_decoder(spec)(payload, 1_700_000_000_000_000)


def test_a_decimal_is_a_number() -> None:
    decode = compile_decoder(PayloadSpec(format="cbor"))
    assert decode(cbor2.dumps({"value": Decimal("21.5")}), 0) == [(None, None, 21.5)]


@pytest.mark.parametrize("payload", [b"nan\x1d", b"\x1finf", b"-inf\xc2\x85"])
def test_a_word_for_no_number_is_refused_as_such_whatever_space_is_around_it(payload: bytes) -> None:
    with pytest.raises(PayloadError, match="not a finite number"):
        compile_decoder(PayloadSpec("number"))(payload, 0)
