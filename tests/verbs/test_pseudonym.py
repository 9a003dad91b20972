"""`transom pseudonym` says what the agent says."""

import io
from pathlib import Path

import pytest

from transom.cli import main
from transom.dialects.privacy import Privacy, Rule

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_text(KEY + "\n")
    return str(tmp_path / "key")


def test_it_is_what_the_agent_calls_a_series_and_a_topic(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    privacy = Privacy(Rule(key=KEY.encode()))
    assert main(["pseudonym", "--key-file", key, "hall/pump", "b"]) == 0
    assert capsys.readouterr().out == f"{privacy.name('hall/pump')}  hall/pump\n{privacy.name('b')}  b\n"
    assert main(["pseudonym", "--key-file", key, "--topic", "plant/hall/pump"]) == 0
    assert capsys.readouterr().out.startswith(privacy.topic("plant/hall/pump"))


def test_names_come_from_standard_input_too(
    key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a b\nc\n"))
    assert main(["pseudonym", "--key-file", key]) == 0
    assert [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()] == ["a b", "c"]


def test_a_key_that_is_none_is_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text("short")
    for file, problem in (("key", "has 5 characters"), ("none", "No such file")):
        assert main(["pseudonym", "--key-file", str(tmp_path / file), "a"]) == 1
        assert problem in capsys.readouterr().err
