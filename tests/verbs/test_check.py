"""`transom check`: all problems of settings, models and broker at once; a summary and warnings when there are none."""

import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from transom.cli import main
from transom.core.model import ANY, Channel, Manifest
from transom.runtimes import minisign, trust
from transom.runtimes.bundle import Bundle, write_bundle
from transom.settings import load_settings
from transom.verbs.check import summary

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
ANY_SENSOR = Manifest(name="universal", version="1", task="anomaly", family="cnn", channels=(Channel(ANY),), length=64)
TWO_SENSORS = Manifest(
    name="machine", version="2", task="anomaly", family="lstm", step=1000, length=60,
    channels=(Channel("speed", "rpm"), Channel("heat", "°C")),
)  # fmt: skip
UNIVERSAL = Bundle(Path("universal.pt"), ANY_SENSOR, 1, "5f" * 32, {})
KEY = minisign.SecretKey(b"checking", bytes(range(32)))
MACHINE = Bundle(Path("machine.pt"), TWO_SENSORS, 1, "a0" * 32, {})


class Distance(torch.nn.Module):
    """The smallest detector there is: how far the last step is from the mean of its window."""

    def forward(self, window: torch.Tensor) -> dict[str, torch.Tensor]:
        window = torch.nan_to_num(window)  # [B, T, C]
        expected = window.mean(1)
        contribution = (window[:, -1] - expected).abs()
        return {"score": contribution.sum(1), "contribution": contribution, "expected": expected}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("TRANSOM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TRANSOM_MODELS__TRUSTED_KEYS", KEY.public.text)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "agent.toml"
        file.write_text(text)
        return file

    return write


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with the two models, as transom train would write them, signed."""
    folder = tmp_path_factory.mktemp("models")
    compiled = torch.jit.script(Distance())
    write_bundle(compiled, ANY_SENSOR, folder / "any.pt")
    write_bundle(compiled, TWO_SENSORS, folder / "machine.pt")
    for file in folder.glob("*.pt"):
        trust.signature_path(file).write_text(minisign.sign(file.read_bytes(), KEY, "test"))
    return folder


def told(overrides: dict, bundles: dict[str, Bundle]) -> str:
    return "\n".join(summary(load_settings(None, overrides), bundles))


def test_all_problems_are_printed_at_once_with_status_2(toml, capsys):
    file = toml('[broker]\nprot = 1\n[streams.a]\ntopic = "a/#/b"\n[streams.b]\ntopic = "b"\nmodel = "gone.pt"\n')
    assert main(["check", "-c", str(file), "--streams.b.lateness", "soon"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(": ")[2].partition(":")[0] for line in err.splitlines()[:-1]] == [
        str(file), str(file), "flag --streams.b.lateness", str(file),
    ]  # fmt: skip
    assert "streams.b.model: there is no model file" in err
    assert err.endswith("transom: 4 problems in the configuration\n")


def test_a_missing_model_is_told_together_with_the_settings_problems(toml, capsys):
    file = toml('[broker]\nprot = 1\n[streams.b]\ntopic = "b"\nmodel = "gone.pt"\n')
    assert main(["check", "-c", str(file)]) == 2
    err = capsys.readouterr().err
    assert "broker.prot: unknown key" in err
    assert f"streams.b.model: there is no model file '{file.parent / 'gone.pt'}'" in err


def test_a_missing_model_is_told_also_of_a_stream_that_is_wrong_otherwise(toml, capsys):
    file = toml('[streams.pumps]\ntopic = "plant/{device}"\nmodel = "univeral"\nfalse_alarm = "1/week"\n')
    assert main(["check", "-c", str(file)]) == 2
    error = capsys.readouterr().err
    assert "streams.pumps.false_alarm: unknown key; did you mean streams.pumps.false_alarms?" in error
    assert "streams.pumps.model: there is no model 'univeral'; did you mean 'universal'?" in error
    assert "2 problems in the configuration" in error


def test_the_machine_example_says_how_its_model_is_made(capsys):
    file = EXAMPLES / "machine.toml"
    if (EXAMPLES / "skab-lstm.pt").exists():
        pytest.skip("the example's model was trained here")
    assert main(["check", "-c", str(file)]) == 2
    (line, count) = capsys.readouterr().err.splitlines()
    model = EXAMPLES / "skab-lstm.pt"
    assert line == (
        f"transom: {file}: streams.machine.model: there is no model file '{model}'; "
        f"train it: transom train --data RECORDING.csv --task anomaly --family lstm --output {model}"
    )
    assert count == "transom: 1 problem in the configuration"


def test_the_summary_names_broker_streams_and_models(toml):
    settings = load_settings(
        toml(
            '[streams.pumps]\ntopic = "plant/{site}/{device}/{channel}"\n[streams.m]\ntopic="m/{machine}/#"\nthreshold = 4\n'
        ),
        {"agent.id": "gate"},
    )
    shown = "\n".join(summary(settings, {"pumps": UNIVERSAL, "m": MACHINE}, "logged in with MQTT 5"))
    for part in (
        "agent.toml", "gate: publishes under transom/gate/", "127.0.0.1:1883, MQTT 5, else 3.1.1, no TLS, anonymous",
        "logged in with MQTT 5", "pumps: plant/+/+/+", "universal@1 for anomaly: any sensor", f"sha256 {'5f' * 32}",
        "windows of 64 steps, step reading, false alarms 1/week a series",
        "machine@2 for anomaly: speed, heat", f"sha256 {'a0' * 32}",
        "windows of 60 steps, step 1s, score 4 a series",
    ):  # fmt: skip
        assert part in shown
    assert shown.endswith("no problems")
    assert "WARNING" not in shown


def test_insecure_options_are_loud(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("geheim")
    secret.chmod(0o644)
    stream = {"streams.x.topic": "x/{channel}"}
    login = {"broker.username": "u", "broker.password_file": str(secret)}
    plain = told(stream | login | {"broker.host": "broker.example"}, {"x": UNIVERSAL})
    assert "WARNING        broker.tls is off: the password and all readings travel readable to broker.example" in plain
    assert f"WARNING        broker.password_file: other users may read it; chmod 600 {secret}" in plain
    assert "as u" in plain
    assert "geheim" not in plain
    secret.chmod(0o600)
    insecure = told(stream | login | {"broker.tls.insecure": True}, {"x": UNIVERSAL})
    assert "WARNING        broker.tls.insecure: the broker's name is NOT verified" in insecure
    assert insecure.count("WARNING") == 1


def test_a_key_that_others_can_read_is_loud(tmp_path):
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef")
    key.chmod(0o644)
    stream = {"streams.x.topic": "x/{channel}", "privacy.series_key_file": str(key)}
    loud = f"WARNING        privacy.series_key_file: other users may read it; chmod 600 {key}"
    assert loud in told(stream, {"x": UNIVERSAL})
    key.chmod(0o600)
    assert "series_key_file" not in told(stream, {"x": UNIVERSAL})


def test_metrics_are_told_of_and_loud_where_others_reach_them():
    stream = {"streams.x.topic": "p/{d}", "http.port": 9099}
    assert "http           127.0.0.1:9099: /metrics" in told(stream, {"x": UNIVERSAL})
    assert "WARNING" not in told(stream | {"http.host": "::1"}, {"x": UNIVERSAL})
    open_to_all = told(stream | {"http.host": "0.0.0.0"}, {"x": UNIVERSAL})
    assert "WARNING        http.host: whoever reaches 0.0.0.0:9099 can read the metrics" in open_to_all
    assert "http" not in told({"streams.x.topic": "p/{d}", "http.host": "0.0.0.0"}, {"x": UNIVERSAL})


def test_ways_by_which_models_arrive_are_told_and_those_that_are_shut_are_warned_of():
    stream = {"topic": "a/{device}/{channel}", "update_url": "https://host/m.pt?token=hush", "update_sha256": "0" * 64}
    models = {"updates": ["mqtt", "folder", "https"], "updates_folder": "/in", "trusted_keys": [KEY.public.text]}
    chosen = {"agent": {"id": "gw", "groups": ["hall"]}, "streams": {"s": stream}}
    text = "\n".join(summary(load_settings(None, chosen | {"models": models}), {"s": UNIVERSAL}))
    for line in ("transom push to gw, and to the groups hall", "from /in/STREAM/", "for s from https://host/m.pt"):
        assert line in text
    assert "WARNING" not in text
    assert "hush" not in text
    shut = chosen | {"models": {"updates_folder": "/in"}}
    text = "\n".join(summary(load_settings(None, shut), {"s": UNIVERSAL}))
    for key in ("agent.groups", "models.updates_folder", "streams.s.update_url"):
        assert f"WARNING        {key}: " in text
    unsigned = {"models": {"updates": ["folder"], "updates_folder": "/in", "allow_unsigned": True}}
    text = "\n".join(
        summary(load_settings(None, {"streams": {"s": {"topic": "a/{channel}"}}} | unsigned), {"s": UNIVERSAL})
    )
    assert "arrive by folder or https run whoever wrote them" in text


def test_a_broker_on_this_machine_needs_no_tls():
    for host in ("127.0.0.1", "::1", "localhost"):
        assert "WARNING" not in told({"streams.x.topic": "x", "broker.host": host}, {"x": UNIVERSAL})


def test_what_does_not_quite_fit_the_model_is_warned_of():
    flags = {
        "streams.x.topic": "x/{channel}", "streams.x.step": "5s",
        "streams.x.channels": {"heat": {"unit": "°F"}},
    }  # fmt: skip
    shown = told(flags, {"x": MACHINE})
    assert "streams.x.channels: speed of machine@2 will always be missing" in shown
    assert "streams.x.step: machine@2 was trained on steps of 1s" in shown
    assert "streams.x.channels.heat.unit: '°F'; the model knows '°C'" in shown


def test_a_pattern_that_merges_all_devices_into_one_series_is_warned_of():
    for topic in ("plant/#", "plant/+", "plant/+/{channel}"):
        shown = told({"streams.x.topic": topic}, {"x": UNIVERSAL})
        assert f"WARNING        streams.x.topic: {topic!r} names no level that tells devices apart" in shown
    for topic in ("plant/pump-1/temperature", "plant/{channel}", "plant/{device}/#", "plant/+/{device}/{channel}"):
        assert "WARNING" not in told({"streams.x.topic": topic}, {"x": UNIVERSAL})


# --- with model files ---------------------------------------------------------------------------------------------


def test_a_configuration_without_problems_is_summed_up_with_status_0(models, toml, capsys):
    file = toml(f"""
        [streams.pumps]
        topic = "plant/{{device}}/{{channel}}"
        model = "{models}/any.pt"
        [streams.machine]
        topic = "plant/{{machine}}"
        model = "{models}/machine.pt"
        channels = ["speed", "heat"]
        """)
    assert main(["check", "-c", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "machine@2 for anomaly: speed, heat" in out
    assert hashlib.sha256((models / "machine.pt").read_bytes()).hexdigest() in out
    assert f"signed by {KEY.public.name}" in out
    assert "WARNING" not in out
    assert out.endswith("no problems\n")


def test_unsigned_models_are_refused_and_where_they_are_allowed_that_is_loud(models, toml, tmp_path, capsys):
    shutil.copy(models / "any.pt", tmp_path / "own.pt")
    text = '[streams.a]\ntopic = "x/{channel}"\nmodel = "own.pt"\n'
    assert main(["check", "-c", str(toml(text))]) == 2
    err = capsys.readouterr().err
    assert "streams.a.model: " in err
    assert "own.pt: is not signed by a key of models.trusted_keys; sign it: transom sign" in err
    assert main(["check", "-c", str(toml(text + "[models]\nallow_unsigned = true\n"))]) == 0
    out = capsys.readouterr().out
    assert "UNSIGNED" in out
    assert "WARNING        models.allow_unsigned is true" in out
    assert "NOBODY vouches for the model of a" in out
    pin = hashlib.sha256((tmp_path / "own.pt").read_bytes()).hexdigest()
    assert main(["check", "-c", str(toml(f'{text}model_sha256 = "{pin}"\n'))]) == 0
    assert "pinned by model_sha256" in capsys.readouterr().out


def test_every_stream_that_does_not_fit_its_model_is_told_at_its_key(models, toml, tmp_path, capsys):
    (tmp_path / "foreign.pt").write_bytes(b"not a model")
    file = toml(f"""
        [streams.a]
        topic = "plant/{{device}}"
        model = "{models}/machine.pt"
        channels = ["speed", "haet"]
        [streams.b]
        topic = "plant/{{device}}"
        payload = "number"
        model = "{models}/machine.pt"
        [streams.c]
        topic = "plant/{{device}}"
        model = "{models}/any.pt"
        model_sha256 = "{"0" * 64}"
        [streams.d]
        topic = "plant/{{device}}"
        model = "foreign.pt"
        [streams.e]
        topic = "plant/{{device}}"
        model = "univresal"
        """)
    assert main(["check", "-c", str(file)]) == 2
    *lines, count = capsys.readouterr().err.splitlines()
    assert count == "transom: 5 problems in the configuration"
    for line, place, says in zip(
        lines,
        ("a.channels", "b.topic", "c.model", "d.model", "e.model"),
        ("has no channel 'haet'", "gives one value a message", "SHA-256 is", "foreign.pt", "no model 'univresal'"),
        strict=True,
    ):
        assert line.startswith(f"transom: {file}: streams.{place}: ")
        assert says in line


def test_a_model_is_found_beside_a_configuration_that_is_named_by_a_relative_path(
    models, tmp_path, monkeypatch, capsys
):
    (tmp_path / "etc").mkdir()
    shutil.copy(models / "any.pt", tmp_path / "etc" / "own.pt")
    shutil.copy(models / "any.pt.minisig", tmp_path / "etc" / "own.pt.minisig")
    (tmp_path / "etc" / "agent.toml").write_text('[streams.a]\ntopic = "x"\nmodel = "own.pt"\n')
    monkeypatch.chdir(tmp_path)
    assert main(["check", "-c", "etc/agent.toml"]) == 0
    assert main(["check", "-c", "etc/agent.toml", "--streams.a.model", "gone.pt"]) == 2
    assert f"there is no model file '{tmp_path / 'gone.pt'}'" in capsys.readouterr().err


def test_a_model_of_a_flag_is_found_from_the_working_folder(models, toml, monkeypatch):
    monkeypatch.chdir(models)
    assert main(["check", "-c", str(toml('[streams.a]\ntopic = "x"\n')), "--streams.a.model", "any.pt"]) == 0


# --- with a broker ------------------------------------------------------------------------------------------------


def test_a_broker_that_cannot_be_reached_is_told_with_the_other_problems(models, toml, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and it refuses
        flags = ["--streams.a.model", str(models / "any.pt"), "--broker.port", str(taken.getsockname()[1])]
        assert main(["check", "-c", str(toml('[streams.a]\ntopic = "x"\n')), "--connect", *flags]) == 2
        assert main(["check", "-c", str(toml('[streams.a]\ntopic = "x"\n')), *flags]) == 0
    assert "127.0.0.1" in capsys.readouterr().err


def test_a_broker_of_version_3_is_logged_in_to(models, toml, capsys):
    pytest.importorskip("amqtt", reason="the embedded broker is an extra")
    from transom.edge.broker import EmbeddedBroker

    file = toml('[streams.a]\ntopic = "x"\n')
    with EmbeddedBroker() as broker:
        flags = ["--streams.a.model", str(models / "any.pt"), f"--broker.port={broker.port}"]
        assert main(["check", "-c", str(file), "--connect", *flags]) == 0
    assert "by MQTT 3.1.1 as transom-" in capsys.readouterr().out


@pytest.fixture
def guarded_broker(tmp_path):
    """A mosquitto that lets in pat with the password geheim; gives its port."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
    mosquitto, passwd = shutil.which("mosquitto", path=path), shutil.which("mosquitto_passwd", path=path)
    if mosquitto is None or passwd is None:
        pytest.skip("mosquitto is not installed")
    users, config = tmp_path / "users", tmp_path / "mosquitto.conf"
    subprocess.run([passwd, "-b", "-c", str(users), "pat", "geheim"], check=True, capture_output=True, timeout=30)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    owner = "user root\n" if os.getuid() == 0 else ""
    config.write_text(f"{owner}listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\n")
    process = subprocess.Popen([mosquitto, "-c", str(config)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while "running" not in said:
            line = process.stderr.readline()
            assert line, f"mosquitto ended: {said}"
            said += line
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.mark.mosquitto
def test_a_wrong_password_is_told_and_never_shown(guarded_broker, models, toml, tmp_path, capsys):
    (tmp_path / "password").write_text("geheim\n")
    (tmp_path / "password").chmod(0o600)
    (tmp_path / "wrong").write_text("falsch")
    text = f'[broker]\nport = {guarded_broker}\nusername = "pat"\npassword_file = "password"\n'
    file = toml(f'{text}[streams.a]\ntopic = "x"\nmodel = "{models}/any.pt"\n')
    assert main(["check", "-c", str(file), "--connect"]) == 0
    out = capsys.readouterr().out
    assert "by MQTT 5 as transom-" in out
    assert "geheim" not in out
    assert "WARNING" not in out
    assert main(["check", "-c", str(file), "--connect", "--broker.password_file", str(tmp_path / "wrong")]) == 2
    err = capsys.readouterr().err
    assert "refuses the log-in (not authorized)" in err
    assert "falsch" not in err


def test_calls_that_anyone_may_make_are_loud():
    stream = {"streams.x.topic": "x/{channel}", "agent.remote": "ping, reload"}
    warned = "WARNING        agent.remote: anyone whom the broker lets publish may call ping, reload"
    assert warned in told(stream, {"x": UNIVERSAL})
    assert "WARNING" not in told(stream | {"broker.username": "u"}, {"x": UNIVERSAL})
