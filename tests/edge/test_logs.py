"""What repeats is counted, and the count is told even when it does not come again."""

import io
import logging
import threading

import pytest

from transom.edge import logs


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("transom", logging.WARNING, "", 0, "%s", (text,), None)


def test_a_warning_that_came_again_and_then_no_more_is_told_with_its_count() -> None:
    now = [0.0]
    collapse = logs.Collapse(lambda: now[0])
    for i in range(10):
        now[0] = float(i)
        collapse.filter(record("the broker is away"))
    assert collapse.due() == []
    now[0] = logs.REPEAT + 1
    assert [r.getMessage() for r in collapse.due()] == ["the broker is away (9 more times in the last 61 s)"]
    assert collapse.due() == []
    assert collapse.filter(record("the broker is away"))


def test_at_the_end_every_count_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(logs.sys, "stderr", said)
    root = logging.getLogger("transom")
    before = root.handlers[:], root.level, root.propagate
    try:
        logs.set_up("info")
        for _ in range(5):
            root.warning("the disk is slow")
        root.warning("only once")
        logs.tell()
        assert said.getvalue().count("\n") == 2
        root.handlers[0].close()
    finally:
        root.handlers[:], root.propagate = before[0], before[2]
        root.setLevel(before[1])
    assert said.getvalue().splitlines()[-1].endswith("the disk is slow (4 more times in the last 0 s)")


def test_a_count_that_had_to_make_room_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "REMEMBERED", 10)
    collapse = logs.Collapse(lambda: 0.0)
    for i in range(10):
        for _ in range(3):
            collapse.filter(record(f"line {i}"))
    collapse.filter(record("one more"))
    assert [r.getMessage() for r in collapse.due()] == [f"line {i} (2 more times in the last 0 s)" for i in range(10)]


def test_threads_that_log_at_once_lose_no_count() -> None:
    collapse = logs.Collapse(lambda: 0.0)
    passed: list[int] = []

    def warn() -> None:
        passed.extend(i for i in range(2000) if collapse.filter(record(f"line {i % 3}")))

    threads = [threading.Thread(target=warn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    collapse._clock = lambda: logs.REPEAT
    told = sum(int(r.getMessage().split("(")[1].split()[0]) for r in collapse.due())
    assert (len(passed), told) == (3, 8000 - 3)


def test_a_line_does_nothing_to_a_terminal_and_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    line = logs._Line(journald=True)
    said = line.format(record("a\x1b[2J\r\n<3>b\u202ec\u2028d\x9b"))
    assert said == "<4>a\\u001b[2J\\u000d | <3>b\\u202ec\\u2028d\\u009b"
