"""`transom doctor`: each thing that would go wrong is found, with why it matters and the command that mends it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests_support import Heard
from transom.cli import main
from transom.edge.checkup import Finding, broker, machine, mosquitto, storage, trial
from transom.edge.checkup.certificates import ending
from transom.edge.checkup.machine import Torch, clock_findings, cpu_findings, torch_findings
from transom.runtimes.bundle import shipped_models

CONFIG = """\
[agent]
id = "gw"
state = "state"

[broker]
port = {port}
{login}

[streams.s]
topic = "plant/{{device}}/{{channel}}"
{more}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A configuration, on a machine about whose clock and torch nothing is to be said."""
    monkeypatch.setattr(machine, "findings", lambda: iter(()))
    monkeypatch.setattr(machine, "look_torch", lambda: Torch("2.10.0", None, True))
    monkeypatch.setattr(storage, "UNITS", tmp_path / "no-units")
    monkeypatch.setattr(broker, "mosquitto_findings", lambda _host: iter(()))
    monkeypatch.setattr(trial, "LISTEN", 0.5)

    def make(port: int = 1, login: str = "", more: str = "") -> Path:
        file = tmp_path / "agent.toml"
        file.write_text(CONFIG.format(port=port, login=login, more=more))
        return file

    return make


def examined(config: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """The findings; the notes are left out."""
    status = main(["doctor", "-c", str(config), "--json", *words])
    found = [f for f in json.loads(capsys.readouterr().out) if not f["note"]]
    assert status == (1 if found else 0)
    return found


def whats(found: list[Finding]) -> str:
    assert all(f.why and f.mend for f in found)
    return " | ".join(f.what for f in found)


# --- the machine ------------------------------------------------------------------------------------------------------


def test_a_torch_that_the_processor_cannot_run() -> None:
    found = list(torch_findings(Torch(ended=4), gpu=False, machine="aarch64"))
    assert "SIGILL" in whats(found)
    assert found[0].mend.endswith("pip install torch==2.10.0")


def test_a_torch_for_cuda_matters_where_there_is_no_gpu() -> None:
    built = Torch("2.13.0+cu130", "13.0", True)
    assert "built for CUDA 13.0" in whats(list(torch_findings(built, gpu=False, machine="x86_64")))
    assert not list(torch_findings(built, gpu=True, machine="x86_64"))


def test_where_models_run_without_torch_nothing_is_said_of_it(
    write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "look_torch", lambda: Torch(ended=4))
    config = write()
    assert [f["area"] for f in examined(config, capsys, "--no-connect")] == ["torch"]
    config.write_text(config.read_text().replace('id = "gw"', 'id = "gw"\nruntime = "onnx"'))
    assert examined(config, capsys, "--no-connect") == []


def test_this_torch_runs_small_layers_in_a_child() -> None:
    told = machine.look_torch()
    assert told.sane, told


@pytest.mark.parametrize(
    ("features", "machine_", "bits", "what"),
    [
        (set(), "armv7l", 32, "a 32-bit system"),
        (set(), "aarch64", 32, "a 32-bit system"),  # a 64-bit kernel with programs of 32 bits
        ({"sse4_2"}, "x86_64", 64, "no AVX2"),
        ({"fp"}, "aarch64", 64, "no SIMD"),
        ({"fp", "asimd"}, "aarch64", 64, ""),
        ({"avx2"}, "x86_64", 64, ""),
    ],
)
def test_processors(features: set[str], machine_: str, bits: int, what: str) -> None:
    found = list(cpu_findings(features, machine=machine_, bits=bits))
    assert what in whats(found)
    assert bool(found) == bool(what)


def test_the_processor_of_this_machine_is_read(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n")
    assert machine.look_cpu(file) == {"fp", "asimd", "evtstrm", "crc32", "cpuid"}
    assert machine.look_cpu(tmp_path / "none") == set()


def test_clocks() -> None:
    assert "not synchronised" in whats(list(clock_findings(False, 2026)))
    assert "says 1970" in whats(list(clock_findings(True, 1970)))
    assert not list(clock_findings(True, 2026))
    assert not list(clock_findings(None, 2026))  # nobody knows
    assert machine.look_clock() in (True, False)


def test_memory_and_supply(tmp_path: Path) -> None:
    assert "200 MB" in whats(list(machine.memory_findings(200 << 20)))
    assert not list(machine.memory_findings(4 << 30))
    assert machine.look_memory() or 0 > 1 << 20
    file = tmp_path / "get_throttled"
    file.write_text("50005\n")
    assert "voltage is too low" in whats(list(machine.supply_findings(file)))
    file.write_text("0\n")
    assert not list(machine.supply_findings(file))


# --- storage ----------------------------------------------------------------------------------------------------------


def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    found = list(storage.state_findings(Path("/proc/transom")))
    assert "cannot be written to /proc/transom" in whats(found)
    assert list(storage.state_findings(Path("/proc/x/y"), trial=False)) == []
    assert not list(storage.state_findings(tmp_path / "not" / "yet" / "there"))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LEAST_FREE", 1 << 60)
    assert "MB are free where state is kept" in whats(list(storage.state_findings(tmp_path)))


def test_a_model_whose_digest_differs(write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "pump.pt"
    model.write_bytes(shipped_models()["universal"].read_bytes())
    config = write(more='model = "pump.pt"')
    assert examined(config, capsys, "--no-connect") == []
    (tmp_path / "pump.pt.sha256").write_text("0" * 64 + "  pump.pt\n")
    (found,) = examined(config, capsys, "--no-connect")
    assert "SHA-256" in found["what"]
    assert "sha256sum" in found["mend"]


def test_a_configuration_that_is_refused_is_a_finding_among_others(write, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(more='nonsense = "1"\nmodel = "nosuch.pt"')
    assert {f["area"] for f in examined(config, capsys)} == {"configuration"}
    assert main(["doctor", "-c", str(config)]) == 1
    assert "FINDING" in capsys.readouterr().out


def test_a_password_that_others_can_read(write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o644)
    config = write(login='username = "u"\npassword_file = "secret"')
    (found,) = examined(config, capsys, "--no-connect")
    assert found["mend"] == f"chmod 600 {tmp_path / 'secret'}"
    subprocess.run(["sh", "-c", found["mend"]], check=True)
    assert examined(config, capsys, "--no-connect") == []


def test_a_certificate_that_ends_soon_and_a_key_that_others_can_read(
    write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = "req -x509 -newkey rsa:2048 -nodes -keyout own.key -out own.pem -days 10 -subj /CN=gw"
    subprocess.run(["openssl", *made.split()], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "own.key").chmod(0o644)
    config = write(login='tls = { ca_file = "own.pem", cert_file = "own.pem", key_file = "own.key" }')
    key, authority, own, refused = examined(config, capsys)
    assert key["mend"] == f"chmod 600 {tmp_path / 'own.key'}"
    assert "the authority ends in 9 days" in authority["what"]
    assert "our certificate ends in 9 days" in own["what"]
    assert own["mend"] == "renew it"
    assert "nothing listens there" in refused["what"]
    assert "the broker's certificate ended on 1970-01-01" in whats(list(ending({"broker": 0.0})))


# --- the broker -------------------------------------------------------------------------------------------------------


def test_all_is_well_with_a_broker_that_keeps_sessions(
    mosquitto_broker, write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examined(write(mosquitto_broker.port), capsys) == []
    assert main(["doctor", "-c", str(write(mosquitto_broker.port))]) == 0
    told = capsys.readouterr().out
    assert "note: nothing was heard" in told  # no sensor has sent anything
    assert told.endswith("nothing to mend\n")


def test_a_broker_that_is_not_there(write, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = examined(write(1), capsys)
    assert "nothing listens there" in found["what"]
    assert "systemctl enable --now mosquitto" in found["mend"]


def test_a_broker_that_keeps_no_session(amqtt_broker, write, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(write(amqtt_broker.port), capsys)
    assert "the broker keeps no session" in [f["what"] for f in found]


def test_a_log_in_that_is_refused(mosquitto, write, capsys: pytest.CaptureFixture[str]) -> None:
    one = mosquitto("allow_anonymous false")
    (found,) = examined(write(one.port), capsys)
    assert "refuses the log-in" in found["what"]
    assert "mosquitto_passwd" in found["mend"]


def test_an_acl_that_forbids_what_the_agent_publishes(
    mosquitto, write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write transom/other/#\n")
    one = mosquitto("allow_anonymous true", f"acl_file {acl}")
    config = write(one.port)
    (found,) = examined(config, capsys)
    assert "may not publish under transom/gw/" in found["what"]
    assert "topic write transom/gw/#" in found["mend"]
    main(["doctor", "-c", str(write(one.port, 'protocol = "3.1.1"'))])  # which cannot refuse
    assert "note: may not publish under transom/gw/, or not read there" in capsys.readouterr().out


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_least_rights_that_the_agent_needs_are_enough(
    mosquitto, write, tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read plant/#\ntopic write transom/gw/#\n")
    one = mosquitto("allow_anonymous true", f"acl_file {acl}")
    assert examined(write(one.port, f'protocol = "{protocol}"'), capsys) == []


def test_leftovers_of_a_former_id_and_of_a_stream_that_is_gone(
    mosquitto_broker, write, capsys: pytest.CaptureFixture[str]
) -> None:
    port = mosquitto_broker.port
    host = {"host": {"name": broker.platform.node()}}
    with Heard(port, "nothing") as other:
        for topic, body in (
            ("transom/old/info", host), ("transom/old/status", {"state": "offline"}), ("transom/old/s/d/x/alert", {}),
            ("transom/twin/info", host), ("transom/twin/status", {"state": "online"}),
            ("transom/away/info", {"host": {"name": "elsewhere"}}), ("transom/away/status", {"state": "offline"}),
            ("transom/gw/gone/d/x/alert", {}), ("transom/gw/s/d/x/alert", {}), ("transom/gw/status", {"state": "offline"}),
        ):  # fmt: skip
            other.client.publish(topic, json.dumps(body), 1, retain=True).wait_for_publish(10)
    found = examined(write(port), capsys)
    assert [f["what"].rpartition(", ")[2] for f in found] == ["old", "gone"]
    for finding in found:
        subprocess.run(["sh", "-c", finding["mend"]], check=False, timeout=30)
    assert examined(write(port), capsys) == []
    with Heard(port, "transom/#") as other:
        other.wait_for("transom/gw/s/d/x/alert")  # the rest is still there
        other.wait_for("transom/away/status")


def test_the_trial_leaves_nothing_at_the_broker(mosquitto_broker, write, capsys: pytest.CaptureFixture[str]) -> None:
    with Heard(mosquitto_broker.port, "transom/#") as other:
        assert examined(write(mosquitto_broker.port), capsys) == []
        assert set(other.messages) == {"transom/gw/doctor", "transom/gw/s/doctor"}
    with Heard(mosquitto_broker.port, "#") as other:
        other.client.publish("mark", b"1", 1)
        other.wait_for("mark")
        assert set(other.messages) == {"mark"}


def test_a_mosquitto_that_is_configured_to_lose_messages(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    file = tmp_path / "mosquitto.conf"
    file.write_text(f"# Debian's own\npersistence true\ninclude_dir {tmp_path}/conf.d\n")
    assert "1000 (the default) messages" in whats(list(mosquitto.mosquitto_findings("127.0.0.1", file)))
    (tmp_path / "conf.d/transom.conf").write_text("max_queued_messages 100000\npersistence false\n")
    assert "no persistence" in whats(list(mosquitto.mosquitto_findings("localhost", file)))
    (tmp_path / "conf.d/transom.conf").write_text("max_queued_messages 0\n")
    assert not list(mosquitto.mosquitto_findings("localhost", file))
    assert not list(mosquitto.mosquitto_findings("192.0.2.7", tmp_path / "none"))
