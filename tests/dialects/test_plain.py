"""Our topics and lines, as the contract has them."""

import json

import numpy as np
import pytest

from transom.core.alerts import State, alert_id
from transom.core.events import Alert, DeadLetter, Events, Predictions, Told
from transom.dialects.plain import lines, publications, rfc3339, topic_part

END = 1_404_216_000_000_000


def predictions(**changes: object) -> Predictions:
    given = {
        "stream": "replay", "model": "universal@1", "series": ["nyc_taxi"], "channels": [("value",)],
        "end": np.array([END]), "value": np.array([[10844.0]], np.float32), "state": np.array([State.NORMAL], np.uint8),
        "score": np.array([3.1], np.float32), "p_value": np.array([0.0021]), "expected": np.array([[15211.0]], np.float32),
        "interval": np.array([[[13800.0, 16520.0]]], np.float32), "contribution": np.array([[1.0]], np.float32),
    }  # fmt: skip
    return Predictions(**(given | changes))


def test_a_line_is_the_contract_s() -> None:
    (line,) = lines(predictions())
    assert json.loads(line) == {
        "time": "2014-07-01T12:00:00.000Z", "stream": "replay", "series": "nyc_taxi", "model": "universal@1", "score": 3.1,
        "p_value": 0.0021, "value": {"value": 10844.0}, "expected": {"value": 15211.0},
        "interval": {"value": [13800.0, 16520.0]}, "contribution": {"value": 1.0}, "state": "normal",
    }  # fmt: skip


def test_keys_that_a_task_does_not_give_are_left_out() -> None:
    nothing = dict.fromkeys(("score", "p_value", "expected", "interval", "contribution"))
    batch = predictions(**nothing, probability=np.array([[0.25, 0.75]], np.float32), classes=("off", "on"))
    (line,) = lines(batch)
    assert json.loads(line)["probability"] == {"off": 0.25, "on": 0.75}
    assert not set(nothing) & set(json.loads(line))


def test_a_missing_value_is_null() -> None:
    (line,) = lines(predictions(value=np.array([[np.nan]], np.float32)))
    assert json.loads(line)["value"] == {"value": None}


def test_where_things_are_published() -> None:
    alert = Alert("1", "raise", "anomaly", "warning", "s", "a/b", "m@1", END, END, "a sentence", 1.0, 1.0, 0.1)
    events = Events([predictions()], [alert], [DeadLetter("s", "x/y", b"\xff" * 5000, "why")])
    sent = {p.topic: p for p in publications(events, "transom/gw")}
    assert (
        sent["transom/gw/replay/nyc_taxi/prediction"].qos,
        sent["transom/gw/replay/nyc_taxi/prediction"].retain,
    ) == (0, False)
    assert (sent["transom/gw/s/a/b/alert"].qos, sent["transom/gw/s/a/b/alert"].retain) == (1, True)
    letter = json.loads(sent["transom/gw/s/dead-letter"].payload)
    assert (letter["bytes"], letter["reason"], len(letter["payload"])) == (5000, "why", 1368)


def test_a_series_name_never_breaks_a_topic() -> None:
    assert topic_part("a+b/#/c\0%ü") == "a%2Bb/%23/c%00%25ü"


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (END, "2014-07-01T12:00:00.000Z"), (END + 250, "2014-07-01T12:00:00.000250Z")],
)
def test_times_show_microseconds_only_where_there_are_any(micro: int, text: str) -> None:
    assert rfc3339(micro) == text


def test_the_sentence_is_one_that_a_person_can_check() -> None:
    text = Told(("temperature",), ("°C",), (84.2,), (71.3,), ((69.2, 73.4),), None, "", 0).text(1.0)
    assert text == "temperature 84.2 °C, expected 71.3 (69.2 to 73.4)"


def test_a_sentence_names_each_channel_with_value_unit_expected_value_and_interval() -> None:
    told = Told(
        ("vibration", "pressure"), ("mm/s", "bar"), (9.2, 3.1), (2.1, 4.2), ((1.9, 2.3), (4.1, 4.4)), None, "", 0
    )  # fmt: skip
    assert (
        told.text(1.0) == "vibration 9.2 mm/s, expected 2.1 (1.9 to 2.3); pressure 3.1 bar, expected 4.2 (4.1 to 4.4)"
    )


def test_an_alert_s_id_depends_on_what_it_is_about_only() -> None:
    assert alert_id("s", "a", "anomaly", 5) == alert_id("s", "a", "anomaly", 5)
    assert (
        len(
            {
                alert_id(*about)
                for about in [("s", "a", "anomaly", 5), ("s", "a", "no-data", 5), ("s", "b", "anomaly", 5)]
            }
        )
        == 3
    )


def test_names_may_hold_what_json_and_templates_mean_something_by() -> None:
    odd, names = '%b "x", {é}\\', ('a"b', "%", "c,d")
    wide = {
        key: np.arange(3, dtype=np.float32)[None] for key in ("value", "expected", "contribution")
    } | {"interval": np.arange(6, dtype=np.float32).reshape(1, 3, 2)}  # fmt: skip
    (line,) = lines(predictions(stream=odd, model=odd, series=[odd], channels=[names], **wide))
    found = json.loads(line)
    assert (found["stream"], found["model"], found["series"]) == (odd, odd, odd)
    assert found["value"] == dict(zip(names, [0.0, 1.0, 2.0], strict=True))
    assert found["interval"] == dict(zip(names, [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], strict=True))


@pytest.mark.parametrize("ends", [[END, END + 1], [END, END + 1000], [-1000], [END + 123_000]])
def test_times_are_written_alike_in_any_company(ends: list[int]) -> None:
    batch = predictions(
        end=np.array(ends), series=["s"] * len(ends), channels=[("value",)] * len(ends),
        **{key: np.ones((len(ends), 1), np.float32) for key in ("value", "expected", "contribution")},
        interval=None, score=np.ones(len(ends), np.float32), p_value=np.ones(len(ends)), state=np.zeros(len(ends), np.uint8),
    )  # fmt: skip
    assert [json.loads(line)["time"] for line in lines(batch)] == [rfc3339(end) for end in ends]
