"""Patterns with named levels against MQTT's own rules of matching."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from transom.core.topics import Pattern, cover
from transom.errors import PatternError

LEVEL = st.sampled_from(["a", "b", "", "plant", "$SYS", "é"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(bool)
PATTERN = st.tuples(
    st.lists(st.sampled_from(["a", "b", "plant", "+", "{x}", "{y}", "{z}", "$SYS"]), min_size=1, max_size=4),
    st.booleans(),
).map(lambda p: "/".join([*p[0], "#"] if p[1] else p[0]))


@given(PATTERN, TOPIC)
def test_a_pattern_matches_what_its_filter_matches(text: str, topic: str) -> None:
    try:
        pattern = Pattern.parse(text)
    except PatternError:
        assert any(text.count(name) > 1 for name in ("{x}", "{y}", "{z}"))
        return
    assert (pattern.match(topic) is not None) == topic_matches_sub(pattern.filter, topic)


def test_the_named_levels_are_read() -> None:
    pattern = Pattern.parse("plant/{site}/+/{channel}")
    assert pattern.filter == "plant/+/+/+"
    assert pattern.match("plant/north/x/temperature") == ("north", "temperature")
    assert pattern.check_series(()) == ("site",)


def test_a_shared_subscription_is_subscribed_to_and_matched_without_its_group() -> None:
    pattern = Pattern.parse("$share/gateways/plant/{device}/{channel}")
    assert pattern.filter == "$share/gateways/plant/+/+"
    assert pattern.match("plant/a/x") == ("a", "x")
    assert pattern.match("$share/gateways/plant/a/x") is None


@pytest.mark.parametrize(
    "text", ["", "a/#/b", "a/b+", "{x}/{x}", "a{x}", "$share/g", "$share//a", "$share/+/a", "a\0b", "a/{x"]
)
def test_a_bad_pattern_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(PatternError):
        Pattern.parse(text)


FILTER = PATTERN.map(lambda text: text.replace("{x}", "+").replace("{y}", "+").replace("{z}", "+"))


@given(st.lists(FILTER, max_size=6), TOPIC)
def test_filters_that_cover_others_match_the_same_topics_and_each_only_once(filters: list[str], topic: str) -> None:
    covering = [f for f in cover(filters) if topic_matches_sub(f, topic)]
    assert len(covering) <= 1
    assert len(covering) == 1 or not any(topic_matches_sub(f, topic) for f in filters)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["o/+", "o/#"], ["o/#"]),
        (["o/#", "o"], ["o/#"]),
        (["a/+/x", "a/b/+"], ["a/+/+"]),
        (["a/+", "a/b/#"], ["a/+/#"]),
        (["a/b", "a/c", "b/+"], ["a/b", "a/c", "b/+"]),
        (["#", "$SYS/#"], ["#", "$SYS/#"]),
        (["$share/g/a/+", "$share/g/a/#", "$share/h/a/#", "a/#"], ["$share/g/a/#", "$share/h/a/#", "a/#"]),
    ],
)
def test_overlapping_filters_become_one_and_others_stay(filters: list[str], expected: list[str]) -> None:
    assert cover(filters) == expected
