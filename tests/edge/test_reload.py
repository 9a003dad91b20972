"""A changed configuration: read once it is whole, refused when a stream that runs would break by it."""

import os
import time
from pathlib import Path

import pytest

from transom.edge import reload as reloading
from transom.edge.reload import Reload, check_fixed
from transom.errors import TransomError
from transom.settings import Settings, load_settings

STREAM = '[streams.{}]\ntopic = "{}/{{device}}/{{channel}}"\n'


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    clock = [100.0]
    monkeypatch.setattr(reloading.time, "monotonic", lambda: clock[0])
    return clock


def reload_of(path: Path) -> tuple[Reload, Settings]:
    return Reload(lambda: load_settings(path, {}), path), load_settings(path, {})


def built(reload: Reload, current: Settings, running: tuple[str, ...] = ()) -> Settings | None:
    """What comes of a reload that has begun."""
    assert reload._building is not None
    reload._building.join(60)
    result = reload.take(current, running)
    return result[0] if result else None


def write(path: Path, text: str, stamp: int) -> None:
    path.write_text(text)
    os.utime(path, (stamp, stamp))


@pytest.mark.parametrize("asked", [True, False])
def test_a_file_is_read_when_it_has_not_changed_for_a_moment(tmp_path: Path, quick: list[float], asked: bool) -> None:
    path = tmp_path / "agent.toml"
    write(path, STREAM.format("s", "plant"), 1)
    reload, current = reload_of(path)
    text = STREAM.format("s", "plant") + STREAM.format("t", "home")
    write(path, STREAM.format("t", "home"), 2)  # half of it is good TOML, and lacks what runs
    if asked:
        reload.ask()
    quick[0] += reloading.LOOK
    assert reload.take(current) is None
    for i in range(5):
        quick[0] += reloading.SETTLE / 2
        write(path, text[: len(text) - 5 + i], 3 + i)
        assert reload.take(current) is None
        assert reload._building is None
    write(path, text, 10)
    quick[0] += reloading.SETTLE
    reload.take(current)
    assert reload._building is None
    quick[0] += reloading.SETTLE
    reload.take(current)
    settings = built(reload, current)
    assert settings is not None
    assert list(settings.streams) == ["s", "t"]


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, quick: list[float]) -> None:
    path = tmp_path / "agent.toml"
    write(path, STREAM.format("s", "plant"), 1)
    current = load_settings(path, {})

    def read() -> Settings:
        settings = load_settings(path, {})
        if len(settings.streams) == 1:
            write(path, STREAM.format("s", "plant") + STREAM.format("t", "home"), 2)
        return settings

    reload = Reload(read, path)
    reload.ask()
    reload.take(current)
    quick[0] += reloading.SETTLE
    reload.take(current)
    assert built(reload, current) is None
    for _ in range(3):
        quick[0] += reloading.SETTLE
        reload.take(current)
    settings = built(reload, current)
    assert settings is not None
    assert list(settings.streams) == ["s", "t"]


def test_a_reload_by_which_a_running_stream_would_break_is_refused_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "agent.toml"
    both = STREAM.format("s", "plant"), STREAM.format("t", "home")
    path.write_text("".join(both))
    reload, current = reload_of(path)
    reload._file = None  # asked only
    path.write_text(both[0] + 'model = "univrsal"\n' + both[1])
    for running, refused in ((("s", "t"), True), (("t",), False)):  # what does not run already has nothing to lose
        caplog.clear()
        reload.ask()
        end = time.monotonic() + 30
        while reload._building is None and time.monotonic() < end:
            reload.take(current, running)
        settings = built(reload, current, running)
        assert (settings is None) == refused
        lines = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        assert len(lines) == 1
        assert "univrsal" in lines[0]
        assert ("the old one goes on" in lines[0]) == refused


@pytest.mark.parametrize("changed", [{"privacy": {"values": "none"}}, {"resolution": 0.5}])
def test_what_leaves_is_fixed_while_the_agent_runs(changed: dict) -> None:
    """A message under the old rule may be retained, or wait to be sent: nobody should think that it is not."""

    def of(privacy: dict | None = None, resolution: float = 0.0) -> Settings:
        channels = {"x": {"resolution": resolution}}
        return load_settings(
            None, {"privacy": privacy or {}, "streams": {"s": {"topic": "a/{b}", "channels": channels}}}
        )

    check_fixed(of(), of())
    with pytest.raises(TransomError, match="is fixed while the agent runs"):
        check_fixed(of(**changed), of())


def test_certificates_that_cannot_be_used_are_refused_before_the_present_connection_goes(
    tmp_path: Path, quick: list[float]
) -> None:
    path = tmp_path / "agent.toml"
    (tmp_path / "ca.pem").write_text("no certificate")
    write(path, STREAM.format("s", "plant"), 1)
    reload, current = reload_of(path)
    write(path, '[broker.tls]\nca_file = "ca.pem"\n' + STREAM.format("s", "plant"), 2)
    for seconds in (reloading.LOOK, reloading.SETTLE):
        quick[0] += seconds
        reload.take(current)
    assert built(reload, current) is None
    (problem,) = reload.concluded() or ()
    assert problem.place == "broker.tls.ca_file"
