"""keygen, sign and verify as a person types them, and an agent that then runs what was signed."""

import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import torch

from transom.cli import main
from transom.core.model import Channel, Manifest
from transom.edge import gate, reports
from transom.edge.assembly import build_pipeline
from transom.edge.checkup import storage
from transom.errors import SettingsError
from transom.runtimes import bundle, files, minisign
from transom.runtimes.trial import Trials
from transom.runtimes.trust import Voucher
from transom.settings import load_settings, read
from transom.verbs.run import prepare


class Distance(torch.nn.Module):
    def forward(self, window: torch.Tensor) -> dict[str, torch.Tensor]:
        window = torch.nan_to_num(window)  # [B, T, C]
        expected = window.mean(1)
        contribution = (window[:, -1] - expected).abs()
        return {"score": contribution.sum(1), "contribution": contribution, "expected": expected}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    described = Manifest(
        name="pump", version="3", task="anomaly", family="none", channels=(Channel("flow"),), length=8
    )  # fmt: skip
    path = tmp_path_factory.mktemp("signing") / "pump.pt"
    with bundle.quiet():
        bundle.write_bundle(torch.jit.script(Distance()), described, path)
    return path


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, in which nothing is configured and no key exists."""
    shutil.copy(made, tmp_path / "pump.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def key_of(said: str) -> str:
    return next(line for line in said.splitlines() if line.startswith("trusted_keys")).split('"')[1]


def test_a_model_is_signed_verified_and_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "--no-password"]) == 0
    said = capsys.readouterr().out
    key = key_of(said)
    secret = here / "config" / "transom" / "model.key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert "NOT encrypted" in said

    assert main(["verify", "pump.pt", "--key", key]) == 1
    assert "pump.pt: is not signed by a key of models.trusted_keys" in capsys.readouterr().err

    assert main(["sign", "pump.pt", "--comment", "trained on May"]) == 0
    assert "pump@3 signed with the key" in capsys.readouterr().out

    assert main(["verify", "pump.pt", "--key", str(secret.with_suffix(".pub"))]) == 0
    said = capsys.readouterr().out
    name = minisign.read_public(key, "").name
    assert f"pump.pt: pump@3 for anomaly, signed by {name}" in said
    assert "model:pump@3 trained on May" in said
    assert "loads    and answers within" in said

    config = here / "transom.toml"
    config.write_text(f'[models]\ntrusted_keys = ["{key}"]\n[streams.a]\ntopic = "x/{{channel}}"\nmodel = "pump.pt"\n')
    assert main(["verify", "pump.pt", "--no-load"]) == 0
    assembly = build_pipeline(load_settings(config, {}))
    assert not assembly.broken
    info = json.loads(reports.info("transom/gw", assembly.pipeline, {}, assembly.vouchers).payload)
    assert info["streams"][0]["trust"] == f"signed by {name}"
    assert "warnings" not in info

    config.write_text(config.read_text().replace(key, minisign.generate().public.text))
    with pytest.raises(SettingsError, match=f"is signed with the key {name}, which is not among models.trusted_keys"):
        build_pipeline(load_settings(config, {}))


def test_where_unsigned_models_are_allowed_the_log_and_info_say_so_loudly(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = here / "transom.toml"
    config.write_text('[streams.a]\ntopic = "x/{channel}"\nmodel = "pump.pt"\n')
    with pytest.raises(SettingsError, match="is not signed .* set models.allow_unsigned = true"):
        build_pipeline(load_settings(config, {}))
    settings = load_settings(config, {"models.allow_unsigned": True})
    assembly = build_pipeline(settings)
    assert any(r.levelname == "WARNING" and "pump.pt is UNSIGNED and runs because" in r.message for r in caplog.records)
    said = reports.info("transom/gw", assembly.pipeline, {}, assembly.vouchers, allow_unsigned=True)
    info = json.loads(said.payload)
    assert info["streams"][0]["trust"] == "UNSIGNED"
    assert "NOBODY vouches for the model of a" in info["warnings"][0]
    shipped = {"a": Voucher("shipped", "0" * 64)}
    assert "NOBODY" not in next(gate.notes(allow_unsigned=True, vouchers=shipped))


def test_check_loads_no_file_while_it_cannot_know_whom_to_trust(
    here: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    config = here / "transom.toml"
    stream = 'topic = "x/{channel}"\nmodel = "pump.pt"\n'
    config.write_text(
        f'[models]\ntrusted_keys = ["pump.pub"]\n[streams.a]\n{stream}[streams.b]\n{stream.replace("pump", "gone")}'
    )
    assert main(["check", "-c", str(config)]) == 2
    said = capsys.readouterr().err
    assert "'pump.pub' is no public key" in said
    assert "there is no model file" in said
    assert "2 problems" in said
    assert not caplog.records  # neither tried nor called unsigned


def test_doctor_finds_unsigned_models_and_that_they_are_allowed(here: Path) -> None:
    config = here / "transom.toml"
    config.write_text('[streams.a]\ntopic = "x/{channel}"\nmodel = "pump.pt"\n')
    reading = read(config, {})
    (found,) = storage.model_findings(reading.streams, reading.folder, trust=reading.trust)
    assert "is not signed by a key of models.trusted_keys" in found.what
    assert "transom sign" in found.mend
    reading = read(config, {"models.allow_unsigned": "true"})
    (found,) = storage.model_findings(reading.streams, reading.folder, trust=reading.trust)
    assert "NOBODY vouches for the model of a" in found.what
    assert not found.note


def test_a_password_opens_the_key_and_another_does_not(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "right").write_text("correct horse\n")
    (here / "wrong").write_text("wrong horse\n")
    assert main(["keygen", "--password-file", "right", "--output", "plant"]) == 0
    assert "NOT encrypted" not in capsys.readouterr().out
    assert main(["sign", "pump.pt", "--key", "plant.key", "--password-file", "right"]) == 0
    assert main(["verify", "pump.pt", "--key", "plant.pub", "--no-load"]) == 0
    capsys.readouterr()
    assert main(["sign", "pump.pt", "--key", "plant.key", "--password-file", "wrong"]) == 1
    assert "plant.key: the password is wrong" in capsys.readouterr().err
    assert main(["sign", "pump.pt", "--key", "plant.key"]) == 1  # no terminal
    assert "give --password-file FILE" in capsys.readouterr().err


def test_no_key_is_replaced_and_a_missing_one_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sign", "pump.pt"]) == 1
    assert "make one: transom keygen" in capsys.readouterr().err
    assert main(["keygen", "--no-password", "--output", "plant"]) == 0
    before = (here / "plant.key").read_text()
    assert main(["keygen", "--no-password", "--output", "plant"]) == 1
    assert "plant.key: exists already" in capsys.readouterr().err
    assert (here / "plant.key").read_text() == before


def test_nothing_is_signed_that_an_agent_would_not_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "--no-password"]) == 0
    (here / "pump.pt").write_bytes((here / "pump.pt").read_bytes()[:-100])
    assert main(["sign", "pump.pt"]) == 1
    assert "cut off" in capsys.readouterr().err
    assert not (here / "pump.pt.minisig").exists()


def test_the_shipped_models_need_no_key_wherever_they_lie(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (files.shipped_models()["universal"], files.shipped_models()["universal"].with_suffix(".onnx")):
        shutil.copy(file, here / f"mine{file.suffix}")
        assert main(["verify", f"mine{file.suffix}", "--no-load"]) == 0
        assert "universal@" in (said := capsys.readouterr().out)
        assert "shipped" in said


def test_a_model_for_onnx_runtime_is_tried_too() -> None:
    file = files.shipped_models()["universal"].with_suffix(".onnx")
    _, digest = files.read_verified(file)
    with Trials() as trials:
        assert trials.run(file, digest).held[0] == "rlimits"


def test_the_process_for_trials_gets_ready_ahead_for_models_that_are_not_shipped(here: Path) -> None:
    def prepared(*models: Path | str) -> Trials:
        streams = {f"s{i}": {"topic": f"t{i}", "model": str(model)} for i, model in enumerate(models)}
        return prepare(load_settings(None, {"streams": streams}))

    with prepared("universal", "nothing-such.pt") as trials:
        assert not trials.started
    with prepared("universal", here / "pump.pt") as trials:
        assert trials.started
        _, digest = files.read_verified(here / "pump.pt")
        assert trials.run(here / "pump.pt", digest).held[0] == "rlimits"
    assert not trials.started


def test_minisign_itself_reads_our_keys_and_signatures_and_we_read_its(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = shutil.which("minisign")
    if program is None:
        pytest.skip("minisign is not installed (apt install minisign)")

    def typed(*words: str) -> str:
        return subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout

    assert main(["keygen", "--no-password", "--output", "ours"]) == 0
    assert main(["sign", "pump.pt", "--key", "ours.key", "--comment", "checked"]) == 0
    assert "checked" in typed("-V", "-p", "ours.pub", "-m", "pump.pt")
    typed("-S", "-s", "ours.key", "-m", "pump.pt", "-t", "by the other program")
    assert main(["verify", "pump.pt", "--key", "ours.pub", "--no-load"]) == 0
    typed("-G", "-W", "-p", "theirs.pub", "-s", "theirs.key")
    assert main(["sign", "pump.pt", "--key", "theirs.key"]) == 0
    assert main(["verify", "pump.pt", "--key", "theirs.pub", "--no-load"]) == 0
    assert "by the other program" in capsys.readouterr().out
