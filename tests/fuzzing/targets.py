"""What is fuzzed: readers of bytes that others wrote. Bytes in; nothing out, or an exception that is a finding.

A reader may refuse what it is given in its own way (`TransomError`, `PayloadError`, `MalformedError`) and no other, and
what it takes must be what the rest of the agent relies on. Neither the fuzzer nor pytest is imported here.
"""

import math
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from transom.core import payloads, recorded, tables, times
from transom.core.intake import Intake
from transom.core.model import ANY, Channel, Manifest
from transom.core.payloads import PayloadSpec
from transom.core.topics import Pattern, cover
from transom.core.values import LARGEST, ChannelSpec, PayloadError
from transom.dialects.ids import quoted
from transom.dialects.plain import topic_part
from transom.edge import packets
from transom.errors import ModelError, PatternError, RecordingError, TransomError
from transom.runtimes import archive, manifest, minisign, scan
from transom.settings import read as read_settings

warnings.simplefilter("error")  # a user would see it, and not know what to do
RECEIVED = 1_700_000_000_000_000  # µs
FARTHEST = 1 << 62  # µs; what is beyond overflows when a step is added
CHANNELS = (ChannelSpec("temperature", "", "°C"), ChannelSpec("door", "state", "", switch=True))
ANY_SENSOR = Manifest(
    name="m", version="1", task="anomaly", family="f", channels=(Channel(ANY),), length=8, step=1000
)  # fmt: skip
_UNDECODED = "cannot be decoded"  # how a decoder's own fault is told; a message that causes one is a finding


def topic(data: bytes) -> None:
    """A pattern, a second pattern and a topic, a line each."""
    text = data.decode("utf-8", "replace").split("\n")
    text += [""] * (3 - len(text))
    try:
        pattern, other = Pattern.parse(text[0]), Pattern.parse(text[1])
    except PatternError as error:
        _told(error)
        return
    kept = cover([pattern.filter, other.filter])
    assert 1 <= len(kept) <= 2
    found = pattern.match(text[2])
    if found is None:
        return
    assert len(found) == len(pattern.names)
    intake = Intake("s", pattern, (), PayloadSpec(), ANY_SENSOR, 4)
    try:
        route = intake.route(text[2])
    except PayloadError:
        return
    assert route is not None
    intake.add(route, text[2], b"1", RECEIVED, RECEIVED)
    for name in filter(None, intake.names):
        assert not set(topic_part(name)) & set("+#\0\n\r\x7f"), name
        assert not set(quoted(name)[1:-1]) & set("'{}%\\\n") - {"\\"}, name


def payload(data: bytes) -> None:
    """A first byte that chooses how it is read, and the payload."""
    if not data:
        return
    formats = list(payloads.FORMATS)
    kind, how = formats[data[0] % len(formats)], data[0] // len(formats)
    spec = PayloadSpec(
        kind, value="v.0" if how & 1 else None, time="t" if how & 2 and kind != "number" else None,
        time_unit=("auto", "iso", "s", "ms", "us", "ns", "arrival")[how % 7], timezone=ZoneInfo("Europe/Berlin"),
        channels=CHANNELS[: how % 3], max_bytes=1 << 16, sequence="n",
    )  # fmt: skip
    if kind != "number":
        payloads.sequence_of(data[1:], spec)
    try:
        samples = payloads.compile_decoder(spec)(data[1:], RECEIVED)
    except PayloadError as error:
        assert _UNDECODED not in str(error), error.__cause__
        return
    for leaf, time, value in samples:
        assert leaf is None or isinstance(leaf, str)
        assert time is None or 0 <= time <= times.LATEST
        if isinstance(value, PayloadError):
            continue
        assert type(value) is float
        assert math.isfinite(value)
        assert abs(value) <= LARGEST


def wire(data: bytes) -> None:
    """A first byte with the version of MQTT and where the stream is cut, and what came from the socket."""
    if not data:
        return
    version5, stream = bool(data[0] & 1), data[1:]
    try:
        whole, end, wants = packets.parse(stream, 0, version5)
    except packets.MalformedError:
        return
    assert 0 <= end <= len(stream)
    assert wants >= 0
    for name, body, first, mid, *_ in whole:
        assert first & 0xF0 == packets.PUBLISH
        assert 0 <= mid <= 0xFFFF
        if not first & packets.QOS and name.isascii():
            made = packets.publish([(name.decode(), body)], version5)
            assert packets.parse(made, 0, version5)[0][0][:2] == (name, body)
    cut = (data[0] >> 1) * len(stream) // 128
    try:
        early, upto, _ = packets.parse(stream[:cut], 0, version5)
    except packets.MalformedError:
        raise AssertionError("what is whole and well formed was refused when cut short") from None
    assert early == whole[: len(early)]
    assert packets.parse(stream, upto, version5)[0] == whole[len(early) :]


def model(data: bytes) -> None:
    """A manifest, a signature, or an archive with its code, by how it begins."""
    try:
        if data[:1] == b"{":
            said = manifest.read(data, "m.pt")
            assert said.length >= 1
            assert said.channels
        elif data[:2] == b"PK":
            members = archive.unpack(data, "m.pt")
            archive.refuse_unknown(members, "m.pt")
            scan.scan(members, "m.pt")
        else:
            minisign.read_signature(data.decode("utf-8", "replace"), "m.pt.minisig")
    except (ModelError, minisign.SignatureError) as error:
        _told(error)


def recording(data: bytes) -> None:
    """A table, or lines of our own, by how it begins."""
    lines = data.decode("utf-8", "replace").splitlines(keepends=True)
    try:
        if data[:1] == b"{":
            recorded.begin_of(lines[0])
            for turn in recorded.turns(lines, "r.jsonl"):
                assert 0 <= turn.jump * 1000 < FARTHEST
                for message in turn.messages:
                    assert abs(message.received) * 1000 < FARTHEST
            return
        table = tables.read_table(lines, "r.csv")
        for stamps, values in table.blocks:
            assert values.shape == (len(stamps), len(table.names))
            assert stamps.dtype == np.int64
            assert (np.abs(stamps) < FARTHEST).all()
    except RecordingError as error:
        _told(error)


def configuration(data: bytes) -> None:
    """A configuration file. Whatever is in it, there are settings or problems, each a line that can be shown."""
    _FILE.write_bytes(data)
    reading = read_settings(_FILE, {})
    assert (reading.settings is None) == bool(reading.problems)
    for problem in reading.problems:
        _told(problem)
    if reading.settings is not None:
        for stream in reading.settings.streams.values():
            Pattern.parse(stream.topic).check_series(stream.series)
            stream.zone.utcoffset(None)


def _told(error: TransomError) -> None:
    assert error.problem, repr(error)
    str(error).encode("utf-8", "surrogatepass")


_FILE = Path(tempfile.gettempdir()) / f"transom-fuzz-{os.getpid()}.toml"

TARGETS: dict[str, Callable[[bytes], None]] = {
    "topic": topic, "payload": payload, "wire": wire, "model": model, "recording": recording,
    "configuration": configuration,
}  # fmt: skip
