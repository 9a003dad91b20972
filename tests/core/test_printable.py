"""What a name from the network shows on a terminal and in a log: itself on one line, and no more than that."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hall/pump-1 21.5 °C µs 日本 é", "hall/pump-1 21.5 °C µs 日本 é"),
        ("a\x1b[31mb", "a\\u001b[31mb"),
        ("a\nb\rc\td\0", "a\\u000ab\\u000dc\\u0009d\\u0000"),
        ("a\x9b31m", "a\\u009b31m"),
        ("a\u202eb\u2028c\ufeff", "a\\u202eb\\u2028c\\ufeff"),
        ("a\ud800", "a\\ud800"),
        ("a\U000e0041", "a\\udb40\\udc41"),
        ("12\u00a0345", "12\u00a0345"),
    ],
)  # fmt: skip
def test_what_does_something_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_json_stays_what_it_was(text: str) -> None:
    assert json.loads(printable(json.dumps({text: text}, ensure_ascii=False))) == {text: text}
    assert len(printable(text).splitlines()) <= 1
