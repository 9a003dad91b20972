"""What a remote call may say: anything else is refused in words, whatever the bytes."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from transom.core.pipeline import Message, Pipeline
from transom.edge.explainer import WAITING, Explainer
from transom.edge.inbox import Drained
from transom.edge.remote import BURST, Remote
from transom.edge.requests import NAMES, TYPES, Request, RequestError, decode, id_of, made
from transom.edge.requests import example as example_of
from transom.settings.rules import REMOTE

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6,
)  # fmt: skip
keys = st.sampled_from(["id", "stream", "series", "alert", "duration", "by", "false_alarms", "pieces", "method", "x"])


@hypothesis_settings(max_examples=150)
@given(
    st.sampled_from(NAMES),
    st.binary(max_size=60) | st.dictionaries(keys, values, max_size=5).map(lambda d: json.dumps(d).encode()),
)
@example("ping", b"[" * 4000)
@example("ping", b'{"id":' * 600)
@example("ping", b'{"id":"\\ud800"}')
def test_whatever_is_sent_is_a_request_or_is_refused_in_words(verb: str, payload: bytes) -> None:
    id_of(payload)
    try:
        assert isinstance(decode(verb, payload), Request)
    except RequestError as error:
        assert error.place
        assert error.problem
        assert error.remedy


def test_each_call_that_may_be_allowed_has_a_type_and_an_example_that_is_right() -> None:
    assert set(TYPES) == {*REMOTE, "unmute"} == set(NAMES)
    for verb in NAMES:
        decode(verb, example_of(verb).removeprefix("write it like ").encode())


def test_the_requests_of_the_guide_are_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "remote-calls.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)`[^|]*\| `(\{.*?\})`", page, re.MULTILINE)
    assert {verb for verb, _ in rows} == set(NAMES)
    for verb, request in rows:
        decode(verb, request.encode())
    assert json.loads(re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0])["error"].keys() == {
        "place", "problem", "remedy",
    }  # fmt: skip


def test_a_shell_gives_texts_and_a_request_has_numbers() -> None:
    sent = made("explain", {"stream": "1", "series": "2", "pieces": "16"}, "9")
    assert json.loads(sent) == {
        "id": "9", "stream": "1", "series": "2", "target": None, "pieces": 16, "method": None,
    }  # fmt: skip
    with pytest.raises(RequestError, match="no such call; did you mean ping"):
        made("pign", {}, "9")
    with pytest.raises(RequestError, match=r"pieces: expected `int` <= 64"):
        made("explain", {"stream": "1", "series": "2", "pieces": "65"}, "9")


def message(topic: str, payload: bytes = b'{"id":1}') -> Message:
    return Message(topic, payload, 1_700_000_000_000)


def test_requests_cut_a_batch_where_they_stand_and_no_more_often_than_the_rate_allows() -> None:
    remote = Remote("transom/gw", ["ping"], None)
    a, b, c = (message(f"plant/{x}") for x in "abc")
    ask = message("transom/gw/request/ping")
    assert remote.split([a, ask, ask, b, c]) == [([], [a]), ([ask, ask], [b, c])]
    assert remote.split([ask]) == [([ask], [])]
    assert remote.split([a, b]) == [([], [a, b])]
    flood = remote.split([m for _ in range(100) for m in (ask, a)])
    assert len(flood) <= BURST + 1
    assert sum(len(part) for _, part in flood) == 100
    assert Remote("transom/gw", [], None).split([ask, a]) == [([], [ask, a])]


def test_requests_that_the_inbox_dropped_are_no_readings() -> None:
    remote = Remote("transom/gw", ["ping"], None)
    dropped = Drained([], [], {"plant/a": 2, "transom/gw/request/ping": 3})
    assert remote.shed(dropped.shed) == {"plant/a": 2}
    assert remote.counts["shed"] == 3


@pytest.mark.parametrize("verb", ["a/b", "x" * 40, "\x1b[31m", ""])
def test_a_verb_that_is_no_topic_level_of_ours_gets_no_answer(verb: str) -> None:
    remote = Remote("transom/gw", ["ping"], None)
    assert remote.handle([message(f"transom/gw/request/{verb}")], Pipeline([])) == []
    assert remote.answers() == []
    assert remote.counts["refused"] == 1


def test_explanations_that_would_wait_too_long_are_refused_and_a_failure_is_answered() -> None:
    import threading

    hold, explainer = threading.Event(), Explainer()

    def slow() -> dict[str, object]:
        hold.wait(30)
        return {"slow": True}

    def broken() -> dict[str, object]:
        raise RuntimeError("no")

    taken = [explainer.submit(0, slow)] + [explainer.submit(1, broken) for _ in range(WAITING + 2)]
    assert taken.count(False) >= 2
    hold.set()
    answers = []
    while len(answers) < taken.count(True):
        answers += explainer.done()
    assert answers[0] == (0, {"slow": True})
    assert "failed (RuntimeError)" in str(answers[1][1])
