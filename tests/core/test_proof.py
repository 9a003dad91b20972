"""Who has sent a message: what is signed by the device's key, in time and once, is a reading; all else is refused."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests_support import T0, Distance, published
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.proof import Proof, ProofError, ProofSpec
from transom.core.stream import StreamSpec
from transom.edge import packing
from transom.errors import PatternError

KEY, OTHER = b"k" * 32, b"o" * 32
KEYS = {"pump": (KEY,)}
TOPIC = "plant/pump/x"


def signed(body: bytes, number: int, topic: str = TOPIC, key: bytes = KEY) -> bytes:
    """Made from the words of the documentation, not from our code."""
    text = topic.encode() + b"\0" + str(number).encode() + b"\0" + body
    return body + b"." + str(number).encode() + b"." + hmac.new(key, text, hashlib.sha256).hexdigest().encode()


def pipeline(**proof: Any) -> Pipeline:
    spec = StreamSpec("s", "plant/{device}/{channel}", proof=ProofSpec(**({"keys": KEYS} | proof)))
    return Pipeline([(spec, Distance())])


def message(payload: bytes, ms: int = 0, topic: str = TOPIC, **more: Any) -> Message:
    return Message(topic, payload, T0 + ms, **more)


def refusals(pipe: Pipeline, *messages: Message) -> list[tuple[str, str]]:
    return [(letter.kind, letter.reason) for letter in pipe.process(messages).dead_letters]


@pytest.mark.parametrize("body", [b"21.5", b'{"value": 21.5, "time": 1700000000.5}', b"1.5.2", b"", b"\xa1ev\xfb"])
@pytest.mark.parametrize("upper", [False, True])
def test_what_is_signed_comes_out_as_it_was_signed(body: bytes, upper: bool) -> None:
    payload = signed(body, T0)
    proof = Proof(ProofSpec(keys=KEYS), 1000)
    given_ = payload[:-64] + payload[-64:].upper() if upper else payload
    assert proof.open(TOPIC, given_, 1000 * T0, "pump", None, None) == body


@given(body=st.binary(max_size=40), number=st.integers(T0 - 1000, T0 + 1000), data=st.data())
def test_no_byte_of_it_can_be_another(body: bytes, number: int, data: st.DataObject) -> None:
    payload = bytearray(signed(body, number))
    at = data.draw(st.integers(0, len(payload) - 1))
    was = payload[at]
    payload[at] = data.draw(st.integers(0, 255))
    if bytes([was]).lower() == bytes([payload[at]]).lower() and at >= len(payload) - 64:
        return  # the same digit of the MAC
    if was == payload[at]:
        return
    with pytest.raises(ProofError):
        Proof(ProofSpec(keys=KEYS), 1000).open(TOPIC, bytes(payload), 1000 * T0, "pump", None, None)


@given(st.binary(max_size=200))
def test_anything_else_is_refused_and_nothing_escapes(payload: bytes) -> None:
    with pytest.raises(ProofError):
        Proof(ProofSpec(keys=KEYS), 1000).open(TOPIC, payload, 1000 * T0, "pump", None, None)


@pytest.mark.parametrize(
    ("payload", "topic", "words"),
    [
        (b"21.5", TOPIC, "not signed: it does not end in .NUMBER.MAC"),
        (signed(b"21.5", T0, key=OTHER), TOPIC, "the signature is not that of 'pump'"),
        (signed(b"21.5", T0), "plant/pump/y", "the signature is not that of 'pump'"),
        (signed(b"21.5", T0, topic="plant/fan/x"), "plant/fan/x", "there is no key for 'fan' (keys_file)"),
        (signed(b"21.5", T0 - 86_400_001), TOPIC, "signed 86,400 s before it came (replay_window)"),
        (signed(b"21.5", T0 + 300_001), TOPIC, "signed 300 s ahead of the clock here: check both clocks"),
    ],
)
def test_a_refusal_is_a_dead_letter_with_its_reason_and_counted(payload: bytes, topic: str, words: str) -> None:
    pipe = pipeline()
    assert refusals(pipe, message(payload, topic=topic)) == [("signature", words)]
    counts = pipe.accounts()["s"]
    assert (counts["received"], counts["invalid"], counts["invalid_signature"]) == (1, 1, 1)
    assert counts["series"] == 0


def test_a_message_that_was_here_is_no_reading_again() -> None:
    pipe = pipeline()
    first, second = signed(b"1", T0), signed(b"2", T0 + 1)
    assert refusals(pipe, message(first), message(second, 1), message(second, 2)) == []
    ((kind, words),) = refusals(pipe, message(first, 3))
    assert (kind, words) == ("signature", f"sent again, or out of order: its number is {T0}, the last was {T0 + 1}")
    counts = pipe.accounts()["s"]
    assert [counts[k] for k in ("received", "accepted", "duplicate", "invalid")] == [4, 2, 1, 1]


def test_each_topic_counts_for_itself() -> None:
    pipe = pipeline()
    both = [message(signed(b"1", T0, f"plant/pump/{c}"), topic=f"plant/pump/{c}") for c in "xy"]
    assert refusals(pipe, *both) == []
    assert pipe.accounts()["s"]["accepted"] == 2


def test_what_was_here_is_remembered_over_a_restart_another_model_and_a_time_without_keys() -> None:
    pipe = pipeline()
    pipe.process([message(signed(b"1", T0 + 5))])
    other = StreamSpec("s", "plant/{device}/{channel}", proof=ProofSpec(keys=KEYS))
    without = StreamSpec("s", "plant/{device}/{channel}")
    for spec, length in ((other, 4), (other, 8), (without, 8), (other, 4)):
        snapshot = packing.unpack(packing.pack(pipe.snapshot()))
        pipe = Pipeline([(spec, Distance(length=length))])
        pipe.restore(snapshot)
    assert refusals(pipe, message(signed(b"1", T0 + 4), 10))[0][0] == "signature"
    assert refusals(pipe, message(signed(b"1", T0 + 6), 10)) == []


def test_the_numbers_count_in_one_turn_as_in_many() -> None:
    sent = [message(signed(b'{"value": %d}' % (i % 4), T0 + i - i % 3), i) for i in range(60)]
    whole, parts = pipeline(), pipeline()
    one, many = [whole.take(Turn(sent))], [parts.take(Turn([m])) for m in sent]
    assert published(one) == published(many)
    assert whole.accounts() == parts.accounts()


def test_a_key_can_be_changed_while_the_old_one_is_still_good() -> None:
    pipe = pipeline(keys={"pump": (OTHER, KEY)})
    assert refusals(pipe, message(signed(b"1", T0)), message(signed(b"2", T0 + 1, key=OTHER), 1)) == []


def test_without_a_window_any_number_will_do_that_counts_up() -> None:
    pipe = pipeline(window=None)
    assert refusals(pipe, message(signed(b"1", 7)), message(signed(b"2", 8), 1)) == []
    assert refusals(pipe, message(signed(b"1", 7), 2))[0][0] == "signature"


def test_a_payload_over_the_limit_is_not_computed_on() -> None:
    proof = Proof(ProofSpec(keys=KEYS), 100)
    assert proof.open(TOPIC, signed(b"x" * 100, T0), 1000 * T0, "pump", None, None) == b"x" * 100
    with pytest.raises(ProofError, match="max_payload") as refused:
        proof.open(TOPIC, signed(b"x" * 110, T0), 1000 * T0, "pump", None, None)
    assert refused.value.kind == "payload"


def test_the_sequence_number_in_a_signed_body_counts() -> None:
    from transom.core.payloads import PayloadSpec

    spec = StreamSpec(
        "s", "plant/{device}/{channel}", payload=PayloadSpec(sequence="n"), proof=ProofSpec(keys=KEYS)
    )  # fmt: skip
    pipe = Pipeline([(spec, Distance())])
    bodies = [json.dumps({"value": 1, "n": n}).encode() for n in (1, 2, 5)]
    pipe.process([message(signed(b, T0 + i), i) for i, b in enumerate(bodies)])
    assert pipe.accounts()["s"]["missing"] == 2


@pytest.mark.parametrize(
    ("sender", "words"),
    [
        ("pump", None),
        ("fan", "the sender says that it is 'fan', the topic is that of 'pump'"),
        (None, "the sender says nothing of itself, the topic is that of 'pump'"),
        ("pump, fan", "the sender says that it is 'pump, fan', the topic is that of 'pump'"),
    ],
)
def test_who_imitates_anothers_topic_is_refused(sender: str | None, words: str | None) -> None:
    pipe = pipeline(keys=None, sender="{device}")
    assert refusals(pipe, message(b"1", sender=sender)) == ([] if words is None else [("sender", words)])
    counts = pipe.accounts()["s"]
    assert (counts["accepted"], counts["invalid_sender"]) == ((1, 0) if words is None else (0, 1))


def test_a_sender_may_be_a_text_of_several_levels() -> None:
    pipe = pipeline(keys=None, sender="sensor-{device}/{channel}")
    assert refusals(pipe, message(b"1", sender="sensor-pump/x")) == []
    with pytest.raises(PatternError, match="has no level 'site'"):
        pipeline(keys=None, sender="{site}")


def test_no_key_is_shown() -> None:
    assert "kkk" not in repr(StreamSpec("s", "a/{b}", proof=ProofSpec(keys=KEYS)))
