"""What leaves by each rule: values left out or rounded, in sentences too, and names that only the key gives back."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests_support import Distance, reading
from transom.core import payloads
from transom.core.alerts import State
from transom.core.events import Alert, DeadLetter, DriftReport, Events, Predictions, Told
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.dialects.plain import alert_body, drift_body, lines, publications
from transom.dialects.privacy import REASONS, Privacy, Rule, pseudonym

KEY = b"0123456789abcdef0123456789abcdef"
VALUE = 48151.62342


def predictions(value: float = VALUE, **changes: object) -> Predictions:
    given_ = {
        "stream": "s", "model": "m@1", "series": ["hall/pump"], "channels": [("x", "p")], "end": np.array([10**15]),
        "value": np.array([[value, 1013.25]], np.float32), "state": np.array([State.NORMAL], np.uint8),
        "score": np.array([3.14159], np.float32), "p_value": np.array([0.0021234]),
        "expected": np.array([[value + 1, 1013.25]], np.float32),
        "interval": np.array([[[value - 1, value + 2], [1000.0, 1020.0]]], np.float32),
        "contribution": np.array([[0.75123, 0.24877]], np.float32),
    }  # fmt: skip
    return Predictions(**(given_ | changes))  # type: ignore[arg-type]


def alert(**changes: object) -> Alert:
    told = Told(("x",), ("kW",), (VALUE,), (VALUE + 1,), ((VALUE - 1, VALUE + 2),), (1, VALUE, VALUE), "", 60_000_000)
    given_ = {
        "id": "00112233", "event": "raise", "kind": "anomaly", "severity": "warning", "stream": "s",
        "series": "hall/pump", "model": "m@1", "since": 0, "time": 60_000_000, "summary": told.text(4.5678),
        "score": 3.14159, "peak_score": 4.5678, "p_value": 0.0021234, "value": {"x": VALUE},
        "expected": {"x": VALUE + 1}, "interval": {"x": (VALUE - 1, VALUE + 2)}, "contribution": {"x": 1.0},
        "channels": ("x",), "told": told,
    }  # fmt: skip
    return Alert(**(given_ | changes))  # type: ignore[arg-type]


def line(privacy: Privacy, batch: Predictions) -> dict[str, object]:
    (only,) = lines(privacy.events(Events([batch])).predictions[0])
    return json.loads(only)


def test_a_rule_that_asks_for_nothing_gives_the_same_events() -> None:
    events = Events([predictions()], [alert()])
    assert Privacy(Rule()).events(events) is events


def test_left_out_means_that_the_keys_are_not_there() -> None:
    told = line(Privacy(Rule("none")), predictions())
    assert sorted(told) == ["contribution", "model", "p_value", "score", "series", "state", "stream", "time"]
    assert (told["score"], told["p_value"], told["contribution"]) == (3.1, 0.0021, {"x": 0.75, "p": 0.25})
    forecast = predictions(forecast=np.ones((1, 2, 2, 3), np.float32), quantiles=(0.1, 0.5, 0.9))
    assert "forecast" not in line(Privacy(Rule("none")), forecast)


def test_rounded_means_significant_digits_or_the_channel_s_resolution() -> None:
    told = line(Privacy(Rule("rounded", 2, {("s", "p"): 5.0})), predictions())
    assert told["value"] == {"x": 48000.0, "p": 1015.0}
    assert told["expected"] == {"x": 48000.0, "p": 1015.0}
    assert told["interval"] == {"x": [48000.0, 48000.0], "p": [1000.0, 1020.0]}


def test_a_forecast_is_rounded_by_its_targets() -> None:
    forecast = predictions(
        forecast=np.full((1, 2, 1, 3), 1013.25, np.float32), targets=("p",), quantiles=(0.1, 0.5, 0.9)
    )
    told = line(Privacy(Rule("rounded", 2, {("s", "p"): 5.0})), forecast)
    assert told["forecast"] == {"p": [[1015.0] * 3] * 2}
    two = predictions(forecast=np.full((1, 1, 2, 1), 1013.25, np.float32), quantiles=(0.5,))
    assert line(Privacy(Rule("rounded", 2, {("s", "p"): 5.0})), two)["forecast"] == {"x": [[1000.0]], "p": [[1015.0]]}


@given(st.floats(-(2.0**99), 2.0**99, width=32), st.integers(1, 6))
def test_what_is_rounded_has_so_many_digits_and_is_near(value: float, digits: int) -> None:
    told = line(Privacy(Rule("rounded", digits)), predictions(value))["value"]["x"]  # type: ignore[index]
    assert len(f"{told:.7e}".split("e")[0].lstrip("-").replace(".", "").rstrip("0")) <= digits
    assert abs(told - value) <= max(abs(value), 1e-37) * 0.5000001 * 10 ** (1 - digits) + 1e-45


def test_an_alert_s_sentence_follows_the_rule() -> None:
    none, rounded = (alert_body(Privacy(Rule(values)).alert(alert())) for values in ("none", "rounded"))
    assert none["summary"] == "x unusual"
    assert not {"value", "expected", "interval"} & set(none)
    assert rounded["summary"] == "x 48000 kW, expected 48000 (48000 to 48000); usually 48000 at this hour"
    assert (rounded["value"], rounded["peak_score"]) == ({"x": 48000.0}, 4.6)
    over = alert(event="clear", told=alert().told._replace(ended="as expected again", past=None))  # type: ignore[union-attr]
    assert Privacy(Rule("none")).alert(over).summary == "x as expected again after 60 s, peak score 4.6"


def test_the_sentence_of_a_real_alert_can_be_made_again() -> None:
    pipeline = Pipeline([(StreamSpec("s", "plant/{device}/{channel}", threshold=5.0, budget=None), Distance())])
    events = pipeline.process([reading(20 + i % 2 + (100 if i == 40 else 0), 1000 * i) for i in range(60)], 0)
    raised, ended = [a for a in events.alerts if a.event != "update"]
    for one in (raised, ended):
        assert one.told is not None
        assert one.told.text(one.peak_score or 0.0) == one.summary
        assert not re.search(r"\d", Privacy(Rule("none")).alert(one).summary.partition(" after ")[0])


def test_drift_in_health_follows_the_rule() -> None:
    report = DriftReport("s", "hall/pump", "x", "drift", "kW", 0, VALUE, VALUE + 500, 500.0, 0.87654, 71.2345, "…", 1.0)
    (none,) = drift_body(1, [Privacy(Rule("none")).drift(report)])["largest"]
    assert sorted(none) == ["channel", "kind", "series", "since", "stream", "summary", "usual_spreads"]
    assert none["summary"] == "x drifts"
    (rounded,) = drift_body(1, [Privacy(Rule("rounded")).drift(report)])["largest"]
    assert (rounded["before"], rounded["now"], rounded["moved"], rounded["per_day"]) == (48000.0, 49000.0, 1000.0, 71.0)
    assert rounded["summary"].startswith("x drifts: 48000 kW on 1970-01-01, 49000 kW now, +71 a day")


@pytest.mark.parametrize("rule", [Rule("none"), Rule("rounded"), Rule(key=KEY)])
def test_a_dead_letter_quotes_nothing(rule: Rule) -> None:
    letter = DeadLetter("s", "plant/hall/pump", b"48151.62342 kW", "not a number: '48151.62342 kW'")
    (told,) = publications(Privacy(rule).events(Events([], [], [letter])), "t")
    body = json.loads(told.payload)
    assert body["reason"] == "not a number"
    assert body["bytes"] == 14
    assert "payload" not in body
    assert body["topic"] == (pseudonym(KEY, "plant/hall/pump", "topic") if rule.key else "plant/hall/pump")


@given(st.binary(max_size=60), st.sampled_from(sorted(payloads.FORMATS)))
def test_every_reason_of_a_decoder_is_known_by_words_that_hold_no_value(payload: bytes, kind: str) -> None:
    """A new reason belongs into REASONS, or its dead letters say "refused" only."""
    pipeline = Pipeline([(StreamSpec("s", "plant/{device}", payload=payloads.PayloadSpec(kind)), Distance())])  # type: ignore[arg-type]
    events = pipeline.process([Message("plant/a", payload, 1_700_000_000_000)])
    for letter in Privacy(Rule("none")).events(events).dead_letters:
        assert letter.reason in REASONS


def test_pseudonyms_are_an_hmac_of_the_name_and_hold_across_restarts() -> None:
    # printf 'series\0hall/pump' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef -binary | head -c10 | base32
    assert pseudonym(KEY, "hall/pump") == EXPECTED
    assert pseudonym(KEY, "hall/pump") != pseudonym(KEY + b"0", "hall/pump")
    told = line(Privacy(Rule(key=KEY)), predictions())
    assert told["series"] == EXPECTED
    assert told["value"] == {"x": 48151.62, "p": 1013.25}


def test_an_alert_s_id_cannot_be_checked_against_a_guessed_name() -> None:
    told = Privacy(Rule(key=KEY)).alert(alert())
    assert (told.series, told.id != "00112233", len(told.id)) == (EXPECTED, True, 16)
    assert told.id == Privacy(Rule(key=KEY)).alert(alert(event="clear")).id
    assert told.id != Privacy(Rule(key=KEY + b"0")).alert(alert()).id


EXPECTED = "qdqpxfmxwucucyp5"
