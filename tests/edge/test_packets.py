"""MQTT packets, many at a time: what paho reads out of the same bytes is what we read, however they are cut."""

from collections.abc import Sequence

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from transom.edge import client, packets
from transom.edge.packets import MalformedError, Packet

PINGRESP = b"\xd0\x00"


class Bytes:
    """A socket from which these chunks come, one a read at most; whatever is sent is kept."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks, self.sent = list(chunks), b""

    def recv(self, size: int) -> bytes:
        while self.chunks and not self.chunks[0]:
            self.chunks.pop(0)
        if not self.chunks:
            raise BlockingIOError
        taken, self.chunks[0] = self.chunks[0][:size], self.chunks[0][size:]
        return taken

    def send(self, data: bytes) -> int:
        self.sent += bytes(data)
        return len(data)

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


def read(
    chunks: Sequence[bytes], *, version5: bool, quick: bool, sender: str | None = None
) -> tuple[list[Packet], MQTTErrorCode, bytes]:  # fmt: skip
    """What a client hears of these bytes, how it ends, and what it answered. sender: the user property it asks for."""
    heard: list[Packet] = []
    one = client.new("x", version5=version5, clean=None if version5 else True, quick=quick)
    one.sender_property = sender
    one.on_batch = heard.extend
    one.on_socket_register_write = lambda *_: None
    one._left, one._need, one._pushed = bytearray(), 0, b""
    sock = Bytes(chunks)
    one._sock, one._state = sock, paho._ConnectionState.MQTT_CS_CONNECTED
    code = MQTTErrorCode.MQTT_ERR_SUCCESS
    while any(sock.chunks) and code == MQTTErrorCode.MQTT_ERR_SUCCESS:
        code = one.loop_read(1)
        if one._sock is not None and one.want_write():
            one.loop_write()
    return heard, code, sock.sent


def packet(topic: bytes, payload: bytes, first: int, mid: int, properties: bytes | None) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + (mid.to_bytes(2, "big") if first & packets.QOS else b"")
    body += (properties or b"") + payload
    length, head = len(body), bytearray([first])
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    return bytes(head) + bytes([length]) + body


@st.composite
def user_properties(draw: st.DrawFn) -> bytes:
    made = Properties(PacketTypes.PUBLISH)
    if draw(st.booleans()):
        made.UserProperty = [("k" * draw(st.integers(1, 90)), "v" * draw(st.integers(0, 90)))] * draw(st.integers(1, 4))
        made.UserProperty += draw(st.lists(st.tuples(st.sampled_from(["device", "kk"]), st.text("ab", max_size=2))))
    if draw(st.booleans()):
        made.MessageExpiryInterval = draw(st.integers(0, 2**32 - 1))
        made.PayloadFormatIndicator, made.ContentType = 1, "text"
        made.ResponseTopic, made.CorrelationData = "a/b", draw(st.binary(max_size=200))
    return made.pack()


@st.composite
def publishes(draw: st.DrawFn, version5: bool) -> bytes:
    qos = draw(st.sampled_from([0, 1]))
    first = packets.PUBLISH | qos << 1 | draw(st.integers(0, 1)) | (draw(st.booleans()) and qos > 0) << 3
    topic = draw(st.text(st.characters(codec="utf-8", exclude_characters="#+\0"), min_size=1, max_size=30)).encode()
    payload = draw(st.binary(max_size=40) | st.integers(100, 20_000).map(lambda n: b"x" * n))
    return packet(topic, payload, first, draw(st.integers(1, 65_535)), draw(user_properties()) if version5 else None)


@st.composite
def streams(draw: st.DrawFn, version5: bool) -> list[bytes]:
    """Packets of a broker, cut anywhere."""
    data = b"".join(draw(st.lists(publishes(version5) | st.just(PINGRESP), max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize("version5", [True, False])
def test_what_paho_hears_is_heard_however_the_bytes_are_cut(version5: bool) -> None:
    @given(streams(version5))
    def check(chunks: list[bytes]) -> None:
        ours, ours_end, _ = read(chunks, version5=version5, quick=True)
        theirs, theirs_end, _ = read(chunks, version5=version5, quick=False)
        assert ours == theirs
        assert ours_end == theirs_end == MQTTErrorCode.MQTT_ERR_SUCCESS

    check()


@given(streams(version5=True), st.sampled_from(["device", "k", "kk", "none"]))
def test_a_user_property_that_is_asked_for_is_heard_as_paho_hears_it(chunks: list[bytes], sender: str) -> None:
    ours, end, _ = read(chunks, version5=True, quick=True, sender=sender)
    theirs, _, _ = read(chunks, version5=True, quick=False, sender=sender)
    assert ours == theirs
    assert end == MQTTErrorCode.MQTT_ERR_SUCCESS
    unasked, _, _ = read(chunks, version5=True, quick=True)
    assert [packet[:4] for packet in unasked] == [packet[:4] for packet in ours]
    assert {packet[4] for packet in unasked} <= {None}


def test_of_two_that_differ_nobody_knows_which_is_true() -> None:
    made = Properties(PacketTypes.PUBLISH)
    made.UserProperty = [("device", "a"), ("other", "x"), ("device", "a")]
    assert packets.user_property(made.pack(), 1, len(made.pack()), b"device") == b"a"
    made.UserProperty = [("device", "b")]
    assert packets.user_property(made.pack(), 1, len(made.pack()), b"device") == b"a, b"
    subscription = b"\x0b\x81\x01\x26\x00\x01d\x00\x01v"
    assert packets.user_property(subscription, 0, len(subscription), b"d") == b"v"


@pytest.mark.parametrize(
    "properties", [b"\x26\x00\x05ab", b"\x26\x00\x01d", b"\x7f", b"\x02\x00", b"\x0b\x80", b"\x26"]
)
def test_properties_that_are_none_are_malformed_where_they_are_read(properties: bytes) -> None:
    data = packet(b"a", b"1", packets.PUBLISH, 0, bytes([len(properties)]) + properties)
    assert len(packets.parse(data, 0, version5=True)[0]) == 1
    with pytest.raises(MalformedError):
        packets.parse(data, 0, version5=True, wanted=b"d")


@pytest.mark.parametrize("version5", [True, False])
def test_bytes_that_are_no_mqtt_end_the_connection_and_nothing_else(version5: bool) -> None:
    """Nothing escapes, and of what comes before the fault nothing is lost that paho would have heard."""

    @given(streams(version5), st.binary(min_size=1, max_size=60))
    def check(chunks: list[bytes], noise: bytes) -> None:
        sound, _, _ = read(chunks, version5=version5, quick=True)
        heard, code, _ = read([*chunks, noise], version5=version5, quick=True)
        assert heard[: len(sound)] == sound
        assert isinstance(code, MQTTErrorCode)

    check()


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x32\x03\x00\x01a",  # QoS 1 without a packet id
        b"\x30\x02\x00\x09",  # a topic longer than the packet
        b"\x30\x02\x00\x00",  # no topic
        b"\x30\x01\x00",  # not even the topic's length
    ],
)
def test_a_publish_whose_parts_do_not_fit_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        packets.parse(data, 0, version5=False)


def test_properties_that_overrun_the_packet_are_malformed() -> None:
    with pytest.raises(MalformedError):
        packets.parse(b"\x30\x05\x00\x01a\x09x", 0, version5=True)
    with pytest.raises(MalformedError):
        packets.parse(b"\x30\x03\x00\x01a", 0, version5=True)


def test_the_length_of_a_packet_that_is_not_all_there_is_known_as_soon_as_it_can_be() -> None:
    whole = packet(b"a/b", b"x" * 300, packets.PUBLISH, 0, None)
    assert packets.parse(whole[:1], 0, version5=False) == ([], 0, 0)
    assert packets.parse(whole[:2], 0, version5=False) == ([], 0, 0)
    assert packets.parse(whole[:9], 0, version5=False) == ([], 0, len(whole))


@pytest.mark.parametrize("version5", [True, False])
@given(
    messages=st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200), st.binary(max_size=300))
    )
)
def test_what_is_written_is_read_back(version5: bool, messages: list[tuple[str, bytes]]) -> None:
    data = packets.publish(messages, version5)
    found, end, _ = packets.parse(data, 0, version5)
    assert [(topic.decode(), payload) for topic, payload, *_ in found] == messages
    assert end == len(data)


@pytest.mark.parametrize("version5", [True, False])
def test_acknowledgements_are_those_of_paho(version5: bool) -> None:
    plain = client.new("x", version5=version5, clean=None if version5 else True, quick=False)
    plain.on_socket_register_write = lambda *_: None
    plain.acknowledge([1, 300, 65_535])
    theirs = b"".join(bytes(p["packet"]) for p in plain._out_packet)
    assert packets.puback([1, 300, 65_535]) == theirs


@pytest.mark.parametrize("quick", [True, False])
def test_a_message_of_qos_2_comes_once_it_is_released(quick: bool) -> None:
    publish = packet(b"a", b"1", packets.PUBLISH | 4, 7, None)
    heard, _, sent = read([publish], version5=False, quick=quick)
    assert heard == []
    assert sent == b"\x50\x02\x00\x07"  # PUBREC
    heard, _, sent = read([publish + b"\x62\x02\x00\x07"], version5=False, quick=quick)
    assert [(topic, payload, mid) for topic, payload, _, mid, _ in heard] == [(b"a", b"1", 7)]


def test_the_versions_that_are_reached_into_are_those_that_are_allowed() -> None:
    """A new paho must not be reached into before someone has looked: it is used as it is."""
    known = client.PAHO in client.TESTED
    assert isinstance(client.new("x", version5=True, clean=None), client.Client if known else client.PlainClient)
    if known:
        assert client.TESTED[client.PAHO] in vars(client.new("x", version5=True, clean=None))
