"""The configuration as its user meets it: sources, defaults, and every problem at once with its place and remedy."""

import os
import re
import tomllib
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from transom.errors import SettingsError, TransomError
from transom.settings import Settings, load_settings, read
from transom.settings.options import AgentSettings, BrokerSettings, TlsSettings
from transom.settings.reference import SECTIONS, page, reference
from transom.settings.streams import StreamSettings

CONFIG = Path(__file__).parent.parent / "config"
SMALLEST = """
[broker]
host = "broker.example"

[streams.pumps]
topic = "plant/{site}/{device}/{channel}"
"""
UPDATE = "update_url = '{}'\nupdate_sha256 = '" + "0" * 64 + "'"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("TRANSOM_") or name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "CREDENTIALS_DIRECTORY"):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path):
    def write(text: str | bytes, name: str = "agent.toml") -> Path:
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def problems(config: Path | None, **overrides) -> dict[str, TransomError]:
    """What is refused, by key (the place without the file)."""
    with pytest.raises(SettingsError) as refusal:
        load_settings(config, overrides)
    prefix = f"{config}: " if config else ""
    return {p.place.removeprefix(prefix): p for p in refusal.value.problems}


# --- sources ------------------------------------------------------------------------------------------------------


def test_smallest_configuration_has_the_documented_defaults(toml):
    settings = load_settings(toml(SMALLEST), {})
    assert (settings.broker.host, settings.broker.port, settings.broker.qos) == ("broker.example", 1883, 1)
    pumps = settings.streams["pumps"]
    assert (pumps.model, pumps.step, pumps.raise_after, pumps.max_ahead) == ("universal", None, (1, 1), 300_000)
    assert pumps.budget == pytest.approx(1 / 604_800_000)
    assert settings.broker.client_id == f"transom-{settings.agent.id}"


def test_what_is_safe_holds_without_a_word(toml):
    settings = load_settings(toml(SMALLEST), {})
    assert settings.agent.remote == ()
    assert (settings.http.port, settings.http.host) == (None, "127.0.0.1")
    assert (settings.models.allow_unsigned, settings.broker.tls.insecure) == (False, False)
    stream = settings.streams["pumps"]
    assert (stream.max_rate, stream.replay_window) == (1000.0, 86_400_000)
    assert (stream.max_series, stream.max_payload) == (10_000, 1 << 20)


def test_flags_win_over_environment_over_file_over_defaults(toml, monkeypatch):
    file = toml(SMALLEST + 'lateness = "1s"\nhold_off = "1s"\nmax_gap = "1s"\n')
    monkeypatch.setenv("TRANSOM_STREAMS__PUMPS__HOLD_OFF", "2s")
    monkeypatch.setenv("TRANSOM_STREAMS__PUMPS__MAX_GAP", "2s")
    stream = load_settings(file, {"streams.pumps.max_gap": "3s"}).streams["pumps"]
    assert (stream.resync_after, stream.lateness, stream.hold_off, stream.max_gap) == (300_000, 1000, 2000, 3000)


def test_a_stream_can_come_from_the_environment_alone(monkeypatch):
    monkeypatch.setenv("TRANSOM_BROKER__HOST", "192.0.2.7")
    monkeypatch.setenv("TRANSOM_STREAMS__PUMPS__TOPIC", "plant/{site}/{device}/{channel}")
    monkeypatch.setenv("TRANSOM_STREAMS__PUMPS__SERIES", "site, device")
    monkeypatch.setenv("TRANSOM_STREAMS__PUMPS__CHANNELS__TEMP__UNIT", "°C")
    monkeypatch.setenv("TRANSOM_STREAMS__PUMPS__THRESHOLD", "4.5")
    settings = load_settings(None, {})
    stream = settings.streams["pumps"]
    assert settings.broker.host == "192.0.2.7"
    assert (stream.series, stream.channels["temp"].unit, stream.threshold) == (("site", "device"), "°C", 4.5)


def test_a_variable_reaches_a_stream_and_a_channel_whose_names_no_variable_can_spell(toml, monkeypatch):
    file = toml('[streams.Pump-Hall]\ntopic = "a/{channel}"\nchannels.Temp-1 = { unit = "K" }\n')
    monkeypatch.setenv("TRANSOM_STREAMS__PUMP_HALL__MODEL", "other")
    monkeypatch.setenv("TRANSOM_STREAMS__PUMP_HALL__CHANNELS__TEMP_1__UNIT", "°C")
    streams = load_settings(file, {}).streams
    assert list(streams) == ["Pump-Hall"]
    assert (streams["Pump-Hall"].model, streams["Pump-Hall"].channels["Temp-1"].unit) == ("other", "°C")


def test_an_empty_variable_counts_as_not_set(toml, monkeypatch):
    monkeypatch.setenv("TRANSOM_BROKER__HOST", "")
    assert load_settings(toml(SMALLEST), {}).broker.host == "broker.example"


def test_overrides_may_be_nested_tables_too(toml):
    settings = load_settings(toml(SMALLEST), {"broker": {"host": "b"}, "streams": {"x": {"topic": "x/#"}}})
    assert settings.broker.host == "b"
    assert list(settings.streams) == ["pumps", "x"]


def test_channels_are_a_list_or_a_table(toml):
    named = load_settings(toml(SMALLEST + 'channels = ["t", "h"]\n'), {}).streams["pumps"]
    assert list(named.channels) == ["t", "h"]
    table = '[streams.pumps.channels]\nt = { path = "a.t", unit = "°C", switch = true, on = ["AUF"], off = ["ZU"] }\n'
    t = load_settings(toml(SMALLEST + table), {}).streams["pumps"].channels["t"]
    assert (t.path, t.unit, t.switch, t.on, t.off) == ("a.t", "°C", True, ("AUF",), ("ZU",))


# --- defaults that depend on something ----------------------------------------------------------------------------


def test_state_is_systemds_folder_then_xdg_then_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/pat")
    assert AgentSettings().state == Path("/home/pat/.local/state/transom")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert AgentSettings().state == Path("/xdg/transom")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/transom:/var/lib/other")
    assert AgentSettings().state == Path("/var/lib/transom")


def test_the_hosts_name_is_made_safe_for_a_topic(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "pi 4/küche+#")
    assert AgentSettings().id == "pi-4-k-che"
    monkeypatch.setattr("socket.gethostname", lambda: "###")
    assert AgentSettings().id == "transom"


def test_tls_is_on_with_its_port_as_soon_as_it_is_configured(toml):
    ca = toml("certificate", "ca.pem")
    assert not BrokerSettings().tls.enabled
    assert not TlsSettings(insecure=False).enabled
    assert not TlsSettings(alpn=()).enabled
    assert TlsSettings(alpn=("mqtt",)).enabled
    broker = load_settings(toml(f'{SMALLEST}[broker.tls]\nca_file = "{ca.name}"\n'), {}).broker
    assert (broker.tls.enabled, broker.port, broker.tls.ca_file) == (True, 8883, ca)
    assert load_settings(None, {"streams.x.topic": "x", "broker.tls.enabled": "true"}).broker.port == 8883
    assert (
        load_settings(None, {"streams.x.topic": "x", "broker.tls.enabled": "true", "broker.port": "1"}).broker.port == 1
    )


def test_a_threshold_takes_the_place_of_the_default_budget(toml):
    assert load_settings(toml(SMALLEST + "threshold = 4\n"), {}).streams["pumps"].budget is None


def test_off_is_no_limit(toml):
    stream = load_settings(toml(SMALLEST + 'max_ahead = "off"\nforget_after = "off"\n'), {}).streams["pumps"]
    assert (stream.max_ahead, stream.forget_after) == (None, None)


def test_files_are_relative_to_the_configuration_and_in_flags_to_the_working_folder(toml, tmp_path, monkeypatch):
    toml("secret", "password")
    file = toml(
        SMALLEST.replace("[streams", 'username = "u"\npassword_file = "password"\n[streams') + 'model = "models/m.pt"\n'
    )
    settings = load_settings(file, {})
    assert settings.streams["pumps"].model == str(tmp_path / "models/m.pt")
    assert settings.broker.password_file == tmp_path / "password"
    assert settings.folder == tmp_path
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other").write_text("x")
    monkeypatch.chdir(tmp_path / "elsewhere")
    flags = {"broker.password_file": "other", "streams.pumps.model": "m.pt"}
    settings = load_settings(file, flags)
    assert settings.broker.password_file == tmp_path / "elsewhere" / "other"
    assert settings.streams["pumps"].model == str(tmp_path / "elsewhere" / "m.pt")
    assert load_settings(file, {"streams.pumps.model": "universal"}).streams["pumps"].model == "universal"


def test_file_names_may_hold_variables_as_of_systemds_credentials(toml, tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    toml("open sesame\n", "pw")
    flags = {"broker.username": "u", "broker.password_file": "${CREDENTIALS_DIRECTORY}/pw"}
    settings = load_settings(toml(SMALLEST), flags)
    assert settings.broker.password is not None
    assert settings.broker.password.get_secret_value() == "open sesame"


# --- problems -----------------------------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once_with_its_place(toml, monkeypatch):
    monkeypatch.setenv("TRANSOM_AGENT__INBOX", "many")
    monkeypatch.setenv("TRANSOM_BORKER__HOST", "x")
    file = toml(
        """
        [agnet]
        [broker]
        prot = 1883
        qos = 3
        password = "hush"
        password_file = "nowhere"
        [streams.pumps]
        topic = "plant/{site"
        series = ["room"]
        model = ""
        lateness = "5 minutes"
        false_alarms = "often"
        threshold = 4
        payload = "jsno"
        timezone = "Europe/Berln"
        [streams."a/b"]
        """
    )
    found = problems(file, **{"streams.pumps.raise_after": "4 of 3", "streams.pumps.hold_of": "1s"})
    assert set(found) == {
        "agnet", "broker.prot", "broker.qos", "broker.password_file", "streams.pumps.topic",
        "streams.pumps.model", "streams.pumps.lateness", "streams.pumps.false_alarms", "streams.pumps.threshold",
        "streams.pumps.payload", "streams.pumps.timezone", 'streams."a/b"', 'streams."a/b".topic',
        "environment TRANSOM_AGENT__INBOX", "environment TRANSOM_BORKER__HOST",
        "flag --streams.pumps.raise_after", "flag --streams.pumps.hold_of",
    }  # fmt: skip
    assert all("\n" not in str(p) and p.remedy for p in found.values())


@pytest.mark.parametrize(
    ("line", "key", "says"),
    [
        ("lateness = '5 minutes'", "lateness", ["'5 minutes' is not a duration", '"5m"']),
        ("max_gap = '0s'", "max_gap", ["no time at all"]),
        ("step = 'readings'", "step", ["'readings' is not a duration"]),
        ("false_alarms = 'often'", "false_alarms", ["'often' is not an alarm budget", '"1/week"']),
        ("max_series = true", "max_series", ["must be a number, not true"]),
        ("max_series = 0", "max_series", ["must be at least 1, not 0"]),
        ("max_series = 'x'", "max_series", ["must be a whole number, not 'x'"]),
        ("no_data = 'maybe'", "no_data", ["must be true or false, not 'maybe'"]),
        ("stride = 0", "stride", ["at least 1"]),
        ("threshold = nan", "threshold", ["finite"]),
        ("threshold = 0", "threshold", ["more than 0"]),
        ("payload = 'jsno'", "payload", ["'jsno' is not one of", 'did you mean "json"?']),
        ("timezone = 'Europe/Berln'", "timezone", ["'Europe/Berln' is not a known time zone", '"Europe/Berlin"']),
        ("timezone = '/etc/passwd'", "timezone", ["is not a known time zone"]),
        ("model_sha256 = 'abc'", "model_sha256", ["'abc' is not a SHA-256"]),
        ("update_url = 'https://h/m.pt'", "update_url", ["no update_sha256 to go with it"]),
        (f"update_sha256 = '{'0' * 64}'", "update_sha256", ["no update_url to go with it"]),
        (UPDATE.format("http://h/m.pt"), "update_url", ["'http://h/m.pt' is no https address"]),
        (UPDATE.format("https://u:geheim@h/m"), "update_url", ["has a name or a password in it"]),
        (UPDATE.format("https://h:99999/m"), "update_url", ["is no address"]),
        (UPDATE.format("https://h/a b"), "update_url", ["cannot be asked for"]),
        ("series = ['room']", "series", ["has no level 'room'", "named: site, device"]),
        ("series = ['site', 'site']", "series", ["names a level twice"]),
        ("series = [1]", "series.0", ["must be text, not 1"]),
        ("channels = ['a', 'a']", "channels", ["names a channel twice"]),
        ("channels = 5", "channels", ["must be a table"]),
        ("channels.a.unti = 'K'", "channels.a.unti", ["unknown key", "did you mean streams.pumps.channels.a.unit?"]),
        ("raise_after = [3, 2]", "raise_after", ["[3, 2] is not 'n of m'", '"2 of 3"']),
        ("payload = 'number'\nvalue = 'a'", "value", ["has no meaning"]),
        ("tpoic = 'x'", "tpoic", ["unknown key", "did you mean streams.pumps.topic?"]),
        ("qqq = 1", "qqq", ["unknown key", "known: topic, series"]),
        ("host = 'x'", "host", ["unknown key", "did you mean broker.host?"]),
        ("max_payload = 'huge'", "max_payload", ["'huge' is not a size"]),
    ],
)  # fmt: skip
def test_a_bad_stream_setting_is_refused_with_key_value_and_remedy(toml, line, key, says):
    (place, problem), *others = problems(toml(SMALLEST + line + "\n")).items()
    assert not others
    assert place == f"streams.pumps.{key}"
    assert "geheim" not in str(problem)
    for part in says:
        assert part in str(problem)


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [
        ("[broker]\nhost = 'mqtt://u:geheim@b:1'", "broker.host", ["more than a host name"]),
        ("[broker]\nhost = 'b:1883'", "broker.host", ["'b:1883' has a port in it", "broker.port"]),
        ("[broker]\nhost = ''", "broker.host", ["not a host name"]),
        ("[broker]\nhost = 5", "broker.host", ["must be text, not 5", "quotes"]),
        ("[broker]\nport = 70000", "broker.port", ["at most 65,535, not 70000"]),
        ("[broker]\nprotocol = 4", "broker.protocol", ["'4' is not one of", "auto, 5, 3.1.1"]),
        ("[broker]\nkeepalive = '1d'", "broker.keepalive", ["86400 seconds is not possible"]),
        ("[broker]\npassword = 'geheim'", "broker.password", ["no username"]),
        ("[broker]\nusername = 'u'\npassword = 7", "broker.password", ["must be text, not what it is"]),
        ("[broker]\nusername = 'u'\npassword_file = 'gone'", "broker.password_file", ["cannot be read: No such file"]),
        ("[broker]\nusername = 'u'\npassword_file = '.'", "broker.password_file", ["is not a regular file"]),
        ("[broker.tls]\nca_file = 'gone.pem'", "broker.tls.ca_file", ["cannot be read"]),
        ("[broker]\nclient_id = \"a\\nb\"", "broker.client_id", ["'a\\nb' is not one line"]),
        ("[broker.tls]\ncert_file = '/dev/zero'", "broker.tls.cert_file", ["is not a regular file"]),
        ("_env_file = 'x'\n", "_env_file", ["unknown key", "known: agent, broker, homeassistant, http, models, privacy, streams"]),
        ("[broker.tls]\nca_fiel = 'x'", "broker.tls.ca_fiel", ["did you mean broker.tls.ca_file?"]),
        ("[agent]\nid = 'a/b'", "agent.id", ["'a/b' is not one topic level"]),
        ("[agent]\nid = \"a\\nb\"", "agent.id", ["'a\\nb' is not one topic level"]),
        ("[agent]\nlog_level = 'verbose'", "agent.log_level", ["known: debug, info, warning, error"]),
        ("[agent]\nthreads = 1.5", "agent.threads", ["must be a whole number, not 1.5"]),
        ("[homeassistant]\nprefix = 'a/'", "homeassistant.prefix", ["'a/' is no topic to publish under"]),
        ("[agent]\nremote = ['pnig']", "agent.remote", ["'pnig' is no remote call", 'did you mean "ping"?']),
        ("[agent]\nremote = ['unmute']", "agent.remote", ["there are ping, reload, mute"]),
        ("[agent]\nremote = ['ping', 'ping']", "agent.remote", ["names a call twice"]),
        ("[agent]\ngroups = ['a/b']", "agent.groups", ["'a/b' is not one topic level"]),
        ("[agent]\ngroups = ['a', 'a']", "agent.groups", ["one named twice"]),
        ("[models]\nupdates = ['mqt']", "models.updates", ["'mqt' is no way", 'did you mean "mqtt"?']),
        ("[models]\nupdates = ['mqtt']", "models.updates", ["without a key that is trusted", "models.trusted_keys"]),
        ("[models]\nupdates = ['folder']", "models.updates", ["has no folder", "set models.updates_folder"]),
        ("[models]\nupdates_largest = '1GiB'", "models.updates_largest", ["1GiB is too small or too large"]),
        ("[models]\nupdates_ca_file = 'gone.pem'", "models.updates_ca_file", ["cannot be read: No such file"]),
        ("[http]\nprot = 1", "http.prot", ["unknown key", "did you mean http.port?"]),
        ("[models]\nfoo = 1", "models.foo", ["unknown key", "known: trusted_keys, allow_unsigned"]),
        ("[broker]\nca = 'x.pem'", "broker.ca", ["unknown key", "did you mean broker.tls.ca_file?"]),
        ("[streams.update]\ntopic = 'a'", "streams.update", ["agent's own topics"]),
        ("[stream]\nx = 1", "stream", ["unknown key", "did you mean streams?"]),
        ("[streams.status]\ntopic = 'a'", "streams.status", ["agent's own topics"]),
        ("[streams.'a b']\ntopic = 'a'", 'streams."a b"', ["not a stream's name"]),
        ("[streams.x]\ntopic = 'a/#/b'", "streams.x.topic", ["'#' before the end"]),
        ("[streams.x]", "streams.x.topic", ["is missing"]),
        ("[streams]\ntopic = 'a'", "streams.topic", ["must be a table, not text", "write [streams.NAME] with topic"]),
    ],
)  # fmt: skip
def test_a_bad_section_is_refused_with_key_value_and_remedy(toml, table, key, says):
    file = toml(table + ("" if "[streams" in table else "\n[streams.pumps]\ntopic = 'a/{channel}'\n"))
    (place, problem), *others = problems(file).items()
    assert not others
    assert place == key
    assert "geheim" not in str(problem)
    for part in says:
        assert part in str(problem)


def test_nothing_to_watch_is_a_problem_unless_the_caller_says_otherwise(toml):
    assert "nothing to watch" in str(problems(toml("[broker]\n"))["streams"])
    assert "nothing to watch" in str(problems(None)["streams"])
    assert load_settings(None, {}, need_streams=False).streams == {}


def test_a_missing_file_is_named(tmp_path):
    (problem,) = problems(tmp_path / "gone.toml").values()
    assert str(problem).startswith(f"{tmp_path / 'gone.toml'}: cannot be read: No such file or directory")


def test_a_folder_is_no_file(tmp_path):
    assert "Is a directory" in str(*problems(tmp_path).values())


def test_a_toml_mistake_is_named_with_line_and_column(toml):
    file = toml("[broker]\nhost = x\n")
    (problem,) = problems(file).values()
    assert str(problem).startswith(f"{file}: line 2, column 8: Invalid value")


def test_invalid_utf8_is_named_with_its_line(toml):
    file = toml(b'[broker]\nhost = "\xff"\n')
    (problem,) = problems(file).values()
    assert str(problem).startswith(f"{file}: line 2: byte 0xff is not UTF-8")


def test_an_unreadable_file_hides_no_mistake_in_the_flags(toml):
    found = problems(toml("[broker\n"), **{"broker.hots": "x", "broker.port": "0", "streams.x.lateness": "1s"})
    assert len(found) == 3
    assert "did you mean broker.host?" in str(found["flag --broker.hots"])


def test_toml_nested_too_deep_is_refused(toml):
    assert "nested too deep" in str(*problems(toml("x = " + "[" * 100_000)).values())


def test_streams_without_problems_are_still_told(toml):
    reading = read(toml(SMALLEST + "[streams.bad]\n"), {})
    assert reading.settings is None
    assert list(reading.streams) == ["pumps"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_stream = st.dictionaries(st.sampled_from([*StreamSettings.model_fields, "?"]), _json, max_size=6)
_broker = st.dictionaries(st.sampled_from([*BrokerSettings.model_fields, "?"]), _json, max_size=6)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.fixed_dictionaries({}, optional={
        "agent": st.dictionaries(st.sampled_from(list(AgentSettings.model_fields)), _json, max_size=6) | _json,
        "broker": _broker | _json, "streams": st.dictionaries(st.text(max_size=4), _stream, max_size=3) | _json,
        "_secrets_dir": _json, "self": _json,
    })
)  # fmt: skip
def test_whatever_is_written_is_settings_or_problems_of_one_line_each(tables):
    try:
        load_settings(None, tables)
    except SettingsError as refusal:
        for problem in refusal.problems:
            assert len(str(problem).splitlines()) == 1
            assert problem.remedy


# --- secrets ------------------------------------------------------------------------------------------------------


def test_no_secret_is_shown(toml, monkeypatch):
    monkeypatch.setenv("TRANSOM_BROKER__PASSWORD", "geheim")
    settings = load_settings(toml(SMALLEST), {"broker.username": "u"})
    assert settings.broker.password is not None
    assert settings.broker.password.get_secret_value() == "geheim"
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.broker)):
        assert "geheim" not in shown
    found = problems(toml("[streams.x]\n"), **{"broker.password_file": "gone", "broker.prot": "geheim"})
    assert "geheim" not in " ".join(map(str, found.values()))


def test_settings_are_frozen(toml):
    settings = load_settings(toml(SMALLEST), {})
    with pytest.raises(ValueError, match="frozen"):
        settings.broker.host = "other"  # type: ignore[misc]


# --- the reference and the examples -------------------------------------------------------------------------------


def test_the_reference_is_what_the_options_say():
    assert (CONFIG / "agent.toml").read_text() == reference(), "run: python -m transom.settings > config/agent.toml"


def test_the_page_of_settings_is_what_the_options_say():
    text = (CONFIG.parent / "docs" / "settings.md").read_text()
    assert text == page(), "run: python -m transom.settings --page > docs/settings.md"


def test_every_setting_stands_in_the_reference_with_its_true_default():
    text = reference()
    active = tomllib.loads(text)
    lines = [line[1:] if re.match(r"#[\w\[]", line) else line for line in text.split("\n")]
    lists = [line for line in lines if line.startswith("channels = ")]  # the list form of the tables at the end
    assert len(lists) == 1
    everything = tomllib.loads("\n".join(line for line in lines if line not in lists))
    expected = Settings(streams={"pumps": {"topic": "plant/{site}/{device}/{channel}"}}).model_dump(mode="json")
    for table, cls in SECTIONS:
        shown, listed, defaults = active, everything, expected
        for part in table.split("."):
            shown, listed, defaults = shown.get(part, {}), listed[part], defaults.get(part, {})
        options = {k for k, f in cls.model_fields.items() if k not in ("tls",)}
        assert options - set(listed) - ({"channels"} if cls is StreamSettings else set()) == set()
        for key in options:
            field = cls.model_fields[key]
            assert field.description, key
            if key in shown and not field.is_required():
                assert shown[key] == defaults[key], key
            elif not field.is_required() and table != "streams.pumps.channels.temperature":
                assert "Default:" in field.description or field.default is None, key
    for key, field in SECTIONS[-1][1].model_fields.items():
        assert everything["streams"]["pumps"]["channels"]["temperature"][key] == (
            list(field.default) if isinstance(field.default, tuple) else field.default
        )


def test_the_reference_loads_as_the_defaults():
    loaded = load_settings(CONFIG / "agent.toml", {})
    defaults = Settings(streams={"pumps": {"topic": "plant/{site}/{device}/{channel}"}})
    assert loaded.model_dump() == defaults.model_dump()


@pytest.mark.parametrize("file", sorted((CONFIG / "examples").glob("*.toml")), ids=lambda f: f.name)
def test_every_example_loads(file):
    assert load_settings(file, {}).streams


def test_there_are_the_three_examples():
    assert {f.stem for f in (CONFIG / "examples").glob("*.toml")} >= {"smallest", "zigbee2mqtt", "machine"}
