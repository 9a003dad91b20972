"""How a stream knows its senders, as its operator configures it: every mistake is one line, and none shows a key."""

import base64
import re
from pathlib import Path

import pytest

from transom.edge.assembly import build_pipeline
from transom.errors import SettingsError
from transom.settings import Settings, load_settings
from transom.settings.senders import read_keys

HEX = "0f" * 32
GUIDE = (Path(__file__).parents[2] / "docs" / "senders.md").read_text()


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "device-keys.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


def load(folder: Path, stream: str, broker: str = "") -> Settings:
    (folder / "agent.toml").write_text(
        f'[agent]\nstate = "state"\n[broker]\n{broker}\n[streams.s]\ntopic = "plant/{{device}}/{{channel}}"\n{stream}\n'
    )
    return load_settings(folder / "agent.toml", {})


def refusal(folder: Path, stream: str, broker: str = "") -> str:
    with pytest.raises(SettingsError) as refused:
        load(folder, stream, broker)
    (problem,) = refused.value.problems
    text = str(problem)
    assert "\n" not in text
    assert HEX[:8] not in text
    return text


def test_keys_are_read_as_hexadecimal_digits_or_base64_one_or_several(tmp_path: Path) -> None:
    text = base64.b64encode(b"k" * 20).decode()
    keys = read_keys(write(tmp_path, f'"hall/pump-1" = "{HEX}"\nfan = ["{text}", "{HEX.upper()}"]\n'))
    assert keys == {"hall/pump-1": (bytes.fromhex(HEX),), "fan": (b"k" * 20, bytes.fromhex(HEX))}


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])  # the last: a credential of systemd
def test_a_file_that_only_its_owner_reads_is_taken(tmp_path: Path, mode: int) -> None:
    assert read_keys(write(tmp_path, f'a = "{HEX}"', mode))


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o666])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path, f'a = "{HEX}"', mode)
    text = refusal(tmp_path, 'keys_file = "device-keys.toml"')
    assert f"can be read or changed by others (its mode is {mode:o}); type: chmod 600 " in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no device"),
        (f'a = "{HEX}', "is no TOML (at end of document)"),
        (f'a = "{HEX}"\nb = {HEX}\n', "is no TOML (at line 2)"),
        ('a = "0f"', "'a' has no key of 16 bytes or more"),
        (f'a = ["{HEX}", 5]', "'a' has no key of 16 bytes or more, or something else beside it"),
        ("a = 5", "'a' has no key of 16 bytes or more"),
        ("a = []", "'a' has no key of 16 bytes or more"),
        ('a = "zz' + "z" * 40 + '!"', "'a' has no key of 16 bytes or more"),
        (f"a = {[HEX] * 5}", "a list of 1 to 4"),
    ],
)
def test_a_file_without_good_keys_is_refused(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, text)
    assert words in refusal(tmp_path, 'keys_file = "device-keys.toml"')


def test_the_file_and_the_keys_of_the_guide_hold(tmp_path: Path) -> None:
    names, rest = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)[1:3]
    write(tmp_path, names.replace("the new key", HEX).replace("the old key", HEX))
    (tmp_path / "agent.toml").write_text(rest)
    (stream,) = load_settings(tmp_path / "agent.toml", {}).streams.values()
    assert stream.keys_file is not None
    assert sorted(read_keys(stream.keys_file)) == ["hall/pump-1", "hall/pump-2"]
    (tmp_path / "agent.toml").write_text(re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)[0])
    assert load_settings(tmp_path / "agent.toml", {}).broker.sender_property == "device"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path, 'keys_file = "device-keys.toml"')


@pytest.mark.parametrize(
    ("stream", "broker", "words"),
    [
        ('sender = "{device}"', "", "streams.s.sender: nobody says where the sender is named; set broker.sender_property"),
        ('sender = "{site}"', 'sender_property = "d"', "has no level 'site' to compare with; named: device, channel"),
        ('sender = "{device}"', 'sender_property = "d"\nprotocol = "3.1.1"', "MQTT 3.1.1 has no user properties"),
        ('sender = ""', 'sender_property = "d"', "is not one line of text"),
        ('replay_window = "soon"', "", "is not a duration"),
        ('max_rate = "fast"', "", 'is not a rate; write it like "1000/s"'),
        ('max_rate = "0/s"', "", "is not a rate"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(tmp_path: Path, stream: str, broker: str, words: str) -> None:
    assert words in refusal(tmp_path, stream, broker)


@pytest.mark.parametrize(
    ("text", "rate", "shown"),
    [
        ("1000/s", 1000.0, "1000/s"),
        ("30 per minute", 0.5, "30/min"),
        ("1/hour", 1 / 3600, "1/hour"),
        ("off", None, "off"),
    ],
)
def test_a_rate_is_written_as_people_write_it(tmp_path: Path, text: str, rate: float | None, shown: str) -> None:
    stream = load(tmp_path, f'max_rate = "{text}"').streams["s"]
    assert (stream.max_rate, stream.model_dump(mode="json")["max_rate"]) == (rate, shown)


def test_a_file_that_goes_away_after_the_check_stops_its_stream_only(tmp_path: Path) -> None:
    file = write(tmp_path, f'a = "{HEX}"')
    settings = load(tmp_path, 'keys_file = "device-keys.toml"\n[streams.t]\ntopic = "t/{device}"')
    assert HEX not in repr(settings)
    assert HEX not in settings.model_dump_json()
    file.unlink()
    assembly = build_pipeline(settings)
    assert list(assembly.pipeline.streams) == ["t"]
    assert "cannot be read: No such file" in str(assembly.broken["s"])
